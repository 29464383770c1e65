"""What is said when the clock or a key keeps evidence from counting (REC-8, REC-9)."""

from pathlib import Path

from bydawn.remedies import clock_lines, held_lines
from ledger.commands import Record
from ledger.decisions import Append, Committed, Decision
from ledger.events import AccountKeyChanged, AccountOpened, AttemptAmbiguous, AttemptUnknown
from ledger.streams import account_stream
from runtime.simulated import EPOCH_US
from tests.runtime.nights import OpenLedger, with_ledger

HOUR_US = 3_600_000_000


def test_a_clock_behind_the_ledger_is_told(tmp_path: Path) -> None:
    async def body(opened: OpenLedger) -> None:
        opened.ledger.start_epoch(
            machine="m", pid=1, app_version="0", operator="o", command="run", at_us=EPOCH_US - HOUR_US
        )
        assert clock_lines(opened.reader, now_us=EPOCH_US) == []
        (line,) = clock_lines(opened.reader, now_us=EPOCH_US - HOUR_US)
        assert "1 h 00 min behind the newest record" in line

    with_ledger(tmp_path, body)


def _key(opened: OpenLedger, version: int, fingerprint: str) -> None:
    """The account gets a key in an epoch of its own."""
    opened.ledger.start_epoch(machine="m", pid=1, app_version="0", operator="o", command="run", at_us=EPOCH_US)
    opening = AccountOpened(name="kie", provider="kie", fingerprint=fingerprint)
    fact = AccountKeyChanged(fingerprint=fingerprint, confirmed_by="") if version else opening
    (outcome,) = opened.ledger.commit([Decision((Append(account_stream(1), version, (fact,)),), EPOCH_US)])
    assert isinstance(outcome, Committed)


def test_what_would_help_held_tasks_is_told_by_cause_as_long_as_it_would(tmp_path: Path) -> None:
    """REC-9: the advice to set the key of then ends when that key is back, held as the tasks may stay."""

    async def body(opened: OpenLedger) -> None:
        _key(opened, 0, "of then")
        await opened.hold(1)
        for n in (2, 3):
            await opened.intend(n)
            crashed = Record(AttemptAmbiguous(attempt=1, reason="crash"))
            await opened.do(n, crashed, Record(AttemptUnknown(attempt=1, reason="account_changed")))
        _key(opened, 1, "another")
        (line,) = held_lines(opened.reader, 1)
        assert line.startswith("2 tasks at kie: bought with another key")
        assert line.endswith("bydawn providers confirm kie")
        _key(opened, 2, "of then")
        assert held_lines(opened.reader, 1) == []

    with_ledger(tmp_path, body)
