"""Tasks that are settled, those that changed last in front: what a job that nobody knows may have been bought for."""

from ledger.engine import Store
from ledger.folds import ENDED
from ledger.streams import stream_parts


def ended_tasks(store: Store) -> list[tuple[int, int]]:
    """(batch, number) of every task that bought for itself and is settled.  Reads all tasks: ask once."""
    rows = store.rows(
        "SELECT stream FROM tasks WHERE owner = 0 AND phase IN (?, ?, ?) ORDER BY at_us DESC, stream",
        tuple(sorted(ENDED)),
    )
    return [(parts.batch, parts.n) for parts in (stream_parts(stream) for (stream,) in rows)]
