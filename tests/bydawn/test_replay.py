"""``replay``: moments and differences in words, over a small night (:mod:`tests.bydawn.a_night`)."""

import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from bydawn.cli.main import main
from bydawn.errors import UserError
from bydawn.replaying import placed, timed
from ledger.events import AccountOpened, AccountParked, AccountResumed
from ledger.moments import last_seq, seq_at
from ledger.reader import Reader
from ledger.streams import account_stream
from tests.bydawn.a_night import START_US, Night, tell


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    tell(folder / "bydawn.db", folder)
    return folder


@pytest.fixture
def say(told: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    monkeypatch.chdir(told)
    monkeypatch.delenv("BYDAWN_LEDGER", raising=False)

    def said(*args: str, code: int = 0) -> str:
        assert main(["replay", *args]) == code
        out, err = capsys.readouterr()
        return err if code else out

    return said


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_newest_moment_says_what_status_says(say: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    (moment,) = lines(say("teapots", "--json"))
    assert main(["status", "teapots", "--json"]) == 0
    (status,) = lines(capsys.readouterr().out)
    same = ("tasks", "settled", "queued", "accepted", "succeeded", "failed", "held", "flagged", "shared")
    money = ("cost_microusd", "reserved_microusd", "at_risk_microusd", "duplicates_microusd")
    assert {name: moment[name] for name in (*same, *money)} == {name: status[name] for name in (*same, *money)}


def test_the_views_are_not_asked(say: Callable[..., str], told: Path, tmp_path: Path) -> None:
    """REC-1: events alone; views that were tampered with change nothing."""
    before = say("teapots", "--json", "--tasks")
    copy = tmp_path / "copy.db"
    with sqlite3.connect(told / "bydawn.db") as original, sqlite3.connect(copy) as tampered:
        original.backup(tampered)
        tampered.execute("UPDATE tasks SET phase = 'succeeded', cost_microusd = 1")
        tampered.execute("DELETE FROM counts")
        tampered.execute("DELETE FROM money")
        tampered.execute("DELETE FROM epochs")
    original.close()
    tampered.close()
    assert say("teapots", "--json", "--tasks", "--ledger", str(copy)) == before


def test_the_same_moment_is_the_same_bytes(say: Callable[..., str]) -> None:
    """REC-1."""
    assert say("teapots", "--seq", "20", "--json") == say("teapots", "--seq", "20", "--json")
    first, last = (lines(say("teapots", "--seq", seq, "--json"))[0]["digest"] for seq in ("20", "21"))
    assert first != last


def test_a_moment_in_words(say: Callable[..., str]) -> None:
    text = say("teapots")
    for part in ("queued 1 · in flight 1 · succeeded 3", "$0.120 of $5.00", "at risk", "bydawn run teapots.csv", "kie"):
        assert part in text
    assert "the batch was not opened yet" in say("teapots", "--seq", "1")
    assert "7 tasks that are not sealed yet" in say("teapots", "--seq", "12")


def test_tasks_are_told_on_demand(say: Callable[..., str]) -> None:
    moment, *tasks = lines(say("teapots", "--json", "--tasks"))
    assert [task["phase"] for task in tasks] == [
        *("succeeded", "succeeded", "failed", "held", "accepted", "queued", "succeeded")
    ]
    assert moment["runs"] == [
        {
            "epoch": 1,
            "started_at_us": START_US,
            "command": "bydawn run teapots.csv",
            "operator": "ada",
            "app_version": "0.1.0",
            "ended_at_us": START_US + 30_000_000,
            "stopped_by": "signal",
            "exit_code": 130,
            "events": 31,
        }
    ]
    assert "no_evidence" in say("teapots", "--tasks")
    assert lines(say("teapots", "--json", "--tasks", "--seq", "12"))[1:] == []  # not sealed


def test_a_difference_in_words_and_for_scripts(say: Callable[..., str]) -> None:
    step, *events = lines(say("teapots", "--diff", "13", "30", "--json"))
    assert step["transitions"] == [
        {"from": "queued", "to": "failed", "tasks": 1},
        {"from": "queued", "to": "held", "tasks": 1},
        {"from": "queued", "to": "succeeded", "tasks": 2},
    ]
    assert step["attempts"] == {
        "intended": 5,
        "rejected": 1,
        "accepted": 3,
        "ambiguous": 1,
        "held": 1,
        "ready": 2,
        "failed": 1,
        "done": 2,
    }
    assert (step["cost_microusd"], step["at_risk_microusd"], events) == (120_000, 75_000, [])
    _, *events = lines(say("teapots", "--diff", "0", "30", "--json"))
    assert [event["event"] for event in events] == [
        *("runtime.epoch_started.v1", "account.opened.v1"),
        *("batch.opened.v1", "batch.configured.v1", "batch.sealed.v1"),
    ]
    text = say("teapots", "--diff", "0", "30")
    assert "+$0.12  ($0.00 → $0.12)" in text
    assert "kie: opened" in text
    assert "nothing happened" in say("teapots", "--diff", "20", "20")


@pytest.mark.parametrize(
    "args",
    [
        ["--at", "03:00", "--seq", "3"],
        ["--diff", "1", "2", "--tasks"],
        ["--seq", "1000"],
        ["--diff", "9", "3"],
        ["--diff", "1", "999"],
        ["--at", "tonight"],
        ["--at", "25:00"],
    ],
)
def test_what_cannot_be_meant_is_refused(say: Callable[..., str], args: list[str]) -> None:
    assert "BD-020" in say("teapots", *args, code=2)


def test_a_parked_account_is_named(tmp_path: Path, say: Callable[..., str]) -> None:
    """LIVE-4."""
    night = Night(tmp_path / "bydawn.db", tmp_path)
    night.write(account_stream(1), 0, AccountOpened(name="kie", provider="kie", fingerprint="f"))
    night.open_batch(1, "mugs", ("one",))
    night.write(account_stream(1), 1, AccountParked(reason="no_credit"))
    for version in range(2, 2 + 60, 2):
        resumed, parked = AccountResumed(operator="ada"), AccountParked(reason="unauthorized")
        night.write(account_stream(1), version, resumed, parked)
    night.ledger.close()
    ledger = ("--ledger", str(tmp_path / "bydawn.db"))
    assert "parked: kie, unauthorized" in say("mugs", *ledger)
    assert "and 26 more: --json lists them all" in say("mugs", "--diff", "0", "68", *ledger)


# --- times ------------------------------------------------------------------------------------------------

NIGHT = datetime.fromtimestamp(START_US // 1_000_000, UTC)  # 08:00:00, an event a second for half a minute


@pytest.mark.parametrize(
    ("text", "zone", "seconds"),
    [
        ("2026-11-22T08:00:10", UTC, 10),
        ("2026-11-22T09:00:10", timezone(timedelta(hours=1)), 10),
        ("2026-11-22T09:00:10+01:00", UTC, 10),
        ("2026-11-22T08:00:10.5", UTC, 10),
        ("08:00", UTC, 0),
        ("8:00", UTC, 0),
        ("08:01", UTC, -1),  # not yet: the day before
        ("2026-11-23", UTC, 30),
    ],
)
def test_times_are_counted_back_from_the_newest_event(told: Path, text: str, zone: timezone, seconds: int) -> None:
    with Reader(told / "bydawn.db") as reader:
        expected = seq_at(reader.store, START_US + seconds * 1_000_000)
        assert timed(reader.store, text, where="--at", zone=zone) == expected


def test_a_number_is_that_of_an_event(told: Path) -> None:
    with Reader(told / "bydawn.db") as reader:
        assert placed(reader.store, "7", where="--diff") == 7
        assert placed(reader.store, "2030-01-01", where="--diff") == last_seq(reader.store)
        with pytest.raises(UserError):
            placed(reader.store, "99999", where="--diff")
