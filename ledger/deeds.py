"""What happened to a batch between two events: how a run that was killed is told what it did.

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
from ledger.streams import account_stream, task_stream

_CHARGES = (TaskCompleted.TYPE, AttemptFailed.TYPE, AttemptLost.TYPE, ResultSpared.TYPE)
"""What moves money from reserved to captured (:mod:`ledger.money`)."""
_NO_BATCH = account_stream(0)  # from here on: streams of the whole ledger
_NEWEST = 1000  # events that say which batch was worked on


class Deeds(msgspec.Struct, frozen=True):
    """What became of the tasks of one batch.  ``succeeded``: images that were stored, or shared with another task."""

    batch: int = 0
    succeeded: int = 0
    failed: int = 0
    held: int = 0
    cost_microusd: int = 0


def batch_between(reader: Reader, first: int, last: int) -> int:
    """Which batch most of the newest events between two numbers are about; 0 if they are about none."""
    found = reader.store.row(
        "SELECT stream >> 36 & 0xFFFFFF AS batch, count(*) AS n FROM (SELECT stream FROM events"
        " WHERE seq BETWEEN ? AND ? AND stream < ? ORDER BY seq DESC LIMIT ?)"
        " GROUP BY 1 ORDER BY n DESC, batch LIMIT 1",
        (first, last, _NO_BATCH, _NEWEST),
    )
    return 0 if found is None else int(found[0])


def deeds_between(reader: Reader, batch: int, first: int, last: int) -> Deeds:
    """Count what the events from number ``first`` to ``last``, both included, did to a batch."""
    found = reader.store.row(
        # The types once more as a filter: nearly all rows are passed over by it, at a tenth of the cost.
        "SELECT coalesce(sum(type IN (?, ?)), 0), coalesce(sum(type = ?), 0), coalesce(sum(type = ?), 0),"
        " coalesce(sum(CASE WHEN type IN (?, ?, ?, ?) THEN json_extract(data, '$.cost_microusd') END), 0)"
        " FROM events WHERE seq BETWEEN ? AND ? AND type IN (?, ?, ?, ?, ?, ?, ?) AND stream BETWEEN ? AND ?",
        (
            *(TaskCompleted.TYPE, TaskShared.TYPE, TaskFailed.TYPE, AttemptUnknown.TYPE, *_CHARGES),
            *(first, last),
            *(TaskShared.TYPE, TaskFailed.TYPE, AttemptUnknown.TYPE, *_CHARGES),
            *(task_stream(batch, 0), task_stream(batch + 1, 0) - 1),
        ),
    )
    return Deeds(batch, *found) if found is not None else Deeds(batch)


def told_at_us(reader: Reader, seq: int) -> int:
    """When an event was recorded; 0 where there is none."""
    found = reader.store.row("SELECT at_us FROM events WHERE seq = ?", (seq,))
    return 0 if found is None else int(found[0])
