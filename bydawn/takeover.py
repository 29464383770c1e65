"""May the ledger go on buying here, and if not: taking it over (REC-10).

A run asks first and buys nothing where :mod:`ledger.life` finds a sign of another copy.  Taking over is a person's word
that this file goes on and no other does.  What that word cannot know is what the other copy bought since it was parted
from this one.  Jobs that a listing shows are adopted, or put on record as surplus (:mod:`bydawn.orphans`); every other
task that is not settled stays unbought until that is said as well.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from adapters import registry
from adapters.batchfile import BatchFiles
from bydawn.config import load_config
from bydawn.errors import UserError
from bydawn.keys import chosen_accounts
from bydawn.opening import Opened, held_error, keyed_by, machine, opened_for_writing, operator
from bydawn.orphans import Looked, adopt_orphans
from bydawn.sandbox import find_or_start, practice_accounts
from bydawn.sealing import HEAD, Sealer, sealed_heads
from ledger.audit import SealedHead
from ledger.decisions import Append, Decision
from ledger.errors import LedgerHeld
from ledger.events import LedgerTakenOver, WaitingTasks
from ledger.folds import Place
from ledger.life import Strange, contradiction, strange
from ledger.lock import newest_commit
from ledger.reader import BatchRow, Reader
from ledger.streams import runtime_stream
from runtime.accounts import Account
from runtime.disk import RealDisk
from runtime.ports import DiskFailed, DiskFull

_PAGE = 1000
_SETTLED = frozenset(("succeeded", "failed", "cancelled"))


class WaitingBatch(msgspec.Struct, frozen=True):
    """What a batch wanted to buy when it was taken over, and the most that this would cost."""

    batch: int
    name: str
    through: int
    queued: int
    worst_microusd: int


class Standing(msgspec.Struct, frozen=True):
    """How a ledger stands: signs of another copy, and the tasks that such a copy may have bought.

    ``providers``: where it may have, by the settings of the batches; empty = anywhere.  ``used``: accounts from which
    this ledger has bought, or was about to, at any time.  ``tasks``: whether there are any.
    ``since_us``: the last that this ledger knows of.
    ``held_back``: tasks wait since an earlier taking over.
    """

    signs: tuple[Strange, ...]
    unsettled: tuple[WaitingBatch, ...]
    providers: tuple[str, ...]
    used: tuple[str, ...]
    tasks: bool
    sandbox: bool
    since_us: int
    held_back: bool


@contextmanager
def opened_for_buying(path: Path, *, create: bool) -> Iterator[Opened]:
    """As :func:`bydawn.opening.opened_for_writing`, for what may buy.

    Raises:
        UserError: another process has it, or another copy may live.
    """
    try:
        with opened_for_writing(path, create=create) as opened:
            _refuse_copies(path, opened)
            yield opened
    except LedgerHeld as exc:
        raise held_error(path, exc) from exc


def _refuse_copies(path: Path, opened: Opened) -> None:
    with opened.ledger.reader() as reader:
        signs = signs_of(reader, _place(opened))
    if signs:
        raise UserError(
            "BD-113",
            "nothing is bought with this ledger until it is taken over",
            where=str(path),
            why="; ".join(each.text for each in signs) + "; two copies that both buy would pay twice",
            fix="if no other copy goes on: bydawn ledger takeover" + _sandbox(path, opened),
        )


def _sandbox(path: Path, opened: Opened) -> str:
    with opened.ledger.reader() as reader:
        practice = any(row.sandbox for row in reader.batches())
    return " --sandbox" if practice else ""


def signs_of(reader: Reader, here: Place) -> tuple[Strange, ...]:
    """What speaks against buying with this ledger in this place."""
    newest = newest_commit(reader.path)
    locked = [SealedHead(*newest)] if newest is not None and newest[0] == reader.ledger_id() else []
    return strange(
        reader.runtime().home,
        here,
        copied=bool(reader.copied_at_us()),
        contradicted=contradiction(reader.path, [head for _, head in sealed_heads(reader)]),
        replaced=contradiction(reader.path, locked),
    )


def look(path: Path) -> Standing:
    """Say how the ledger at ``path`` stands, changing nothing.  Raises LedgerMissing."""
    with Reader(path) as reader:
        file = path.stat()
        here = Place(keyed_by(path)(machine()), file.st_dev, file.st_ino)
        unsettled = tuple(_unsettled(reader))
        batches = reader.batches()
        return Standing(
            signs=signs_of(reader, here),
            unsettled=unsettled,
            providers=_providers(reader, batches),
            used=tuple(row.name for row in reader.accounts()),
            tasks=any(row.sealed_through for row in batches),
            sandbox=any(row.sandbox for row in batches),
            since_us=_known_until(reader),
            held_back=bool(reader.runtime().waiting),
        )


def take_over(path: Path, standing: Standing, *, buy_queued: bool) -> list[Looked]:
    """Make this file the ledger that goes on, durably, and seal its head beside its results.

    Returns what the listings told.  Where a file of requests of the other copy has not told yet what is in it
    (:func:`is_silent`), what waits goes on waiting, also under ``buy_queued``.

    Raises:
        LedgerHeld, LedgerError: as for every opening.
        UserError: no sandbox, a wrong setting, or a sealed head that cannot be replaced; call it again then.
    """
    with opened_for_writing(path, create=False) as opened:
        ledger = opened.ledger
        looked: list[Looked] = []
        if standing.tasks and (standing.signs or _by_file(standing)):
            # Before it is at home: cut short, it is done again.
            batches = [each.batch for each in standing.unsettled]
            book = load_config(Path.cwd(), os.environ).price_book()
            looked = adopt_orphans(
                ledger,
                _accounts(path, standing),
                batches,
                book,
                since_us=standing.since_us,
                files_only=not standing.signs,
            )
        if is_silent(looked) and not standing.signs:
            return looked  # nothing is different from when it was taken over
        all_told = buy_queued and not is_silent(looked)
        waiting = () if all_told else tuple(WaitingTasks(each.batch, each.through) for each in standing.unsettled)
        place = _place(opened)
        event = LedgerTakenOver(
            operator=operator(),
            machine=place.machine,
            device=place.device,
            inode=place.inode,
            reasons=tuple(each.sign for each in standing.signs),
            waiting=waiting,
        )
        with ledger.reader() as reader:
            append = Append(runtime_stream(), reader.version(runtime_stream()), (event,))
            ledger.commit([Decision(appends=(append,), at_us=time.time_ns() // 1000)])
            ledger.settle()
            ledger.mark()
            _seal_all(reader)
    return looked


def is_silent(looked: Sequence[Looked]) -> bool:
    """Whether the other copy has bought something of which nobody knows yet for which tasks."""
    return any(each.silent_files for each in looked)


def _by_file(standing: Standing) -> bool:
    """Whether something may have been bought by the file, of which more can be told by now."""
    names = standing.providers or tuple(load_config(Path.cwd(), os.environ).accounts)
    return any(isinstance(registry.find(each), BatchFiles) for each in _providers_of((*names, *standing.used)))


def _accounts(path: Path, standing: Standing) -> list[Account]:
    """The accounts from which the other copy may have bought, as far as there are keys for them here."""
    config = load_config(Path.cwd(), os.environ)
    if standing.sandbox:
        choose = partial(practice_accounts, find_or_start(path))
    else:
        choose = partial(chosen_accounts, config, need_keys=False)
    found = {each.name: each for each in choose(standing.providers)}
    # Also where it bought before the batches were given other providers; an account may be no longer in the settings.
    known = (name for name in standing.used if name in config.accounts or registry.find(name) is not None)
    if more := tuple(name for name in known if name not in found):
        found |= {each.name: each for each in choose(more)}
    return [each for each in found.values() if each.key.reveal()]


def waiting_through(reader: Reader, batch: int) -> int:
    """Up to which task a batch buys nothing since the ledger was taken over; 0 = all may be bought."""
    return next((each.through for each in reader.runtime().waiting if each.batch == batch), 0)


def _place(opened: Opened) -> Place:
    device, inode = opened.ledger.identity()
    return Place(opened.keyed(machine()), device, inode)


def _seal_all(reader: Reader) -> None:
    """Replace the heads of the other life.  If it should run on, in these folders, it finds itself contradicted."""
    disk = RealDisk()
    for folder, _ in sealed_heads(reader):
        try:
            Sealer(disk, folder, reader).seal()
        except (DiskFull, DiskFailed) as exc:
            raise UserError(
                "BD-080",
                "the head of the ledger cannot be sealed beside its results",
                where=str(folder / HEAD),
                why=str(exc),
                fix="free some space, or remove that file, and run the same command again",
                exit_code=7,
            ) from exc


def _unsettled(reader: Reader) -> Iterator[WaitingBatch]:
    for row in reader.batches():
        if any(each.n and each.state not in _SETTLED for each in reader.counts(row.batch)):
            queued, worst = _queued(reader, row)
            yield WaitingBatch(row.batch, row.name, row.sealed_through, queued, worst)


def _providers(reader: Reader, batches: Sequence[BatchRow]) -> tuple[str, ...]:
    named = [reader.batch(each.batch).settings.providers for each in batches]
    return tuple(dict.fromkeys(name for names in named for name in names or ())) if all(named) else ()


def _known_until(reader: Reader) -> int:
    """When this ledger last learned anything but that it was opened: from then on, another copy may know more."""
    upper = reader.head().seq
    while upper > 0:
        lower = max(0, upper - _PAGE)
        for recorded in reversed(reader.events(after=lower, limit=upper - lower)):
            if recorded.stream != runtime_stream():
                return recorded.at_us
        upper = lower
    return 0


def _queued(reader: Reader, row: BatchRow) -> tuple[int, int]:
    """How many tasks are still to be bought, and their cost at the dearest of the batch's providers."""
    shapes = reader.queued_shapes(row.batch)
    book = load_config(Path.cwd(), os.environ).price_book()
    names: Sequence[str] = reader.batch(row.batch).settings.providers or tuple(registry.entries())
    providers = _providers_of(names)
    worst = 0
    for shape in shapes:
        quotes = (book.quote(each, shape.model, shape.resolution, references=shape.references) for each in providers)
        worst += shape.count * max((quote.ceiling_microusd for quote in quotes if quote is not None), default=0)
    return sum(shape.count for shape in shapes), worst


def _providers_of(names: Sequence[str]) -> set[str]:
    """The providers of accounts and providers."""
    accounts = load_config(Path.cwd(), os.environ).accounts
    return {accounts[name][0].provider if name in accounts else name for name in names}
