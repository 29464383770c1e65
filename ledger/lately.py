"""Facts of some kinds since a time, the newest first: SQLite passes over everything else, a part at a time."""

from collections.abc import Iterator

import msgspec

from ledger.deeds import told_at_us
from ledger.encoding import decode_event
from ledger.events import Recorded
from ledger.reader import Reader

_WINDOW = 20_000  # events that SQLite goes through at a time


def facts_since(reader: Reader, at_us: int, *types: str) -> Iterator[Recorded]:
    """Yield facts of these types at or after a time, for as long as somebody asks for more.

    Times are wall clock and may jump back a little, so the window in which the time is passed is read to its end.
    """
    upper, first_us = reader.head().seq, at_us
    wanted = msgspec.json.encode(types).decode()
    while upper > 0 and first_us >= at_us:
        lower = max(0, upper - _WINDOW)
        rows = reader.store.rows(
            "SELECT seq, stream, version, epoch, at_us, type, data FROM events WHERE seq > ? AND seq <= ?"
            " AND at_us >= ? AND type IN (SELECT value FROM json_each(?)) ORDER BY seq DESC",
            (lower, upper, at_us, wanted),
        )
        for seq, stream, version, epoch, told_us, tag, data in rows:
            yield Recorded(seq, stream, version, epoch, told_us, decode_event(tag, data))
        first_us = told_at_us(reader, lower + 1)
        upper = lower
