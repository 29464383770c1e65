"""One decision, one transaction: wherever its writing breaks off, the file has all of it or nothing (LED-3, LED-4)."""

from pathlib import Path

import pytest

from ledger.audit import verify
from ledger.errors import LedgerError
from tests.ledger.ledgers import decision, opened
from tests.ledger.stories import INTEND


@pytest.mark.parametrize("when", ["BEFORE", "AFTER"])
@pytest.mark.parametrize("table", ["events", "commits", "tasks", "open_attempts", "counts", "money"])
def test_a_commit_that_breaks_off_leaves_nothing(tmp_path: Path, table: str, when: str) -> None:
    path = tmp_path / "bydawn.db"
    ledger = opened(path, tasks=2)
    intent = decision(ledger, 1, INTEND)
    for change in ("INSERT", "UPDATE"):
        ledger.store.run(
            f"CREATE TEMP TRIGGER cut_{change} {when} {change} ON main.{table} BEGIN SELECT RAISE(FAIL, 'cut'); END"
        )
    before = verify(path).events
    with pytest.raises(LedgerError, match="cut"):
        ledger.commit([intent])
    report = verify(path)
    assert (report.ok, report.events) == (True, before), f"it was committed half: {report.problems}"
    with opened(path) as again:
        again.commit([intent])
    assert verify(path).ok
