"""``bydawn log`` over runs that wrote no end."""

from pathlib import Path

import pytest

from ledger.deeds import Deeds, batch_between, deeds_between
from ledger.events import AttemptAccepted, EpochEnded
from ledger.reader import Reader
from ledger.streams import runtime_stream, task_stream
from tests.bydawn.a_night import START_US, Night, tell
from tests.bydawn.test_cli_reading import Caller


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A night of its own, as the working directory."""
    tell(tmp_path / "bydawn.db", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BYDAWN_LEDGER", raising=False)
    return tmp_path


@pytest.fixture
def call(night: Path, capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


def test_log_tells_what_a_killed_run_did(call: Caller, night: Path) -> None:
    """It wrote no end, and its events tell how far it came."""
    again = Night(night / "bydawn.db", night)
    again.at_us = START_US + 3_600_000_000
    with again.ledger.reader() as reader:
        version = reader.version(task_stream(1, 6))
    again.write(task_stream(1, 6), version, again.intend(1))
    again.write(task_stream(1, 6), version + 1, AttemptAccepted(attempt=1, job="job-next"))
    again.complete(1, 6, version + 2, attempt=1)
    again.ledger.close()

    _, killed, before = call("log", "--json").lines
    assert (killed["state"], killed["batch"], killed["run_succeeded"]) == ("killed", "teapots", 1)
    assert (killed["run_failed"], killed["run_held"], killed["run_cost_microusd"]) == (0, 0, 60_000)
    assert killed["last_event_at_us"] == again.at_us
    assert (killed["exit_code"], killed["succeeded"], killed["ended_at_us"]) == (None, None, None)
    assert before["run_cost_microusd"] == 120_000
    shown = next(line for line in call("log").out.splitlines() if " killed " in line)
    assert "1 h 00 min" in shown
    assert shown.split()[-4:] == ["$0.06", "bydawn", "run", "teapots.csv"]


def test_log_of_one_batch_tells_its_runs_only(call: Caller, night: Path) -> None:
    again = Night(night / "bydawn.db", night)
    again.open_batch(2, "pots", ("first",))
    again.ledger.close()
    lines = call("log", "pots", "--json").lines
    assert [(line["type"], line["batch"]) for line in lines] == [("batch", "pots"), ("run", "pots")]
    lines = call("log", "teapots", "--json").lines
    assert [(line["type"], line["batch"]) for line in lines] == [("batch", "teapots"), ("run", "teapots")]
    assert [line["type"] for line in call("log", "--limit", "1", "--json").lines] == ["batch", "batch", "run"]
    assert "there are older runs: --limit N" in call("log", "--limit", "1").err
    assert call("log", "jugs").code == 10


def test_a_run_that_says_what_it_did_is_believed(call: Caller, night: Path) -> None:
    """Its record is read and not its events, of which there may be millions."""
    again = Night(night / "bydawn.db", night)
    with again.ledger.reader() as reader:
        version = reader.version(runtime_stream())
    told = EpochEnded(stopped_by="done", exit_code=0, batch=1, succeeded=9, run_succeeded=5, run_cost_microusd=7)
    again.write(runtime_stream(), version, told)
    again.ledger.close()
    run = call("log", "teapots", "--json").lines[1]
    assert (run["succeeded"], run["run_succeeded"], run["run_cost_microusd"]) == (9, 5, 7)


def test_deeds_are_counted_per_batch_and_only_in_between(night: Path) -> None:
    with Reader(night / "bydawn.db") as reader:
        (epoch,) = reader.epochs()
        assert (epoch.first, epoch.last) == (1, reader.head().seq)
        assert deeds_between(reader, 1, epoch.first, epoch.last) == Deeds(1, 3, 1, 1, 120_000)
        halves = [deeds_between(reader, 1, first, last) for first, last in ((1, 20), (21, epoch.last))]
        assert sum(each.cost_microusd for each in halves) == 120_000
        assert sum(each.succeeded for each in halves) == 3
        assert deeds_between(reader, 2, epoch.first, epoch.last) == Deeds(2)
        assert deeds_between(reader, 1, epoch.last + 1, epoch.last + 9) == Deeds(1)
        assert [batch_between(reader, *between) for between in ((1, epoch.last), (1, 1), (epoch.last, epoch.last))] == [
            1,
            0,
            0,
        ]
