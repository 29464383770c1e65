"""``erase`` (SEC-8), over a small night: texts, names, outputs and images go; the ledger stays valid."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bydawn.cli.main import main
from bydawn.erasing import erase
from bydawn.manifest import Naming, write_outputs
from bydawn.opening import opened_for_writing
from ledger.events import BatchConfigured
from ledger.journal import Ledger
from ledger.reader import Reader
from ledger.streams import batch_stream, task_stream
from runtime.blobs import BlobStore
from runtime.disk import RealDisk
from runtime.names import with_ending
from runtime.requests import decode_request
from tests.bydawn.a_night import IMAGE, Night, tell

RED = b"A teapot, red"  # what the tasks red and red-again asked for


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tell(tmp_path / "bydawn.db", tmp_path)
    with Reader(tmp_path / "bydawn.db") as reader:
        write_outputs(reader, 1, RealDisk())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BYDAWN_LEDGER", raising=False)
    return tmp_path


@pytest.fixture
def say(night: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def said(*args: str, code: int = 0) -> str:
        found = main(list(args))
        out, err = capsys.readouterr()
        assert found == code, err
        return err if code else out

    return said


def everywhere(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every name below the folder, and every byte."""
    for path in folder.rglob("*"):
        yield str(path.relative_to(folder)), path.read_bytes() if path.is_file() else b""


def left(folder: Path, words: bytes) -> list[str]:
    return [name for name, data in everywhere(folder) if words in data or words.decode() in name]


def test_the_words_are_nowhere_and_the_ledger_is_valid(night: Path, say: Callable[..., str]) -> None:
    assert {"bydawn.db", "teapots/manifest.jsonl"} <= set(left(night, RED))
    (done,) = map(json.loads, say("erase", "teapots/red", "--yes", "--json").splitlines())
    assert (done["tasks"], done["texts"], done["files"], done["log_emptied"]) == (2, 3, 0, True)
    assert left(night, RED) == []
    verified = json.loads(say("verify", "--json"))
    assert (verified["ok"], verified["erased"], verified["files"]) == (True, 3, 2)
    rows = [json.loads(line) for line in (night / "teapots/manifest.jsonl").read_text().splitlines()]
    assert [rows[0]["prompt"], rows[6]["prompt"]] == ["[erased]"] * 2
    assert rows[0]["cost_microusd"] == 60_000  # what it cost stays
    assert "[erased]" in say("show", "teapots/red")
    task = json.loads(say("show", "teapots/red-again", "--json").splitlines()[0])
    assert (task["erased"], task["files_erased"], task["request"]) == (True, False, None)


def test_a_follower_takes_its_owner_along(night: Path, say: Callable[..., str]) -> None:
    say("erase", "red-again", "--yes")
    assert left(night, RED) == []


def test_errors_are_written_anew_and_a_failed_task_is_never_wanted_again(night: Path, say: Callable[..., str]) -> None:
    assert b"model says no" in (night / "bydawn.db").read_bytes()
    say("erase", "teapots", "--id", "=1+1", "--yes")
    assert left(night, b"model says no") == []
    assert '"=1+1"' in (night / "teapots/errors.jsonl").read_text()
    assert say("retry", "teapots", "--yes") == ""
    assert say("retry", "teapots", "--task", "=1+1", "--yes") == ""
    assert json.loads(say("status", "teapots", "--json"))["failed"] == 1


def test_what_was_not_bought_yet_is_cancelled(night: Path, say: Callable[..., str]) -> None:
    assert "1 task cancelled" in say("erase", "next", "--yes")
    status = json.loads(say("status", "teapots", "--json"))
    assert (status["queued"], status["cancelled"]) == (0, 1)
    assert say("retry", "teapots", "--task", "next", "--yes") == ""
    with opened_for_writing(night / "bydawn.db", create=False) as opened, opened.ledger.reader() as reader:
        assert reader.queued(1) == []


@pytest.mark.parametrize("task", ["陶壶", "#4"])
def test_an_open_or_held_purchase_keeps_its_text(night: Path, say: Callable[..., str], task: str) -> None:
    before = (night / "bydawn.db").read_bytes()
    assert "BD-116" in say("erase", task, "--yes", code=2)
    assert "BD-116" in say("erase", task, "red", "--yes", code=2)  # then nothing goes
    assert (night / "bydawn.db").read_bytes() == before


def test_off_a_terminal_it_needs_a_yes(night: Path, say: Callable[..., str]) -> None:
    told = say("erase", "red", code=2)
    assert "BD-117" in told
    assert "red, red-again" in told
    assert left(night, RED)


def test_tasks_of_one_batch_at_a_time(say: Callable[..., str]) -> None:
    assert "BD-020" in say("erase", "teapots/red", "empty/blue", "--yes", code=2)
    assert "BD-020" in say("erase", "teapots", "red", "--id", "blue", "--yes", code=2)
    assert "BD-102" in say("erase", "teapots/green", "--yes", code=10)


def test_a_run_keeps_it_out(night: Path, say: Callable[..., str]) -> None:
    with Ledger.create_or_open(night / "bydawn.db", create=False):
        assert "another bydawn is running" in say("erase", "red", "--yes", code=11)


def test_who_reads_the_log_is_told_of(night: Path, say: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The words stand in the write-ahead log as long as somebody is in the middle of reading it."""
    with opened_for_writing(night / "bydawn.db", create=False) as opened:
        opened.ledger.store.run("PRAGMA busy_timeout = 0")
        with Reader(night / "bydawn.db") as reader, reader.store.transaction("DEFERRED"):
            reader.store.rows("SELECT count(*) FROM payloads")
            waited: list[float] = []
            done = erase(opened, 1, [1], files=False, operator="ann", pause=waited.append)
            assert (done.log_emptied, len(waited) > 1) == (False, True)
        again = erase(opened, 1, [1], files=False, operator="ann")
        assert (again.texts, again.log_emptied) == (0, True)
    assert left(night, RED) == []


# --- images -----------------------------------------------------------------------------------------------


def test_an_image_that_another_task_has_stays(night: Path, say: Callable[..., str]) -> None:
    blob = next(night.glob("teapots/blobs/*/*"))
    (done,) = map(json.loads, say("erase", "red", "--blobs", "--yes", "--json").splitlines())
    assert (done["files"], blob.exists()) == (2, True)  # two names; blue has the same one
    assert json.loads(say("verify", "--json"))["files"] == 1
    (done,) = map(json.loads, say("erase", "blue", "--blobs", "--yes", "--json").splitlines())
    assert (done["files"], blob.exists()) == (2, False)
    verified = json.loads(say("verify", "--json"))
    assert (verified["ok"], verified["files"]) == (True, 0)
    assert "[erased]" in next(line for line in say("show", "teapots/blue").splitlines() if "file" in line)


def test_images_may_follow_later(night: Path, say: Callable[..., str]) -> None:
    say("erase", "red", "blue", "--yes")
    (done,) = map(json.loads, say("erase", "red", "blue", "--blobs", "--yes", "--json").splitlines())
    assert (done["texts"], done["files"]) == (0, 4)  # one image under three names
    assert json.loads(say("verify", "--json"))["ok"]


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A batch of one image, whose file is named after its columns."""
    night = Night(tmp_path / "bydawn.db", tmp_path)
    night.open_batch(1, "mugs", ("one",))
    night.write(batch_stream(1), 4, BatchConfigured(operator="ada", name_template="{Title} {id}"))
    night.write(task_stream(1, 1), 1, night.intend(1))
    night.complete(1, 1, 2, attempt=1)
    night.ledger.close()
    with Reader(tmp_path / "bydawn.db") as reader:
        queued = reader.state(task_stream(1, 1)).queued
        assert queued is not None
        wanted = decode_request(reader.payload(queued.request.row) or "")
        fields = {"aspect": "1:1", "resolution": "1K", "variant": 1, "version": 1}
        name = Naming(reader.batch(1)).name_of(1, "one", wanted, **fields)  # type: ignore[arg-type]
        BlobStore(RealDisk(), tmp_path / "mugs").link(hashlib.sha256(IMAGE).hexdigest(), "image/png", name)
        write_outputs(reader, 1, RealDisk())
    return tmp_path / "mugs" / with_ending(name, "image/png")


def erase_the_mug(folder: Path, *, files: bool = False) -> None:
    with opened_for_writing(folder / "bydawn.db", create=False) as opened:
        erase(opened, 1, [1], files=files, operator="ann")


def test_a_name_made_from_columns_goes_too(tmp_path: Path, named: Path) -> None:
    assert left(tmp_path, b"HYPERLINK")
    erase_the_mug(tmp_path)
    row = json.loads((tmp_path / "mugs/manifest.jsonl").read_text())
    assert row["file"] == "images/one.png"
    assert (tmp_path / "mugs/images/one.png").read_bytes() == IMAGE
    assert not named.exists()
    assert left(tmp_path, b"HYPERLINK") == []


def test_a_strangers_file_under_the_new_name_stays(tmp_path: Path, named: Path) -> None:
    (tmp_path / "mugs/images/one.png").write_bytes(b"a retouched picture")
    erase_the_mug(tmp_path, files=True)
    assert not named.exists()
    assert (tmp_path / "mugs/images/one.png").read_bytes() == b"a retouched picture"
    assert [path.name for path in (tmp_path / "mugs/images").iterdir()] == ["one.png"]


def test_with_the_blobs_goes_what_was_kept_for_dispute(tmp_path: Path, named: Path) -> None:
    disputed = tmp_path / "mugs/disputed"
    disputed.mkdir()
    for name in ("1-1-1-1.bin", "1-1-2-1.bin", "notes.txt"):
        (disputed / name).write_bytes(b"?")
    erase_the_mug(tmp_path, files=True)
    assert sorted(path.name for path in disputed.iterdir()) == ["1-1-2-1.bin", "notes.txt"]
    assert not list((tmp_path / "mugs/blobs").glob("*/*"))
    assert not list((tmp_path / "mugs/images").iterdir())
    assert json.loads((tmp_path / "mugs/manifest.jsonl").read_text())["file"] is None
