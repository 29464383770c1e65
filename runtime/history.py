"""What the newest part of the ledger says: jobs bound lately, when submits were last made, what waits for a key or for
an account."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from ledger.events import AttemptAccepted, AttemptAdopted, AttemptIntended, BatchCancelled, Recorded
from ledger.lately import facts_since
from ledger.openwork import LiveAttempt
from ledger.reader import Reader
from ledger.streams import batch_stream
from runtime.accounts import Account
from runtime.keycheck import KnownJob
from runtime.trust import Trust, assume

_MAY_PASS = frozenset(("account_changed", "clock_changed", "listing_failed"))
_ASSUMED = frozenset({"listing_assumed", "lookup_assumed", "answer_assumed"})
_TOGETHER = 200_000  # events per read


def _bound_since(reader: Reader, at_us: int) -> Iterator[tuple[Recorded, AttemptAccepted | AttemptAdopted]]:
    for row in facts_since(reader, at_us, AttemptAccepted.TYPE, AttemptAdopted.TYPE):
        if isinstance(row.event, AttemptAccepted | AttemptAdopted):
            yield row, row.event


def bound_jobs(reader: Reader, at_us: int) -> set[str]:
    """Job ids that attempts were bound to since a time."""
    return {bound.job for _, bound in _bound_since(reader, at_us)}


class BoundJobs:
    """Which jobs an attempt was ever bound to, for who asks time and again: what a ledger says of that only grows, so
    all events are read once, at the first question, and then those that came since.

    A callback about a held task asks, so whoever can call, and does so often, must not make the night read all of the
    ledger each time.  Kept is a number per job, Python's own hash, which is drawn anew for each process.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._read = 0  # up to this event
        self._hashes: set[int] = set()

    def __call__(self, jobs: Collection[str]) -> set[str]:
        """Those of the jobs that are bound."""
        newest = self._reader.head().seq
        while self._read < newest:
            through = min(newest, self._read + _TOGETHER)
            self._hashes.update(map(hash, self._reader.bound_between(self._read, through)))
            self._read = through
        return {job for job in jobs if hash(job) in self._hashes}


def answered_jobs(
    reader: Reader, account: str, foreign: Callable[[int], bool], since_us: int, until_us: int
) -> set[str]:
    """Jobs that the account's own answers named, for purchases that were both intended and answered within the time."""
    mine: set[tuple[int, int]] = set()
    answered: dict[tuple[int, int], str] = {}
    for row in facts_since(reader, since_us, AttemptIntended.TYPE, AttemptAccepted.TYPE):
        match row.event:
            case AttemptIntended(attempt=number, account=name) if name == account and not foreign(row.epoch):
                mine.add((row.stream, number))
            case AttemptAccepted(attempt=number, job=job) if row.at_us <= until_us:
                answered[row.stream, number] = job
    return {job for key, job in answered.items() if key in mine}


def recent_intents(reader: Reader, at_us: int) -> list[tuple[str, int]]:
    """(account, time) of every intent since a time, oldest first: how full the rate windows of the accounts are."""
    rows = facts_since(reader, at_us, AttemptIntended.TYPE)
    return [(row.event.account, row.at_us) for row in rows if isinstance(row.event, AttemptIntended)][::-1]


def jobs_of(reader: Reader, account: str, foreign: Callable[[int], bool], at_us: int) -> Iterator[KnownJob]:
    """Jobs that an account bound since a time and may have bought with another key, the newest first."""
    for row, bound in _bound_since(reader, at_us):
        if isinstance(bound, AttemptAccepted) and not foreign(row.epoch):
            continue  # nearly all: answers come in the epoch of the purchase, and its state need not be read
        attempt = reader.state(row.stream).attempts[bound.attempt - 1]
        if attempt.account == account and foreign(attempt.epoch):
            yield KnownJob(bound.job, attempt.epoch)


def held_again(
    reader: Reader, account: str, foreign: Callable[[int], bool], trust: Callable[[int], Trust] = assume
) -> list[LiveAttempt]:
    """Purchases that are held for a cause that may be gone: then they are looked up again.

    It was another key, known by now to be of the same account; a wrong clock; a list that could not be read; or a fact
    that was not sure enough for the batch, which trusts it now.
    """
    return [
        each
        for batch in reader.batches()
        for each in reader.held(batch.batch, account=account)
        if each.state.phase == "held"
        and each.attempt == len(each.state.attempts)
        and each.state.attempts[-1].reason in _MAY_PASS | (_ASSUMED if trust(each.batch) == "assumed" else frozenset())
        and not foreign(each.epoch)
    ]


def open_elsewhere(live: Sequence[LiveAttempt], accounts: Sequence[Account]) -> dict[str, int]:
    """Count open attempts at accounts that are not configured now: nobody could follow them."""
    known = {account.name for account in accounts}
    return dict(Counter(each.account for each in live if each.account not in known))


def may_be_spooled(live: Sequence[LiveAttempt], accounts: Sequence[Account]) -> dict[int, int]:
    """Count by batch the open purchases whose image may lie in the folder of its results, and nowhere else: it came
    inside the answer, recorded or not (W14)."""
    inside = {account.name for account in accounts if account.codec.capabilities.shape.value == "sync"}
    found = Counter[int]()
    for each in live:
        attempt = each.state.attempts[each.attempt - 1]
        recorded = attempt.phase == "ready" and attempt.url is None
        found[each.batch] += recorded or (attempt.phase in ("intended", "ambiguous") and each.account in inside)
    return {batch: count for batch, count in found.items() if count}


class CancelWish(NamedTuple):
    """Who cancelled a batch last, and in which epoch; 0 = nobody did."""

    epoch: int = 0
    operator: str = ""


def cancel_wish(reader: Reader, batch: int) -> CancelWish:
    """The last wish to cancel a batch: what was bought in later epochs is wanted."""
    wish, after = CancelWish(), 0
    if not reader.batch(batch).cancelled:
        return wish
    while page := reader.events(stream=batch_stream(batch), after=after):
        after = page[-1].version
        for row in page:
            if isinstance(row.event, BatchCancelled):
                wish = CancelWish(row.epoch, row.event.operator)
    return wish
