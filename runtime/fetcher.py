"""The fetcher: brings results home, in the order in which they expire.

It owns a task from *ready* to *done*: download, check, store (write, fsync, rename, fsync directory), and only
then record ``TaskCompleted`` (RES-2).  What was paid for is never thrown away: a result whose link is stale is
asked for again at the provider, a full disk ends the run with the task still ready, and bytes that are no image
are kept for dispute.
"""

import heapq
import logging
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
import trio

from adapters.base import Failed, Finished, Gone, NotVisible, Pending
from ledger.commands import Record
from ledger.events import AttemptFailed, AttemptLost, TaskCompleted
from ledger.folds import AttemptState
from ledger.reader import Reader
from runtime import faults
from runtime.account import AccountActor
from runtime.blobs import Blob, BlobStore, Receiver
from runtime.images import BadImage, Expected
from runtime.ports import Clock, Fetched, FetchRefused, FetchRules, Threads, Wire, WireError
from runtime.pricing import Quote
from runtime.spool import Spool
from runtime.waiting import Bell
from runtime.work import TaskLog, Work, WorkKey

_log = logging.getLogger(__name__)

_WORKERS = 24
_TRIES = 8  # of one download that breaks on the way
_BAD_TRIES = 2  # a bad image is fetched once more: the transfer may have been cut,
_BAD_PAUSE_S = 10.0  # or a storage in trouble may have sent a page of its own with a 200
_REFUSED_TRIES = 3  # our rules refuse the place: a name may resolve to another address next time
_CRASHES = 3  # of the fetcher itself, by one task
_TURNED_AWAY_S = 1800.0  # so long a result may be refused whose job is there; then the next run asks again
_BUSY = frozenset((408, 425, 429))  # the 4xx that say nothing about the link


class Placement(msgspec.Struct, frozen=True):
    """Where the results of a batch lie, and under which name this one is linked (without its ending)."""

    store: BlobStore
    name: Path


class _Fetch:
    """A task to bring home.  ``crashes`` counts how often that made the fetcher fail; ``turned_away_at`` is since when
    its link is refused (monotonic)."""

    __slots__ = ("actor", "crashes", "turned_away_at", "work")

    def __init__(self, work: Work, actor: AccountActor) -> None:
        self.work = work
        self.actor = actor
        self.crashes = 0
        self.turned_away_at: float | None = None


class Fetcher:
    """Owns what it took until it handed it on: the object outlives a crash of its coroutine, and :meth:`run` goes on
    from there."""

    def __init__(
        self,
        *,
        wire: Wire,
        threads: Threads,
        clock: Clock,
        random: Random,
        log: TaskLog,
        reader: Reader,
        place: Callable[[Work], Placement],
        spool: Spool,
        quote: Quote,
        settled: Callable[[Work], None],
        give_back: Callable[[Work], None],
        left: Callable[[Work], None],
        seen_size: Callable[[int], None],
    ) -> None:
        """``left`` gets what is not brought home in this run, ``seen_size`` the size of each stored image, so that the
        disk guard learns."""
        self._wire = wire
        self._threads = threads
        self._clock = clock
        self._random = random
        self._log = log
        self._reader = reader
        self._place = place
        self._spool = spool
        self._quote = quote
        self._settled = settled
        self._give_back = give_back
        self._left = left
        self._seen_size = seen_size
        self._waiting: list[tuple[float, int, _Fetch]] = []
        self._owned: dict[WorkKey, _Fetch] = {}
        self._ticket = 0
        self._bell = Bell()
        self.active = 0

    def __repr__(self) -> str:
        return f"<Fetcher waiting={len(self._waiting)} active={self.active}>"

    @property
    def open(self) -> int:
        return len(self._owned)

    def take(self, work: Work, actor: AccountActor) -> None:
        """Own a task whose result is ready."""
        fetch = self._owned[work.key] = _Fetch(work, actor)
        self._line_up(fetch)

    def _line_up(self, fetch: _Fetch) -> None:
        self._ticket += 1
        heapq.heappush(self._waiting, (fetch.work.expires, self._ticket, fetch))
        self._bell.ring()

    async def run(self) -> None:
        """Fetch until cancelled.  Safe to call again after a failure."""
        self._waiting.clear()
        for fetch in list(self._owned.values()):
            if fetch.crashes < _CRASHES:
                self._line_up(fetch)
            else:  # whatever is wrong with it, the others must come home
                _log.error("%r: its result cannot be brought home in this run", fetch.work)
                self._drop(fetch.work, self._left)
        slots = trio.CapacityLimiter(_WORKERS)
        async with trio.open_nursery() as nursery:
            while True:
                while self._waiting:
                    await slots.acquire_on_behalf_of(ticket := object())
                    _, _, fetch = heapq.heappop(self._waiting)
                    nursery.start_soon(self._fetch, fetch, slots, ticket)
                await self._bell.wait_rung()

    async def _fetch(self, fetch: _Fetch, slots: trio.CapacityLimiter, ticket: object) -> None:
        self.active += 1
        try:
            await self._bring_home(fetch)
        except Exception:
            fetch.crashes += 1
            raise
        finally:
            self.active -= 1
            slots.release_on_behalf_of(ticket)

    async def _bring_home(self, fetch: _Fetch) -> None:
        work, actor = fetch.work, fetch.actor
        bad = refused = 0
        for tries in range(_TRIES):
            got = await self._download(work, actor)
            match got:
                case Blob():
                    await self._complete(work, actor, got)
                    return
                case BadImage() if (bad := bad + 1) >= _BAD_TRIES:
                    await self._fail(work, actor, got.reason)
                    return
                case FetchRefused() if (refused := refused + 1) >= _REFUSED_TRIES:
                    # Our own rules refuse the place or the size, and would refuse that of another purchase: none is
                    # made, and the paid one stays ready, for a version or a setting that may fetch it.
                    _log.error("%r: the result may not be fetched: %s", work, got)
                    actor.park(f"results may not be fetched: {got}")
                    if self._clock.monotonic() > work.expires:
                        await self._lost(work, actor, f"it expired, and could not be fetched before: {got}")
                    else:
                        self._drop(work, self._left)
                    return
                case Fetched(status=status) if 400 <= status < 500 and status not in _BUSY:
                    if not await self._refresh(work, actor):
                        return
                    if self._turned_away_for_good(fetch):
                        _log.error("%r: its link is refused (%d): it is asked for again by the next run", work, status)
                        self._drop(work, self._left)
                        return
                case _:
                    fetch.turned_away_at = None
            least_s = _BAD_PAUSE_S if isinstance(got, BadImage) and self._url(work) else 0.0
            pause_s = least_s + min(30.0, 0.5 * 2**tries) * self._random.uniform(0.5, 1.5)
            await self._clock.sleep_until(self._clock.monotonic() + pause_s)
        _log.warning("%r: the result could not be downloaded yet", work)
        self._line_up(fetch)  # it stays ready, and others get the slot in between

    async def _download(self, work: Work, actor: AccountActor) -> Blob | BadImage | Fetched | FetchRefused | WireError:
        placement = self._place(work)
        expected = Expected(aspect=work.request.aspect, resolution=work.request.resolution)
        link = None if work.state.filled else placement.name
        receiver = Receiver(
            placement.store,
            part=f"{self._log.epoch}-{work.batch}-{work.n}-{work.attempt.number}",
            threads=self._threads,
        )
        faults.point("download_started")
        try:
            if work.data:
                await receiver.write(work.data)
            elif not self._url(work):
                kept = await self._spool.data(work, work.attempt.number)
                if kept is None:
                    return Fetched(status=404, headers={}, size=0)
                await receiver.write(kept)
            else:
                fetched = await self._wire.fetch(self._url(work), receiver.write, self._rules(actor))
                if fetched.status != 200:
                    return fetched
            faults.point("download_ended")
            result = await receiver.finish(expected, link=link)
        except (FetchRefused, WireError) as exc:
            return exc
        finally:
            await receiver.discard()
        faults.point("blob_stored")
        return result

    def _url(self, work: Work) -> str:
        ref = work.attempt.url
        return work.url or (self._reader.payload(ref.row) if ref else None) or ""

    def _rules(self, actor: AccountActor) -> FetchRules:
        account = actor.account
        return FetchRules(hosts=account.codec.capabilities.result_hosts.value, loopback=account.loopback)

    def _turned_away_for_good(self, fetch: _Fetch) -> bool:
        """Whether fresh links were refused for so long that asking on would only keep the night from ending."""
        now = self._clock.monotonic()
        if fetch.turned_away_at is None:
            fetch.turned_away_at = now
        return now - fetch.turned_away_at > _TURNED_AWAY_S

    async def _refresh(self, work: Work, actor: AccountActor) -> bool:
        """Ask the provider for a fresh link; False when the task is settled by the answer."""
        expired = self._clock.monotonic() > work.expires
        outcome = await actor.ask(work)
        match outcome:
            case Gone(detail=detail):
                await self._lost(work, actor, detail or "the result is gone")
                return False
            case Finished(url=url, data=data):
                fresh = bool(data) or url != self._url(work)
                work.url, work.data = url, data
                if expired and not fresh:
                    await self._lost(work, actor, "the result expired before it could be fetched")
                    return False
            case NotVisible() if expired:
                await self._lost(work, actor, "the result expired, and the provider does not know the job any more")
                return False
            case Failed() | Pending() if expired:  # a job that was finished: it went backwards
                await self._lost(work, actor, "the result expired, and the provider tells of none any more")
                return False
            case _:
                pass
        return True

    async def _lost(self, work: Work, actor: AccountActor, reason: str) -> None:
        _log.error("%r: paid and lost: %s", work, reason)
        attempt = work.attempt
        fact = AttemptLost(attempt=attempt.number, reason=reason, cost_microusd=self._cost(work, actor))
        await self._log.record(work, Record(fact))
        actor.charged(work, attempt.number)
        await self._unspool(work, attempt)
        self._drop(work, self._settled)

    async def _unspool(self, work: Work, attempt: AttemptState) -> None:
        """What came inside a reply lies in the store now, or was kept for dispute."""
        if attempt.url is None:
            await self._spool.drop(work, attempt.number)

    def _drop(self, work: Work, hand: Callable[[Work], None]) -> None:
        """Own it no longer: ``hand`` it on."""
        del self._owned[work.key]
        hand(work)

    async def _complete(self, work: Work, actor: AccountActor, blob: Blob) -> None:
        attempt = work.attempt
        fact = TaskCompleted(
            attempt=attempt.number,
            version=work.state.slot,
            sha256=blob.sha256,
            size=blob.size,
            media_type=blob.media_type,
            width=blob.width,
            height=blob.height,
            cost_microusd=self._cost(work, actor),
            flags=blob.flags,
            model_version=attempt.model_version,
        )
        await self._log.record(work, Record(fact))
        faults.point("completion_recorded")
        self._seen_size(blob.size)
        actor.charged(work, attempt.number)
        await self._unspool(work, attempt)
        self._drop(work, self._settled)

    async def _fail(self, work: Work, actor: AccountActor, detail: str) -> None:
        ref, payload = self._log.text(detail)
        attempt = work.attempt
        fact = AttemptFailed(
            attempt=attempt.number,
            reason="bad_image",
            cost_microusd=self._cost(work, actor),
            detail=ref,
        )
        await self._log.record(work, Record(fact), payloads=[payload])
        actor.charged(work, attempt.number)
        await self._unspool(work, attempt)
        self._drop(work, self._settled if work.state.settled else self._give_back)

    def _cost(self, work: Work, actor: AccountActor) -> int:
        """What the provider said it charged, else its price, else what was reserved."""
        if work.attempt.cost_microusd is not None:
            return work.attempt.cost_microusd
        price = self._quote(actor.account, work.request)
        return work.attempt.ceiling_microusd if price is None else price.microusd
