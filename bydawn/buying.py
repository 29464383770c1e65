"""Runs a night under trio for the command line: wire, signals, progress, and how it ended."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from types import MappingProxyType

import msgspec
import trio

from adapters.prices import PriceBook
from bydawn.errors import UserError
from bydawn.manifest import Naming, write_outputs
from bydawn.opening import Opened
from bydawn.progress import Progress
from bydawn.results import ResultLines
from bydawn.sealing import Sealer
from bydawn.webhooks import Calling
from ledger.decisions import Append, Decision
from ledger.deeds import deeds_between
from ledger.errors import CommitFailed
from ledger.errors import DiskFull as LedgerDiskFull
from ledger.events import EpochEnded
from ledger.money import batch_money
from ledger.reader import Reader
from ledger.streams import runtime_stream
from runtime import faults, spool
from runtime.accounts import Account
from runtime.blobs import BlobStore
from runtime.clock import TrioClock
from runtime.disk import RealDisk
from runtime.egress import Egress
from runtime.fetcher import Placement
from runtime.inbox import inbox_of
from runtime.night import Night, NightPlan, Seams
from runtime.ports import DiskFailed, DiskFull
from runtime.pricing import quote_by
from runtime.router import StopReason, Terms
from runtime.threads import TrioThreads
from runtime.wire import HttpWire
from runtime.work import Work

_log = logging.getLogger(__name__)

_TELL_S = 0.5
_EXIT = {"budget": 5, "at_risk": 5, "deadline": 5, "takeover": 5, "no_provider": 6, "disk_full": 7, "interrupted": 130}


class Ended(msgspec.Struct, frozen=True):
    """How a run ended.  ``run_cost_microusd`` is what this run captured; ``parked`` says per account why."""

    stopped_by: StopReason
    seconds: float
    run_cost_microusd: int
    parked: dict[str, str]


class Buying(msgspec.Struct, frozen=True):
    """What one run is to do.  ``follow`` are all accounts with keys, ``buy_from`` the chosen ones but for
    ``late``, which the deadline leaves no time; ``places`` says where local reference files were found just now."""

    batch: int
    terms: Terms
    follow: tuple[Account, ...]
    buy_from: frozenset[str]
    late: frozenset[str]
    prices: PriceBook
    egress: Egress
    max_attempts: int
    deadline_s: float | None
    wanted: int
    quiet: bool
    as_json: bool
    calling: Calling | None = None
    places: Mapping[str, str] = MappingProxyType({})


def buy(opened: Opened, buying: Buying, talk: Callable[[str], None]) -> Ended:
    """Run the night, write the outputs, record the end.  Call once per process.

    Raises:
        UserError: the disk of ledger or images failed (exit 7); everything paid for is still on record.
    """
    ledger = opened.ledger
    started = time.monotonic()
    if os.environ.get("BYDAWN_FAULT"):
        faults.install(faults.kill_at(os.environ["BYDAWN_FAULT"]))
    with ledger.reader() as reader:
        before = spent_so_far(reader, buying.batch)
        disk = RealDisk()
        folder = Path(reader.batch(buying.batch).folder)
        disk.make_dir(folder)
        sealer = Sealer(disk, folder, reader)
        _seal(sealer, folder)  # from here on an older copy in this place is known as one
        try:
            night = _night(opened, buying, reader, disk, folder)
            stopped = trio.run(_with_signals, night, buying, reader, opened, sealer, talk)
        except BaseExceptionGroup as group:
            raise _translated(group, folder) from group
        parked = {actor.account.name: actor.parked for actor in night.actors if actor.parked}
        ended = Ended(stopped, time.monotonic() - started, spent_so_far(reader, buying.batch) - before, parked)
        _record_end(opened, reader, buying.batch, ended)
        _seal(sealer, folder)
        try:
            write_outputs(reader, buying.batch, disk)
        except (DiskFull, DiskFailed) as exc:
            raise _disk_error(exc, folder) from exc
    return ended


def _seal(sealer: Sealer, folder: Path) -> None:
    try:
        sealer.seal()
    except (DiskFull, DiskFailed) as exc:
        raise _disk_error(exc, folder) from exc


def exit_code(ended: Ended, *, failed: int, held: int) -> int:
    """Say with which code the program ends."""
    if ended.stopped_by == "no_provider" and any("unauthorized" in why for why in ended.parked.values()):
        return 4
    if ended.stopped_by in _EXIT:
        return _EXIT[ended.stopped_by]
    return 3 if failed or held else 0


def _night(opened: Opened, buying: Buying, reader: Reader, disk: RealDisk, folder: Path) -> Night:
    stores: dict[int, BlobStore] = {}
    namings: dict[int, Naming] = {}

    def place(work: Work) -> Placement:
        if work.batch not in stores:
            state = reader.batch(work.batch)
            stores[work.batch] = BlobStore(disk, Path(state.folder))
            namings[work.batch] = Naming(state)
        queued = work.state.queued
        assert queued is not None
        name = namings[work.batch].name_of_task(work.n, queued, work.wanted, version=work.state.slot)
        return Placement(store=stores[work.batch], name=name)

    store = BlobStore(disk, folder)
    store.sweep(opened.ledger.epoch)
    # Held ones too: their image may have come, and been out of reach when they were held.
    waiting = {(each.batch, each.n, each.attempt) for each in (*reader.live(), *reader.held(buying.batch))}
    spool.sweep(store, lambda *attempt: attempt in waiting)
    seed = os.environ.get("BYDAWN_SEED")
    return Night(
        NightPlan(
            terms=buying.terms,
            accounts=buying.follow,
            buy_from=buying.buy_from,
            late=buying.late,
            max_attempts=buying.max_attempts,
            deadline_s=buying.deadline_s,
            webhook_url=buying.calling.url if buying.calling else "",
            places=buying.places,
        ),
        ledger=opened.ledger,
        reader=reader,
        seams=Seams(
            clock=TrioClock(),
            wire=HttpWire(buying.egress),
            threads=TrioThreads(),
            commits=TrioThreads(1),
            disk=disk,
            random=Random(int(seed)) if seed else Random(),
        ),
        place=place,
        quote=quote_by(buying.prices),
        inbox_dir=inbox_of(opened.ledger.path),
        folder=folder,
        keyed=opened.keyed,
    )


async def _with_signals(
    night: Night, buying: Buying, reader: Reader, opened: Opened, sealer: Sealer, talk: Callable[[str], None]
) -> StopReason:
    """The first SIGINT or SIGTERM drains, the second stops hard; both continue later."""

    async def listen(*, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                talk("draining: buying nothing more, bringing home what is in flight (again to stop at once)")
                night.drain()

    async with trio.open_nursery() as nursery:
        await nursery.start(listen)
        if buying.calling is not None:
            await nursery.start(_receive, buying.calling, opened, talk)
        if not buying.quiet:
            progress = Progress(reader, buying.batch, wanted=buying.wanted, note=talk, bar=sys.stderr.isatty())
            nursery.start_soon(progress.run)
        if buying.as_json:
            nursery.start_soon(_tell_results, ResultLines(reader, buying.batch))
        nursery.start_soon(sealer.keep_sealing, TrioThreads(1))
        stopped = await night.run()
        nursery.cancel_scope.cancel()
    return stopped


async def _receive(
    calling: Calling, opened: Opened, talk: Callable[[str], None], *, task_status: trio.TaskStatus[None]
) -> None:
    """Take callbacks while the night runs.  A receiver that fails ends no night: what it misses is polled."""
    from bydawn.receiver import Receiver, receive  # loads a web server, which most runs do not need

    receiver = Receiver(opened.ledger.path, keyed=opened.keyed, secrets=calling.secrets)
    try:
        await receive(receiver, calling.place, talk, task_status=task_status)
    except UserError:
        raise  # the address cannot be had: told before anything is bought
    except Exception:
        _log.exception("callbacks are not taken any more: the jobs are polled")


async def _tell_results(results: ResultLines) -> None:
    """Write the lines of settled tasks as they come, and the last ones when the night has ended."""
    try:
        while True:
            _write_lines(results)
            await trio.sleep(_TELL_S)
    finally:
        _write_lines(results)


def _write_lines(results: ResultLines) -> None:
    """A reader that went away (``| head``) must not end a night that buys: its lines go nowhere from then on."""
    try:
        for line in results.lines():
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def spent_so_far(reader: Reader, batch: int) -> int:
    """What the batch has been charged, in micro-dollars."""
    account = batch_money(batch)
    balance = reader.money(account).get(account)
    return balance.captured if balance else 0


def _record_end(opened: Opened, reader: Reader, batch: int, ended: Ended) -> None:
    states: dict[str, int] = {}
    for row in reader.counts(batch):
        states[row.state] = states.get(row.state, 0) + row.n
    epoch = reader.epochs()[-1]
    done = deeds_between(reader, batch, epoch.first, epoch.last)
    event = EpochEnded(
        stopped_by=ended.stopped_by or "done",
        exit_code=exit_code(ended, failed=states.get("failed", 0), held=states.get("held", 0)),
        batch=batch,
        succeeded=states.get("succeeded", 0),
        failed=states.get("failed", 0),
        held=states.get("held", 0),
        run_cost_microusd=ended.run_cost_microusd,
        run_succeeded=done.succeeded,
        run_failed=done.failed,
        run_held=done.held,
    )
    stream = runtime_stream()
    append = Append(stream, reader.version(stream), (event,))
    opened.ledger.commit([Decision(appends=(append,), at_us=time.time_ns() // 1000)])


def _translated(group: BaseExceptionGroup[BaseException], folder: Path) -> BaseException:
    """The first cause that a user can act on; anything else is a bug and stays as it is."""
    leaves = list(_leaves(group))
    for exc in leaves:
        if isinstance(exc, DiskFull | DiskFailed | LedgerDiskFull):
            return _disk_error(exc, folder)
    for exc in leaves:
        if isinstance(exc, CommitFailed):
            return exc
    return leaves[0] if len(leaves) == 1 else group


def _leaves(exc: BaseException) -> Sequence[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for inner in exc.exceptions for leaf in _leaves(inner)]
    return [exc]


def _disk_error(exc: Exception, folder: Path) -> UserError:
    return UserError(
        "BD-080",
        "the disk is full" if isinstance(exc, DiskFull | LedgerDiskFull) else "the disk cannot be written",
        where=str(folder),
        why=f"{exc}; nothing that was paid for is lost: it is on record and is fetched next time",
        fix="free some space and run the same command again",
        exit_code=7,
    )
