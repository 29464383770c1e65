"""``scripts/live-check`` against a sandbox in the place of a provider."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bydawn.config import load_config
from bydawn.keys import chosen_accounts
from scripts import live_check
from scripts.purchase_journal import Journal
from scripts.shapes import Difference, differences, shape
from tests.system.shop import ROOT, sandbox

KEY = "sandbox-of-a-live-check"


# --- shapes -----------------------------------------------------------------------------------------------


def test_a_shape_names_fields_and_types_and_no_values() -> None:
    body = (
        b'{"id": "x1", "n": 3, "ok": true, "none": null, "data": [{"url": "u"}, {"b64": "u"}], "inner": "{\\"a\\": 1}"}'
    )
    assert shape(body) == {
        "": {"object"},
        "id": {"text"},
        "n": {"number"},
        "ok": {"true or false"},
        "none": {"null"},
        "data": {"list"},
        "data[]": {"object"},
        "data[].url": {"text"},
        "data[].b64": {"text"},
        "inner": {"text"},
        "inner(JSON)": {"object"},
        "inner(JSON).a": {"number"},
    }
    assert shape(b"<html>") == {"": {"no JSON"}}
    assert shape(b"") == {"": {"nothing"}}
    assert shape(b"[" * 100_000) == {"": {"no JSON"}}
    assert shape(b'"[half"') == {"": {"text"}}


@pytest.mark.parametrize(
    ("real", "emulated", "found"),
    [
        (b'{"a": 1}', b'{"a": 2.5}', []),
        (b'{"a": 1}', b"{}", [Difference("a", "number", "")]),
        (b"{}", b'{"a": 1}', [Difference("a", "", "number")]),
        (b'{"a": "1"}', b'{"a": 1}', [Difference("a", "text", "number")]),
        (b'{"a": []}', b'{"a": [{"b": 1}]}', []),  # an empty list says nothing of its items
        (b'{"a": null}', b'{"a": {"b": 1}}', [Difference("a", "null", "object")]),
        (b"<html>", b"{}", [Difference("(all)", "no JSON", "object")]),
    ],
)
def test_differences_name_the_field(real: bytes, emulated: bytes, found: list[Difference]) -> None:
    assert differences(shape(real), shape(emulated)) == found


# --- the journal ------------------------------------------------------------------------------------------


def test_a_journal_tells_what_is_open(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, "kie")
    assert journal.open_purchase() is None
    journal.write("intent", model="m", resolution="1K", reference="r", marker=7)
    opened = journal.open_purchase()
    assert opened is not None
    assert (opened[0].reference, opened[0].marker, opened[1]) == ("r", 7, "")
    journal.write("job", job="j1")
    path.write_bytes(path.read_bytes() + b'{"kind": "en')  # a crash in the middle of a line
    opened = journal.open_purchase()
    assert opened is not None
    assert opened[1] == "j1"
    assert Journal(path, "toapis").open_purchase() is None


def test_a_line_after_a_cut_one_still_counts(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, "kie")
    journal.write("intent", reference="r")
    path.write_bytes(path.read_bytes() + b'{"kind": "jo')
    journal.write("end", outcome="Finished")
    assert journal.open_purchase() is None


# --- the whole check ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with sandbox(tmp_path_factory.mktemp("sandbox"), latency=0.1) as served:
        yield served


@pytest.fixture
def folder(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which keys and base URLs lead to the sandbox."""
    for provider, variable in {
        "kie": "KIE_API_KEY",
        "toapis": "TOAPIS_API_KEY",
        "together": "TOGETHER_API_KEY",
        "wavespeed": "WAVESPEED_API_KEY",
    }.items():
        monkeypatch.setenv(variable, KEY)
        monkeypatch.setenv(f"BYDAWN_{provider.upper()}_BASE_URL", f"{url}/{provider}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bought(url: str) -> int:
    with urllib.request.urlopen(f"{url}/sandbox/bill", timeout=60) as reply:
        return len(reply.read().splitlines())


@pytest.mark.parametrize(
    ("provider", "calls"),
    [
        ("kie", {"check", "submit", "poll: Finished"}),  # asynchronous
        ("together", {"check", "submit"}),  # the answer is the image
        ("toapis", {"check", "submit", "poll: Finished", "lookup", "sweep"}),
        ("wavespeed", {"check", "quote", "submit", "poll: Finished", "list"}),
    ],
)
def test_a_provider_that_is_the_emulator_has_no_differences(
    provider: str, calls: set[str], url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = bought(url)
    assert live_check.main([provider, "--yes", "-o", "report.md"]) == 0
    assert bought(url) == before + 1
    page = (folder / "report.md").read_text("utf-8")
    assert "- No differences between its answers and the emulator's." in page
    assert "- Image: image/" in page
    assert calls <= {line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if line.startswith("| ")}
    said = capsys.readouterr()
    journal = (folder / f"live-check-{provider}.jsonl").read_text("utf-8")
    assert not any(KEY in text for text in (page, said.out, said.err, journal))
    assert [json.loads(line)["kind"] for line in journal.splitlines()][-1] == "end"


def test_the_price_is_shown_and_without_a_yes_nothing_is_bought(
    url: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bought(url)
    assert live_check.main(["kie"]) == 2
    assert "one image of nano-banana-2 at 1K from Kie: $0.06" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: "no")
    assert live_check.main(["kie"]) == 2
    assert "nothing was sent" in capsys.readouterr().err
    assert bought(url) == before
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert live_check.main(["kie"]) == 0
    assert bought(url) == before + 1


def test_a_crash_after_the_answer_goes_on_with_that_job(url: str, folder: Path) -> None:
    assert live_check.main(["kie", "--yes"]) == 0
    before = bought(url)
    journal = folder / "live-check-kie.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:2]))
    assert live_check.main(["kie"]) == 0  # asks nothing, since it buys nothing
    assert bought(url) == before
    assert Journal(journal, "kie").open_purchase() is None


def test_a_crash_before_the_answer_is_not_bought_again_silently(
    url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Journal(folder / "live-check-kie.jsonl", "kie").write(
        "intent", model="nano-banana-2", resolution="1K", reference="r"
    )
    before = bought(url)
    assert live_check.main(["kie", "--yes"]) == 3
    assert "--again" in capsys.readouterr().err
    assert bought(url) == before
    assert live_check.main(["kie", "--yes", "--again"]) == 0
    assert bought(url) == before + 1


def test_differences_are_reported_field_by_field(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ApiPass stands in for a Kie that has changed: the same API, other models."""
    monkeypatch.setenv("BYDAWN_KIE_BASE_URL", f"{url}/apipass")
    before = bought(url)
    assert live_check.main(["kie", "--yes", "-o", "report.md"]) == 1
    assert bought(url) == before
    page = (folder / "report.md").read_text("utf-8")
    assert "- Image: refused, nothing was bought (" in page
    assert "| check | 404 | 200 |" in page
    assert "| submit | `data` | null | object |" in page


@pytest.mark.parametrize(("word", "says"), [("wrong", "rejected"), ("broke", "no credit")])
def test_a_key_that_cannot_buy_is_told_before(
    word: str, says: str, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KIE_API_KEY", f"sandbox-{word}")
    before = bought(url)
    assert live_check.main(["kie", "--yes"]) == 2
    assert says in capsys.readouterr().err
    assert bought(url) == before


def test_what_has_no_price_or_no_key_or_no_name_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert live_check.main(["toapis", "--resolution", "0.5K", "--yes"]) == 2
    assert live_check.main(["kie", "--resolution", "8K", "--yes"]) == 2
    assert live_check.main(["dalle", "--yes"]) == 2
    monkeypatch.delenv("KIE_API_KEY")
    assert live_check.main(["kie", "--yes"]) == 4


def test_a_key_that_the_provider_repeats_is_not_shown(folder: Path) -> None:
    (account,) = chosen_accounts(load_config(folder, {"KIE_API_KEY": KEY}), ["kie"])
    assert (
        live_check.without_key(f"Incorrect API key provided: {KEY}.", account)
        == "Incorrect API key provided: (the key)."
    )


def test_nothing_listens_so_nothing_is_bought(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYDAWN_KIE_BASE_URL", "http://127.0.0.1:1/kie")
    assert live_check.main(["kie", "--yes"]) == 2
    assert Journal(folder / "live-check-kie.jsonl", "kie").open_purchase() is None


@pytest.mark.slow  # it waits as long as a job may stay invisible
def test_an_answer_that_cannot_be_read_ends_in_a_report_and_stays_open(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the purchase nothing is as documented: another server answers."""
    assert live_check.main(["kie", "--yes"]) == 0
    journal = folder / "live-check-kie.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:2]))
    monkeypatch.setenv("BYDAWN_KIE_BASE_URL", f"{url}/files")
    assert live_check.main(["kie"]) == 3
    page = (folder / "live-check-kie.md").read_text("utf-8")
    assert "- Image: unclear what became of it: Unreadable(" in page
    assert "| poll: Unreadable | `(all)` | no JSON | object |" in page
    assert Journal(journal, "kie").open_purchase() is not None


def test_it_is_a_command(url: str, folder: Path) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "live-check", "kie", "--yes"], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("# Live check of Kie\n")
