"""What the judge is told out of a ledger: what was open and finished at a kill, and what was bought again on leave."""

from pathlib import Path

from bydawn.onunknown import duplicates_allowed
from bydawn.torture.judging import Again, Cut
from ledger.errors import LedgerError
from ledger.money import Balance, duplicates_money
from ledger.reader import Reader
from ledger.streams import task_stream
from runtime.inbox import inbox_of

BATCH = "torture"
_PAGE = 1000


def cut(ledger: Path, billed: int) -> Cut:
    """How the ledger stands; empty before there is a batch."""
    try:
        with Reader(ledger) as reader:
            batch = reader.batch_by_name(BATCH)
            if batch is None:
                return Cut(billed)
            finished: set[str] = set()
            after = 0
            while page := reader.tasks(batch, after=after, limit=_PAGE, states=("succeeded",)):
                finished |= {row.id for row in page}
                after = page[-1].n
            epoch = reader.epoch()
            sent = [each for each in reader.live() if each.phase == "intended" and each.epoch == epoch]
            return Cut(
                billed, frozenset(finished), frozenset(each.state.queued.id for each in sent if each.state.queued)
            )
    except LedgerError:  # it was about to be made
        return Cut(billed)


def bought_again(ledger: Path) -> Again | None:
    """What was bought beside doubtful purchases; None where that is not allowed."""
    with Reader(ledger) as reader:
        batch = reader.batch_by_name(BATCH)
        if batch is None or (allowed := duplicates_allowed(reader.batch(batch), reader, batch, lambda _: None)) is None:
            return None
        beside: list[int] = []
        waiting: dict[str, int] = {}
        unknown: dict[str, int] = {}
        after = 0
        while page := reader.tasks(batch, after=after, limit=_PAGE):
            for row in page:
                state = reader.state(task_stream(batch, row.n))
                beside += [attempt.ceiling_microusd for attempt in state.attempts if attempt.permission]
                unknown[row.id] = sum(attempt.phase == "unknown" for attempt in state.attempts)
                if state.phase == "held" or (state.phase == "queued" and state.doubted):
                    waiting[row.id] = state.attempts[-1].ceiling_microusd
            after = page[-1].n
        cost = reader.money().get(duplicates_money(batch), Balance()).total
        return Again(allowed, len(beside), cost, sum(beside), waiting, unknown)


def calls_wait(ledger: Path) -> bool:
    """Whether callbacks were taken that no run has used yet."""
    return any(inbox_of(ledger).glob("callbacks/*.json"))
