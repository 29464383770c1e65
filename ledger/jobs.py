"""Which jobs attempts were bound to, the newest first: SQLite passes over everything else, a page at a time."""

from collections.abc import Iterator
from typing import cast

from ledger.encoding import decode_event
from ledger.events import AttemptAccepted, AttemptAdopted, Recorded
from ledger.reader import Reader

_PAGE = 500


def jobs_since(reader: Reader, at_us: int) -> Iterator[tuple[Recorded, AttemptAccepted | AttemptAdopted]]:
    """Yield what bound a job at or after a time, for as long as somebody asks for more."""
    before = reader.head().seq + 1
    while rows := reader.store.rows(
        "SELECT seq, stream, version, epoch, at_us, type, data FROM events"
        " WHERE seq < ? AND at_us >= ? AND type IN (?, ?) ORDER BY seq DESC LIMIT ?",
        (before, at_us, AttemptAccepted.TYPE, AttemptAdopted.TYPE, _PAGE),
    ):
        for seq, stream, version, epoch, told_us, tag, data in rows:
            event = cast("AttemptAccepted | AttemptAdopted", decode_event(tag, data))
            yield Recorded(seq, stream, version, epoch, told_us, event), event
        before = rows[-1][0]
