"""Sealing a staged batch into the ledger: ``ImportOpened``, ``TaskQueued`` ..., ``BatchSealed``.

Nothing is bought before the seal (LED-11).  A killed import is taken up again when the same input comes back: its tasks
are known by then, the rest is added, and it is sealed.  When another input comes, the half is dropped, as an event.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from ledger.decisions import Append, Committed, Decision, Outcome
from ledger.errors import LedgerError
from ledger.events import BatchEvent, BatchSealed, ImportDropped, ImportOpened
from ledger.folds import BatchState, ImportState
from ledger.staging import NewTask as NewTask
from ledger.staging import Repeated as Repeated
from ledger.staging import Staged as Staged
from ledger.staging import StagedRow, Staging
from ledger.streams import batch_stream

PAGE = 5_000
"""Tasks per transaction: large enough that syncing does not matter, small enough to hold."""


class Target(Protocol):
    """What an import needs of the ledger."""

    def batch(self, batch: int) -> BatchState: ...

    def commit(self, decisions: Sequence[Decision]) -> list[Outcome]: ...

    def queue_page(self, batch: int, number: int, rows: list[StagedRow], *, at_us: int) -> None: ...

    def highest_task(self, batch: int) -> int: ...


class Imported(msgspec.Struct, frozen=True):
    """What an import did.  ``number`` 0 means that there was nothing to add."""

    number: int
    added: int
    shared: int
    resumed: bool
    dropped: int


def import_staged(
    target: Target,
    staging: Staging,
    batch: int,
    *,
    source: str,
    input_digest: str,
    at_us: int,
    share: bool,
    mapping: dict[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    page: int = PAGE,
) -> Imported:
    """Make the staged rows that are not known tasks of ``batch``, durably, and seal them.

    Args:
        share: identical requests follow one purchase.
        progress: told (rows done, rows to do) after each transaction.
        page: tasks per transaction.

    Raises:
        LedgerError: a given id repeats; nothing was written.
    """
    state = target.batch(batch)
    half = state.open_import
    dropped = 0
    if half is not None and half.input_digest != input_digest:
        dropped = _drop(target, batch, half, at_us)
        half = None
    staged = staging.compare(batch, beyond=-1)
    if staged.duplicates_count:
        raise LedgerError(f"{staged.duplicates_count} ids were given to more than one row")
    if not staged.new and half is None:
        return Imported(number=0, added=0, shared=0, resumed=False, dropped=dropped)
    first = target.highest_task(batch) + 1
    to_do = staging.number(batch, first=first, share=share)
    number = half.number if half is not None else len(state.imports) + 1
    if half is None:
        opened = ImportOpened(
            number=number, first=first, source=source, input_digest=input_digest, mapping=mapping or {}
        )
        _append(target, batch, opened, at_us)
    done = shared = 0
    for rows in staging.pages(page):
        target.queue_page(batch, number, rows, at_us=at_us)
        done += len(rows)
        shared += sum(1 for row in rows if row[-1])
        if progress is not None:
            progress(done, to_do)
    last = target.highest_task(batch)
    _append(target, batch, BatchSealed(number=number, tasks=last, rows=staged.total, input_digest=input_digest), at_us)
    return Imported(number=number, added=done, shared=shared, resumed=half is not None, dropped=dropped)


def _drop(target: Target, batch: int, half: ImportState, at_us: int) -> int:
    last = target.highest_task(batch)
    _append(target, batch, ImportDropped(number=half.number, first=half.first, last=last), at_us)
    return last - half.first + 1


def _append(target: Target, batch: int, event: BatchEvent, at_us: int) -> None:
    version = target.batch(batch).version
    (outcome,) = target.commit([Decision(appends=(Append(batch_stream(batch), version, (event,)),), at_us=at_us)])
    assert isinstance(outcome, Committed), outcome
