"""Texts that want to be more than text: to a terminal, a log, a spreadsheet.  (To a browser: test_dashboard.py.)

They come from input tables, file names, arguments, and from providers.  Each command that people read is called here
with such texts in every place they can reach.
"""

import csv
import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bydawn.cli.formats import harmless, harmless_json
from bydawn.cli.main import main
from bydawn.cli.output import LogFormatter
from ledger.events import AccountOpened, AttemptAccepted, AttemptFailed, EpochEnded, TaskFailed
from ledger.streams import account_stream, runtime_stream, task_stream
from tests.bydawn.a_night import Night

BYDAWN = Path(sys.executable).with_name("bydawn")
# Clears the screen; sets the title; answers back; C1 forms of the same; turns the writing direction; a new log line.
EVIL = "a\x1b[2J\x1b]0;owned\x07\x1b[5n\x9b2J\x9d0;x\x9c\u202e\u2066\r\x08\x7fb"
FORMULA = "=HYPERLINK(0)"
STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
COLOUR = re.compile(r"\x1b\[(?:[0-2]|3[1-3])m")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger in which every text is hostile: ids, batch and account names, reasons, words of a provider."""
    folder = tmp_path_factory.mktemp("evil")
    night = Night(folder / "bydawn.db", folder / "out")
    night.write(account_stream(1), 0, AccountOpened(name=f"kie{EVIL}", provider="kie", fingerprint="f"))
    night.open_batch(1, f"batch{EVIL}", (f"one{EVIL}", FORMULA, f"x;{FORMULA}"))
    stream = task_stream(1, 1)
    said, payload = night.ledger.payload(f"no{EVIL}\n{FORMULA}")
    night.write(stream, 1, night.intend(1))
    night.write(stream, 2, AttemptAccepted(attempt=1, job="job"))
    failed = AttemptFailed(attempt=1, reason="policy", detail=said)
    night.write(stream, 3, failed, TaskFailed(reason="policy"), payloads=(payload,))
    night.write(runtime_stream(), 1, EpochEnded(stopped_by=f"x{EVIL}", exit_code=1, batch=1))
    night.ledger.close()
    return folder


def steers(text: str) -> str:
    """What of a text would steer a terminal; our own colours do not."""
    return "".join(STEERING.findall(COLOUR.sub("", text)))


READING = [
    ["status"],
    ["log"],
    ["tasks"],
    ["show", "#1"],
    ["verify", "--no-files"],
    ["verify"],
    ["replay", f"batch{EVIL}"],
    ["replay", f"batch{EVIL}", "--diff", "1", "9"],
    ["resolve", f"batch{EVIL}"],
]
STREAMED = [["tasks", "--json"], ["show", "#1", "--json"], ["status", "--json"], ["log", "--json"]]
FAILING = [
    [EVIL],
    ["status", EVIL],
    ["show", f"{EVIL}/{EVIL}"],
    ["show", f"#{EVIL}"],
    ["plan", f"{EVIL}.csv", "--map", f"prompt={EVIL}"],
    ["plan", "t.csv", "--provider", EVIL],
    ["plan", "t.csv", "--aspect", EVIL],
    ["plan", "t.csv", f"--{EVIL}"],
    ["verify", "--against", f"{EVIL}.json"],
    ["explain", EVIL],
    ["tasks", "--state", EVIL],
]


@pytest.mark.parametrize("arguments", [*READING, *FAILING, *STREAMED], ids=lambda arguments: " ".join(arguments)[:24])
def test_no_command_lets_a_text_steer_the_terminal(
    folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SEC-5, for terminals: they are pages too, with older tags."""
    monkeypatch.chdir(folder)
    (folder / "t.csv").write_text("prompt\nx\n")
    code = main([*arguments])
    told = capsys.readouterr()
    assert steers(told.out + told.err) == ""
    assert code != 1, told.err
    assert arguments not in FAILING or code in (2, 10)


def test_a_table_of_hostile_cells_is_refused_in_harmless_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SEC-5: names of columns and cells come back in errors and in `rejected.csv`, also as formulas."""
    monkeypatch.chdir(tmp_path)
    rows = [
        ["id", "prompt", f"{FORMULA}{EVIL}"],
        [EVIL, "x", "y"],
        [f"{FORMULA}\x07", FORMULA, "+1"],
        ["", "", "@SUM(1)"],
        [f"x;{FORMULA}", "", f"x;{FORMULA}"],
    ]
    with open("t.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    assert main(["plan", "t.csv", "--ledger", str(tmp_path / "l.db")]) == 2
    told = capsys.readouterr()
    assert steers(told.out + told.err) == ""
    (rejected,) = tmp_path.rglob("rejected.csv")
    assert_harmless_cells(rejected.read_text("utf-8"))


def assert_harmless_cells(text: str) -> None:
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert cells
    quoted = r'(?:"(?:[^"]|"")*"|-?[\d.]*|[a-z][a-z_\d]*)'  # plain words are names of our own columns
    rest = re.sub(rf"^{quoted}(?:,{quoted})*(?:\r\n|\n|\Z)", "", text, flags=re.MULTILINE)
    assert rest == "", "another separator could begin a cell inside one"
    assert [
        cell for cell in cells if cell[:1] and cell[0] in "=+-@\t\r\n\0＝＋－＠" and not re.fullmatch(r"-?\d+", cell)
    ] == []


@pytest.mark.parametrize("command", [["tasks", "--csv"], ["export", f"batch{EVIL}", "--format", "csv"]])
def test_no_export_holds_a_formula(
    folder: Path, command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SEC-5."""
    monkeypatch.chdir(folder)
    assert main([*command]) == 0
    out = capsys.readouterr().out
    assert FORMULA in out
    assert_harmless_cells(out)


def test_on_a_terminal_colours_are_ours_and_nothing_else_comes_through(folder: Path) -> None:
    """The same on a real terminal, where commands colour what they say."""
    ours, theirs = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "BYDAWN_DEBUG")}
    subprocess.run(
        [str(BYDAWN), "show", "#1"], cwd=folder, env=env | {"TERM": "xterm"}, stdout=theirs, stderr=theirs, check=True
    )
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 65536):
            said += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    text = said.decode("utf-8")
    assert COLOUR.search(text)
    assert steers(text.replace("\r\n", "\n")) == ""


@given(st.text(max_size=80))
def test_json_says_the_same_and_cannot_steer(text: str) -> None:
    """SEC-5, also for who looks at a stream with a terminal."""
    told = harmless_json(json.dumps({"id": text}, ensure_ascii=False))
    assert told.isprintable()
    assert json.loads(told) == {"id": text}


@given(st.text(max_size=80))
def test_whatever_a_line_holds_it_cannot_steer(text: str) -> None:
    assert steers(harmless(text)) == ""
    assert harmless(harmless(text)) == harmless(text)


def test_our_colours_and_lines_come_through() -> None:
    text = "\x1b[1mone\x1b[0m\n\ttwo 陶壶 \x1b[31mthree\x1b[0m"
    assert harmless(text) == text


def test_a_log_record_is_one_line_that_steers_nothing() -> None:
    """Words of a provider can't forge the record after them, nor can those of an exception."""
    formatter = LogFormatter("%(levelname)s %(name)s: %(message)s")
    try:
        raise ValueError(EVIL)
    except ValueError:
        error = sys.exc_info()
    plain = logging.LogRecord("n", logging.INFO, "", 1, "said: %s", (f"x\nINFO n: forged{EVIL}",), None)
    failed = logging.LogRecord("n", logging.ERROR, "", 1, "broke", (), error)
    assert formatter.format(plain).count("\n") == 0
    assert steers(formatter.format(plain)) == steers(formatter.format(failed)) == ""
    assert "ValueError" in formatter.format(failed)
