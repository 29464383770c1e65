"""What happened between two events, counted per batch: how a run that was killed is told what it did.

One pass over the events in between, by their numbers; SQLite counts, and nothing of them stands in memory.  A run that
ended by itself has its figures on record, so that only those without an end, and those of older ledgers, cost a pass.
"""

import msgspec

from ledger.events import (
    AttemptFailed,
    AttemptLost,
    AttemptUnknown,
    ResultSpared,
    TaskCompleted,
    TaskFailed,
    TaskShared,
)
from ledger.reader import Reader

_CHARGES = (TaskCompleted.TYPE, AttemptFailed.TYPE, AttemptLost.TYPE, ResultSpared.TYPE)
"""What moves money from reserved to captured (:mod:`ledger.money`)."""
_BATCH = "stream >> 36 & 0xFFFFFF"  # as ledger.streams lays it out; 0 for streams of the whole ledger


class Deeds(msgspec.Struct, frozen=True):
    """What became of the tasks of one batch.  ``succeeded``: images that were stored, or shared with another task."""

    batch: int = 0
    succeeded: int = 0
    failed: int = 0
    held: int = 0
    cost_microusd: int = 0
    events: int = 0


def deeds_between(reader: Reader, first: int, last: int) -> list[Deeds]:
    """Count the events from number ``first`` to ``last``, both included; the batch with the most events comes first."""
    rows = reader.store.rows(
        f"SELECT {_BATCH}, sum(type IN (?, ?)), sum(type = ?), sum(type = ?),"  # noqa: S608 - a constant of this file
        " coalesce(sum(CASE WHEN type IN (?, ?, ?, ?) THEN coalesce(json_extract(data, '$.cost_microusd'), 0) END), 0),"
        f" count(*) FROM events WHERE seq BETWEEN ? AND ? AND {_BATCH} > 0 GROUP BY 1 ORDER BY 6 DESC, 1",
        (TaskCompleted.TYPE, TaskShared.TYPE, TaskFailed.TYPE, AttemptUnknown.TYPE, *_CHARGES, first, last),
    )
    return [Deeds(*row) for row in rows]


def told_at_us(reader: Reader, seq: int) -> int:
    """When an event was recorded; 0 where there is none."""
    found = reader.store.row("SELECT at_us FROM events WHERE seq = ?", (seq,))
    return 0 if found is None else int(found[0])
