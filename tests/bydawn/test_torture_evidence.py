"""What the judge of a torture is told out of a ledger."""

from pathlib import Path

from msgspec.structs import replace

from bydawn.torture.evidence import BATCH, bought_again, calls_wait, cut
from ledger.events import (
    AccountOpened,
    AttemptAccepted,
    AttemptAmbiguous,
    AttemptRejected,
    AttemptUnknown,
    BatchConfigured,
    OperatorDecided,
)
from ledger.streams import account_stream, batch_stream, task_stream
from runtime.inbox import inbox_of
from tests.bydawn.a_night import START_US, Night

CEILING = 75_000
FIRST, SECOND, THIRD, FOURTH = (task_stream(1, n) for n in range(1, 5))


def tortured(folder: Path) -> Night:
    """Four tasks: finished, accepted, in doubt with the provider, and open when the process was killed."""
    night = Night(folder / "ledger.db", folder)
    night.write(account_stream(1), 0, AccountOpened(name="kie", provider="kie", fingerprint="f"))
    night.open_batch(1, BATCH, ("finished", "accepted", "doubtful", "open"))
    for stream in (FIRST, SECOND, THIRD, FOURTH):
        night.write(stream, 1, night.intend(1))
    night.write(FIRST, 2, AttemptAccepted(attempt=1, job="job-1"))
    night.complete(1, 1, 3, attempt=1)
    night.write(SECOND, 2, AttemptAccepted(attempt=1, job="job-2"))
    night.write(THIRD, 2, AttemptAmbiguous(attempt=1, reason="no_reply"))
    return night


def started_again(night: Night) -> None:
    night.ledger.start_epoch(
        machine="m",
        pid=2**22,
        app_version="0.1.0",
        operator="ada",
        command="bydawn run",
        at_us=START_US + 3_600_000_000,
    )


def test_only_what_this_life_had_sent_was_open_at_its_kill(tmp_path: Path) -> None:
    """What is in doubt since an earlier life is not: or a task could come into doubt without a kill unnoticed."""
    night = tortured(tmp_path)
    seen = cut(tmp_path / "ledger.db", 7)
    assert (seen.billed, set(seen.finished), set(seen.open)) == (7, {"finished"}, {"open"})
    started_again(night)
    seen = cut(tmp_path / "ledger.db", 7)
    assert (set(seen.finished), set(seen.open)) == ({"finished"}, set())
    night.ledger.close()


def test_before_there_is_a_batch_nothing_is_open_or_finished(tmp_path: Path) -> None:
    assert cut(tmp_path / "ledger.db", 0) == cut(tmp_path, 0)
    night = Night(tmp_path / "ledger.db", tmp_path)
    assert cut(tmp_path / "ledger.db", 3).finished == frozenset()
    assert bought_again(tmp_path / "ledger.db") is None
    night.ledger.close()


def test_where_doubtful_tasks_are_held_nothing_is_bought_again(tmp_path: Path) -> None:
    tortured(tmp_path).ledger.close()
    assert bought_again(tmp_path / "ledger.db") is None


def test_what_was_bought_on_leave_is_counted_by_its_ceilings(tmp_path: Path) -> None:
    """MON-4: the third task is bought beside its doubt, which the fourth has still to be."""
    night = tortured(tmp_path)
    settings = BatchConfigured(operator="ada", on_unknown="resubmit", max_duplicate_usd_micro=2 * CEILING)
    night.write(batch_stream(1), 4, settings)
    night.write(THIRD, 3, AttemptUnknown(attempt=1, reason="no_evidence"))
    night.write(THIRD, 4, OperatorDecided(attempt=1, decision="buy_again", operator="on-unknown resubmit"))
    night.write(THIRD, 5, replace(night.intend(2), permission=1))
    night.write(FOURTH, 2, AttemptAmbiguous(attempt=1, reason="no_reply"))
    night.write(FOURTH, 3, AttemptUnknown(attempt=1, reason="no_evidence"))
    night.ledger.close()
    again = bought_again(tmp_path / "ledger.db")
    assert again is not None
    assert (again.allowed_microusd, again.purchases) == (2 * CEILING, 1)
    assert (again.cost_microusd, again.ceiling_microusd) == (CEILING, CEILING)
    assert again.waiting == {"open": CEILING}
    assert again.unknown == {"finished": 0, "accepted": 0, "doubtful": 1, "open": 1}


def test_what_was_refused_when_it_was_bought_again_waits(tmp_path: Path) -> None:
    night = tortured(tmp_path)
    settings = BatchConfigured(operator="ada", on_unknown="resubmit", max_duplicate_usd_micro=CEILING)
    night.write(batch_stream(1), 4, settings)
    night.write(THIRD, 3, AttemptUnknown(attempt=1, reason="no_evidence"))
    night.write(THIRD, 4, OperatorDecided(attempt=1, decision="buy_again", operator="on-unknown resubmit"))
    night.write(THIRD, 5, replace(night.intend(2), permission=1))
    night.write(THIRD, 6, AttemptRejected(attempt=2, reason="throttled"))
    night.ledger.close()
    again = bought_again(tmp_path / "ledger.db")
    assert again is not None
    assert again.waiting == {"doubtful": CEILING}
    assert (again.purchases, again.cost_microusd) == (1, 0)


def test_a_call_that_nobody_has_used_waits(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    assert not calls_wait(ledger)
    place = inbox_of(ledger) / "callbacks"
    place.mkdir(parents=True)
    (place / ".half.part").touch()
    assert not calls_wait(ledger)
    (place / "1.json").touch()
    assert calls_wait(ledger)
