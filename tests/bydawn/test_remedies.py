"""What is said when the clock or a key keeps evidence from counting (REC-8, REC-9)."""

from pathlib import Path

from bydawn.remedies import clock_lines, held_lines
from ledger.commands import Record
from ledger.events import AttemptAmbiguous, AttemptUnknown
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


def test_what_would_help_held_tasks_is_told_by_cause(tmp_path: Path) -> None:
    async def body(opened: OpenLedger) -> None:
        await opened.hold(1)
        for n in (2, 3):
            await opened.intend(n)
            crashed = Record(AttemptAmbiguous(attempt=1, reason="crash"))
            await opened.do(n, crashed, Record(AttemptUnknown(attempt=1, reason="account_changed")))
        (line,) = held_lines(opened.reader.held(1))
        assert line.startswith("2 tasks at kie: bought with another key")
        assert line.endswith("bydawn providers confirm kie")

    with_ledger(tmp_path, body)
