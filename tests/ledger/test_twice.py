"""Which queued tasks have a purchase already that may have been charged (MON-2, MON-4)."""

from pathlib import Path

from ledger.commands import Decide, Record, Retry, Review, TaskCommand
from ledger.events import AttemptFailed, AttemptLost, AttemptRejected
from ledger.twice import BoughtBefore, bought_before
from tests.ledger.ledgers import do, opened
from tests.ledger.stories import INTEND, UNKNOWN, bought

STORIES: dict[int, tuple[tuple[TaskCommand, ...], int | None]] = {
    1: ((), None),
    2: ((INTEND, Record(AttemptRejected(attempt=1, reason="throttled"))), None),
    3: ((INTEND, Record(AttemptFailed(attempt=1, reason="provider", cost_microusd=500))), None),
    4: ((*UNKNOWN, Decide("ann", "buy_again", 1)), INTEND.ceiling_microusd),
    5: ((INTEND, *bought(1)[:1], Record(AttemptLost(attempt=1, reason="gone", cost_microusd=700)), Retry("ann")), 700),
    6: ((INTEND, *bought(1), Review(version=1, verdict="rejected", operator="ann"), Retry("ann")), 50_000),
    7: ((INTEND, *bought(1)), None),
    8: (UNKNOWN, None),
}
"""Task -> what happened to it, and what its purchases may have cost; None = it is not about to be bought again."""


def test_those_that_may_have_been_paid_and_no_others(tmp_path: Path) -> None:
    """Never bought, refused or failed before, given leave, lost and wanted again, its image rejected, settled, held."""
    with opened(tmp_path / "l.db", tasks=len(STORIES)) as ledger:
        for n, (commands, _) in STORIES.items():
            if commands:
                do(ledger, n, *commands)
        with ledger.reader() as reader:
            found = bought_before(reader, 1)
    assert found == [BoughtBefore(n, paid) for n, (_, paid) in STORIES.items() if paid is not None]
