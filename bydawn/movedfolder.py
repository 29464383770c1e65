"""Results that were moved: a batch's folder is on record with its whole path, and people move folders.

Where the folder on record is not there any more, the one of the same name beside the ledger is taken, if its marker
says that it is this batch's; so a project that is moved whole goes on where it is.  A folder elsewhere is named with
``--to``.  A folder without the marker is never taken for the results: it may be anybody's.
"""

from pathlib import Path

from bydawn.importing import append_batch
from bydawn.opening import Opened, operator
from ledger.events import BatchMoved
from runtime.disk import RealDisk
from runtime.outputs import Marker, MarkerDamaged, read_marker


def beside(ledger: Path, folder: Path) -> Path:
    """Where a batch's results would be, had they been moved along with the ledger."""
    return ledger.absolute().parent / folder.name


def moved_to(ledger: Path, folder: Path, marker: Marker, *, named: Path | None) -> Path | None:
    """Return the folder to which the results were moved; None when they are where the record says.

    Args:
        folder: the one on record.
        marker: what a folder of this batch carries.
        named: where the user says that they are.
    """
    if named is not None and _carries(named, marker):
        found = named.absolute()
    elif not _carries(folder, marker) and _carries(beside(ledger, folder), marker):
        found = beside(ledger, folder)
    else:
        return None
    return found if found != folder else None


def follow_moved(opened: Opened, batch: int, *, named: Path | None) -> None:
    """Put on record that the results of a batch lie elsewhere now, if they do."""
    ledger = opened.ledger
    marker = Marker(ledger=ledger.ledger_id, batch=batch)
    found = moved_to(ledger.path, Path(ledger.batch(batch).folder), marker, named=named)
    if found is not None:
        append_batch(ledger, batch, BatchMoved(folder=str(found), operator=operator()))


def _carries(folder: Path, marker: Marker) -> bool:
    try:
        return read_marker(RealDisk(), folder) == marker
    except MarkerDamaged:
        return False
