"""What became of doubtful lines of batch files: the provider's list of batches shows the name of each file.

All lines of a file were intended in one commit under a name that no other file has, and one call was to make a batch
of that name.  So the list answers for all of them at once: the batch is there, and each line is a job of it; or it is
not, in two complete lists after the quarantine, and none of them is (W16, REC-4).  Nothing but the name is evidence.
"""

import logging
from collections.abc import Collection, Mapping

from adapters.base import MalformedReply
from adapters.batchfile import BatchFiles, ListedBatch, line_job
from ledger.events import AbsentEvidence, AdoptEvidence
from runtime.accounts import Account
from runtime.evidence import CannotLook, ClocksApart, Looked, Query, beyond_listing, compare_clocks
from runtime.ports import Clock, WireError
from runtime.reconcile import CannotTell, Found, Judgement, NotThere
from runtime.work import Work, WorkKey

_log = logging.getLogger(__name__)

_PAGES_AT_MOST = 2000


def file_prefix(ledger_id: str) -> str:
    """What the name of every file begins with that a ledger, or a copy of it, has made."""
    return f"bydawn-{ledger_id[:12]}-"


def line_key(work: Work, number: int) -> str:
    """The key of an attempt's line: the same for the same attempt, and no other attempt's.

    It ends in a digest of what only copies of the task share (the salt of its request): two copies of a ledger that
    both import more give the same numbers to different tasks, and the key tells them apart.
    """
    return f"{work.batch}-{work.n}-{number}-{work.body_digest(b'')[:8]}"


def attempt_of_key(key: str) -> str:
    """What of a line's key names the attempt; it was all of it in files that an earlier version made."""
    return "-".join(key.split("-")[:3])


class BatchEvidence:
    """A complete list of the account's batches."""

    found_by: AdoptEvidence = "listing"
    absent_by: AbsentEvidence = "listing"

    def __init__(self, account: Account, codec: BatchFiles, *, query: Query, clock: Clock) -> None:
        record = account.codec.capabilities.listing
        assert record is not None, f"{account.name}: batch files in the codec and no listing in the record"
        self._lag_s = min(record.value.lag_s, account.quarantine)
        self._account = account
        self._codec = codec
        self._query = query
        self._clock = clock
        self._missed_at: dict[str, float] = {}  # name of a file -> the first complete list without it
        self._told: set[str] = set()

    async def look(self, works: Mapping[WorkKey, Work], ripe: Collection[WorkKey]) -> Looked:
        try:
            named = await read_batches(self._account, self._codec, query=self._query, clock=self._clock)
        except CannotLook as exc:
            return Looked([], str(exc), frozenset(works), isinstance(exc, ClocksApart))
        # What is found, or in doubt no longer, is not waited for.
        asked = {work.attempt.file for work in works.values()} - named.keys()
        self._missed_at = {name: at for name, at in self._missed_at.items() if name in asked}
        verdicts: list[Judgement] = []
        missed = {works[key].attempt.file for key in ripe if key in works and works[key].attempt.file not in named}
        absent = {name for name in missed if self._missed_twice(name)}
        for key, work in works.items():
            file = work.attempt.file
            batches = named.get(file, [])
            if not file:
                verdicts.append(CannotTell(key, "no_evidence"))
            elif batches:
                self._tell_surplus(file, batches[1:])
                verdicts.append(Found(key, line_job(batches[0].batch, line_key(work, work.attempt.number))))
            elif beyond := beyond_listing(self._account, self._clock, work):
                verdicts.append(CannotTell(key, beyond))
            elif key in ripe and file in absent:
                verdicts.append(NotThere(key))
        return Looked(verdicts)

    def next_look(self) -> float:
        return min((at + self._lag_s for at in self._missed_at.values()), default=float("inf"))

    def _missed_twice(self, name: str) -> bool:
        """Whether the list was without this file before, long enough ago for a late batch to have appeared since."""
        now = self._clock.monotonic()
        if now < self._missed_at.setdefault(name, now) + self._lag_s:
            return False
        del self._missed_at[name]
        return True

    def _tell_surplus(self, file: str, surplus: list[ListedBatch]) -> None:
        """The call that was sent once was taken twice: never paid for by us knowingly, and never bought again."""
        if surplus and file not in self._told:
            self._told.add(file)
            names = ", ".join(batch.batch for batch in surplus)
            _log.error("%s: %s was made into more than one batch; nobody waits for %s", self._account.name, file, names)


async def read_batches(
    account: Account, codec: BatchFiles, *, query: Query, clock: Clock
) -> dict[str, list[ListedBatch]]:
    """Read the whole list; the batches of one name in the order of their creation.

    Raises:
        CannotLook: a page could not be read, or our clock and the provider's disagree.
    """
    named: dict[str, dict[str, ListedBatch]] = {}
    cursor: str | None = None
    for _ in range(_PAGES_AT_MOST):
        try:
            reply = await query(codec.build_batches(account.context(), cursor=cursor))
            page = codec.read_batches(reply)
        except (WireError, MalformedReply) as exc:
            raise CannotLook(str(exc)) from exc
        compare_clocks(clock, reply)
        for batch in page.batches:  # a page that moved on meanwhile shows some of them twice
            named.setdefault(batch.name, {})[batch.batch] = batch
        cursor = page.next_cursor
        if cursor is None:
            order = {name: sorted(found.values(), key=_age) for name, found in named.items()}
            return {name: found for name, found in order.items() if name}
    raise CannotLook(f"more than {_PAGES_AT_MOST} pages")


def _age(batch: ListedBatch) -> tuple[int, str]:
    return batch.created_us, batch.batch
