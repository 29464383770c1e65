"""The commands that read, over a small night (:mod:`tests.bydawn.a_night`)."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bydawn.cli.main import main
from bydawn.cli.show import where_to_look
from bydawn.manifest import write_outputs
from ledger.reader import Reader
from runtime.disk import RealDisk
from tests.bydawn.a_night import IDS, IMAGE, SECRET_URL, START_US, tell


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    tell(folder / "bydawn.db", folder)
    return folder


@pytest.fixture
def night(told: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the night, as the working directory."""
    monkeypatch.chdir(told)
    monkeypatch.delenv("BYDAWN_LEDGER", raising=False)
    return told


class Said:
    """What a command printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def call(night: Path, capsys: pytest.CaptureFixture[str]) -> "Caller":
    return Caller(capsys)


class Caller:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *args: str) -> Said:
        code = main(list(args))
        said = self._capsys.readouterr()
        return Said(code, said.out, said.err)


# --- status -----------------------------------------------------------------------------------------------


def test_status_counts_the_tasks_and_the_money(call: Caller) -> None:
    said = call("status")
    assert said.code == 0
    assert "5 of 7 settled, 71%" in said.out
    assert "queued 1 · in flight 1 · succeeded 3 · failed 1 · held 1 · flagged 2 · shared 1" in said.out
    assert "$0.120 of $5.00" in said.out
    assert "bydawn resolve teapots" in said.out


def test_status_as_json_holds_what_people_see(call: Caller) -> None:
    (line,) = call("status", "teapots", "--json").lines
    assert line["type"] == "status"
    assert line["batch"] == "teapots"
    assert (line["tasks"], line["settled"], line["accepted"], line["held"]) == (7, 5, 1, 1)
    assert (line["cost_microusd"], line["reserved_microusd"], line["at_risk_microusd"]) == (120_000, 150_000, 75_000)
    assert line["budget_microusd"] == 5_000_000
    assert line["running"] is False
    assert (line["rate_per_s"], line["eta_s"]) == (0.0, None)  # nobody works on it


def test_status_can_be_asked_by_a_script(call: Caller) -> None:
    assert call("status", "--check").code == 3


def test_status_speaks_without_colour_when_it_is_no_terminal(call: Caller) -> None:
    for command in (("status",), ("tasks",), ("log",), ("show", "red")):
        assert "\x1b" not in call(*command).out


# --- tasks ------------------------------------------------------------------------------------------------


def test_tasks_are_listed_in_input_order(call: Caller) -> None:
    lines = call("tasks", "--json").lines
    assert [line["id"] for line in lines] == list(IDS)
    assert [line["state"] for line in lines] == [
        *("succeeded", "succeeded", "failed", "held", "accepted", "queued", "succeeded")
    ]
    assert lines[6]["shared_with"] == 1
    assert lines[0]["flags"] == ["small"]


@pytest.mark.parametrize(
    ("args", "ids"),
    [
        (["--state", "failed"], ["=1+1"]),
        (["--state", "open"], ["陶壶", "next"]),
        (["--state", "failed", "--state", "queued"], ["=1+1", "next"]),
        (["--provider", "kie", "--state", "succeeded"], ["red", "blue"]),
        (["--flag", "small", "--limit", "1"], ["red"]),
        (["--flag", "blank"], []),
    ],
)
def test_tasks_can_be_chosen(call: Caller, args: list[str], ids: list[str]) -> None:
    assert [line["id"] for line in call("tasks", "teapots", *args, "--json").lines] == ids


def test_a_stream_of_tasks_goes_over_pages(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bydawn.cli.tasks.PAGE", 3)
    assert [line["id"] for line in call("tasks", "--json").lines] == list(IDS)
    assert [line["id"] for line in call("tasks", "--json", "--limit", "4").lines] == list(IDS[:4])


def test_tasks_as_csv_cannot_run_formulas(call: Caller) -> None:
    """SEC-5."""
    rows = list(csv.DictReader(io.StringIO(call("tasks", "--csv").out)))
    assert len(rows) == len(IDS)
    assert rows[2]["id"].lstrip("'") == "=1+1"
    assert not rows[2]["id"].startswith("=")


def test_the_table_cannot_move_the_cursor(call: Caller) -> None:
    assert "\x1b" not in call("tasks").out


def test_a_table_says_that_there_is_more(call: Caller) -> None:
    said = call("tasks", "--limit", "2")
    assert len(said.out.splitlines()) == 3
    assert "more than 2" in said.err


def test_a_reader_that_goes_away_is_no_error(night: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys; from bydawn.cli.main import main; sys.exit(main())",
        "tasks",
        "--json",
    ]
    root = str(Path(__file__).resolve().parent.parent.parent)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}
    ) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.close()
        assert (listing.stderr.read(), listing.wait(60)) == (b"", 0)


# --- show -------------------------------------------------------------------------------------------------


def test_show_tells_everything(call: Caller) -> None:
    said = call("show", "teapots/blue").out
    for part in ("A teapot, blue", "segmind", "throttled", "job-blue", "attempt accepted #2", "$0.06", "1024×1024"):
        assert part in said


@pytest.mark.parametrize("task", ["=1+1", "#3", "teapots/#3"])
def test_show_finds_a_task_by_id_and_by_number(call: Caller, task: str) -> None:
    said = call("show", task)
    assert "teapots/=1+1  failed  policy" in said.out
    assert "model says no" in said.out
    assert "\x1b" not in said.out


@pytest.mark.parametrize("args", [["show", "red"], ["show", "red", "--json"], ["tasks", "--json"], ["tasks", "--csv"]])
def test_nobody_is_shown_the_address_of_a_result(call: Caller, args: list[str]) -> None:
    """SEC-1."""
    said = call(*args)
    assert SECRET_URL not in said.out
    assert "secret-result" not in said.out


def test_show_as_json_gives_task_and_events(call: Caller) -> None:
    task, *events = call("show", "blue", "--json").lines
    assert (task["type"], task["id"], task["cost_microusd"]) == ("task", "blue", 60_000)
    assert isinstance(task["attempts"], list)
    assert [attempt["cost_stated"] for attempt in task["attempts"]] == [False, True]
    assert [event["event"] for event in events][:3] == [
        "task.queued.v1",
        "task.attempt_intended.v1",
        "task.attempt_rejected.v1",
    ]
    assert [event["version"] for event in events] == list(range(1, 8))


def test_held_money_is_shown_as_at_risk(call: Caller) -> None:
    said = call("show", "#4").out
    assert "at risk   $0.075" in said
    assert "held      $0.075" in said
    assert "no_evidence" in said
    assert "Kie cannot be asked, or not about so old a purchase" in said


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ("replicate", "bydawn resolve b    its candidates at Replicate, with time and cost"),
        ("toapis", "bydawn resolve b    its candidates at Toapis, with time and cost"),
        ("wavespeed", "bydawn resolve b    its candidates at WaveSpeed, with time and cost"),
        (
            "together",
            "bydawn resolve b    Together cannot be asked for its jobs: "
            "look at the web pages of Together for what ran at that time",
        ),
        ("of a package that went", "bydawn resolve b    its candidates at of a package that went, with time and cost"),
    ],
)
def test_where_to_look_for_a_job_depends_on_the_provider(provider: str, said: str) -> None:
    assert where_to_look(provider, "bydawn resolve b") == said


def test_a_held_task_says_what_can_be_done_next(call: Caller) -> None:
    """MON-10: with the dollars, and nothing of that kind for a task that is not held."""
    said = call("show", "#4").out
    assert "--buy-again    at most $0.075 paid twice" in said
    assert "bydawn resolve teapots --adopt" in said
    # It promised candidates where there are none to be had.
    assert "Kie cannot be asked for its jobs: look at https://kie.ai/logs for what ran at that time" in said
    assert "\x1b" not in said
    assert "bydawn resolve" not in call("show", "red").out


# --- log --------------------------------------------------------------------------------------------------


def test_log_tells_batches_and_runs(call: Caller) -> None:
    batch, run = call("log", "--json").lines
    assert (batch["type"], batch["batch"], batch["tasks"], batch["succeeded"]) == ("batch", "teapots", 7, 3)
    assert (run["type"], run["state"], run["exit_code"], run["started_at_us"]) == ("run", "ended", 130, START_US)
    assert run["run_cost_microusd"] == 120_000
    assert (run["batch"], run["run_succeeded"], run["run_failed"], run["run_held"]) == ("teapots", 3, 1, 1)
    assert "bydawn run teapots.csv" in call("log").out


# --- which ledger, which batch ----------------------------------------------------------------------------


def test_the_ledger_is_found_from_a_folder_below(call: Caller, night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = night / "teapots" / "blobs"
    monkeypatch.chdir(below)
    assert call("status", "--json").lines[0]["ledger"] == str(night / "bydawn.db")


def test_a_batch_that_is_not_there_is_answered_with_those_that_are(call: Caller) -> None:
    said = call("tasks", "teapot")
    assert said.code == 10
    assert "BD-101" in said.err
    assert "did you mean teapots?" in said.err


def test_a_task_that_is_not_there_is_answered_with_some_that_are(call: Caller) -> None:
    said = call("show", "teapots/green", "--json")
    assert said.code == 10
    assert said.out == ""
    assert json.loads(said.err)["why"] == "its ids look like: red, blue, =1+1"


def test_no_ledger_is_exit_10(call: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = call("status")
    assert said.code == 10
    assert "BD-510" in said.err


def test_practice_is_found_too_unless_the_real_ledger_knows_the_batch(
    call: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(tmp_path / "bydawn-sandbox.db", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert call("tasks", "teapots", "--limit", "1", "--json").lines[0]["id"] == "red"
    assert call("status", "--json").lines[0]["ledger"] == str(tmp_path / "bydawn-sandbox.db")
    assert call("log", "--sandbox").code == 0


def test_a_file_that_is_no_ledger_is_exit_12(call: Caller, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(b"something else entirely, long enough to be read as a page" * 100)
    said = call("status", "--ledger", str(other))
    assert said.code == 12
    assert "BD-512" in said.err


# --- export -----------------------------------------------------------------------------------------------


def test_an_export_has_a_line_per_task_with_its_columns(call: Caller) -> None:
    lines = call("export", "teapots").lines
    assert [line["id"] for line in lines] == list(IDS)
    red, blue, odd, *_, again = lines
    assert (red["file"], red["version"], red["seconds"]) == ("images/red.png", 1, 3.0)
    assert (blue["provider"], blue["attempts"], blue["cost_microusd"]) == ("kie", 2, 60_000)
    assert (odd["status"], odd["error"], odd["file"]) == ("failed", "policy", None)
    assert (again["shared_with"], again["cost_microusd"], again["file"]) == ("red", 0, "images/red-again.png")
    assert red["Title"] == "=HYPERLINK(1)"


def test_an_export_as_csv_cannot_run_formulas(call: Caller, tmp_path: Path) -> None:
    """SEC-5."""
    output = tmp_path / "out.csv"
    said = call("export", "--format", "csv", "-o", str(output))
    assert said.out == ""
    assert "7 tasks of teapots" in said.err
    rows = list(csv.DictReader(io.StringIO(output.read_text("utf-8"))))
    assert [row["Title"] for row in rows] == ["'=HYPERLINK(1)"] * len(IDS)
    assert rows[2]["id"] == "'=1+1"


def test_an_export_that_cannot_be_written_is_exit_7(call: Caller, night: Path) -> None:
    said = call("export", "-o", str(night / "bydawn.db" / "below-a-file.jsonl"))
    assert said.code == 7
    assert "BD-104" in said.err


def test_the_manifest_can_be_rebuilt_byte_for_byte(night: Path) -> None:
    """RES-7, W13."""
    folder = night / "teapots"
    with Reader(night / "bydawn.db") as reader:
        write_outputs(reader, 1, RealDisk())
        first = {name: (folder / name).read_bytes() for name in ("manifest.jsonl", "errors.jsonl")}
        for name in first:
            (folder / name).unlink()
        write_outputs(reader, 1, RealDisk())
    assert {name: (folder / name).read_bytes() for name in first} == first
    troubled = [json.loads(line)["id"] for line in first["errors.jsonl"].splitlines()]
    assert troubled == ["=1+1", "wet\x1b[2J"]


def test_names_of_images_come_back_and_strangers_stay(tmp_path: Path) -> None:
    """RES-7: a removed name is linked again; a file that somebody put there is not overwritten."""
    tell(tmp_path / "bydawn.db", tmp_path)
    images = tmp_path / "teapots" / "images"
    with Reader(tmp_path / "bydawn.db") as reader:
        write_outputs(reader, 1, RealDisk())
        assert sorted(path.name for path in images.iterdir()) == ["blue.png", "red-again.png", "red.png"]
        (images / "blue.png").unlink()
        (images / "red.png").unlink()
        (images / "red.png").write_bytes(b"retouched")
        (images / "red-again.png").unlink()
        (images / "red-again.png").symlink_to("nowhere")
        write_outputs(reader, 1, RealDisk())
    assert (images / "blue.png").read_bytes() == IMAGE
    assert (images / "red.png").read_bytes() == b"retouched"
    assert (images / "red-again.png").is_symlink()


def test_a_name_without_its_image_does_not_end_a_run(tmp_path: Path) -> None:
    """RES-7: `verify` tells of the image; the manifest is written all the same."""
    tell(tmp_path / "bydawn.db", tmp_path)
    shutil.rmtree(tmp_path / "teapots" / "blobs")
    with Reader(tmp_path / "bydawn.db") as reader:
        write_outputs(reader, 1, RealDisk())
    assert not (tmp_path / "teapots" / "images").exists()
    assert len((tmp_path / "teapots" / "manifest.jsonl").read_text().splitlines()) == len(IDS)
