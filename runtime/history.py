"""What the newest part of the ledger says: job ids bound lately, and when submits were last made."""

from collections.abc import Iterator

from ledger.events import AttemptAccepted, AttemptAdopted, AttemptIntended, Recorded
from ledger.reader import Reader

_PAGE = 5000


def since(reader: Reader, at_us: int) -> Iterator[Recorded]:
    """Yield events at or after a time, newest pages first.

    Times are wall clock and may jump back a little, so the page in which the time is passed is read to its end.
    """
    upper = reader.head().seq
    while upper > 0:
        lower = max(0, upper - _PAGE)
        page = reader.events(after=lower, limit=upper - lower)
        yield from (row for row in page if row.at_us >= at_us)
        if not page or page[0].at_us < at_us:
            return
        upper = lower


def bound_jobs(reader: Reader, at_us: int) -> set[str]:
    """Job ids that attempts were bound to since a time."""
    return {row.event.job for row in since(reader, at_us) if isinstance(row.event, AttemptAccepted | AttemptAdopted)}


def recent_intents(reader: Reader, at_us: int) -> list[tuple[str, int]]:
    """(account, time) of every intent since a time: how full the rate windows of the accounts are."""
    return [(row.event.account, row.at_us) for row in since(reader, at_us) if isinstance(row.event, AttemptIntended)]
