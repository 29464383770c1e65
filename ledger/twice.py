"""Which tasks are about to be bought although an earlier purchase of theirs may have been charged.

A purchase counts when it brought an image (also one that was rejected since, or was not needed), when it was paid and
lost, and when nothing could tell whether it was taken.  One that failed does not: what failures may cost is part of
what was agreed when the batch began.
"""

from typing import NamedTuple

from ledger.folds import AttemptState
from ledger.reader import Reader
from ledger.streams import stream_parts, task_stream

_PAID = frozenset({"done", "surplus", "lost"})


class BoughtBefore(NamedTuple):
    """A queued task, and what its earlier purchases may have cost at most."""

    n: int
    microusd: int


def bought_before(reader: Reader, batch: int) -> list[BoughtBefore]:
    """The queued tasks of a batch that have such a purchase, in input order."""
    rows = reader.store.rows(
        "SELECT t.stream FROM tasks t WHERE t.phase = 'queued' AND t.owner = 0 AND t.stream > ? AND t.stream <= ?"
        " AND t.attempts > 0 AND (t.cost_microusd > 0 OR t.slot > 1"
        " OR EXISTS (SELECT 1 FROM open_attempts o WHERE o.stream = t.stream)) ORDER BY t.stream",
        (task_stream(batch, 0), task_stream(batch, reader.batch(batch).sealed_through)),
    )
    found = []
    for (stream,) in rows:
        paid = [each for each in map(may_be_charged, reader.state(stream).attempts) if each is not None]
        if paid:
            found.append(BoughtBefore(stream_parts(stream).n, sum(paid)))
    return found


def may_be_charged(attempt: AttemptState) -> int | None:
    """What a purchase cost, or may have cost at most; None where it is none that another one would repeat."""
    if attempt.phase == "unknown":
        return attempt.ceiling_microusd
    return (attempt.cost_microusd or 0) if attempt.phase in _PAID else None
