"""What ``bydawn ledger backup`` does: the ledger and its key file, into a file that nobody sees half-written.

The key file comes along, since without it every account would have to be confirmed anew and callbacks under way would
no longer be known; it is a secret, so it gets mode 0600 like the original.  Images, spooled replies and waiting
messages do not come along.
"""

import time
from pathlib import Path

import msgspec

from bydawn.errors import UserError
from ledger.backup import back_up
from ledger.reader import Reader
from runtime.disk import RealDisk
from runtime.ports import DiskFailed, DiskFull


class Saved(msgspec.Struct, frozen=True):
    file: Path
    octets: int
    seq: int
    head: str
    has_key: bool


def save(ledger: Path, file: Path, *, force: bool) -> Saved:
    """Back the ledger up into ``file``, and its key file beside that.

    Raises:
        LedgerError: there is no ledger, or it cannot be read.
        UserError: there is a file already (exit 2), or the place cannot be written (exit 7).
    """
    file = file.absolute()
    key, key_copy = _key_of(ledger), _key_of(file)
    _refuse_overwriting(ledger, (file, key_copy), force=force)
    disk, part = RealDisk(), file.with_name(file.name + ".part")
    try:
        disk.remove(part)  # of one that was killed
        back_up(ledger, part, at_us=time.time_ns() // 1000)
        has_key = disk.exists(key)
        if has_key:
            key_part = key_copy.with_name(key_copy.name + ".part")
            disk.remove(key_part)
            disk.write_new(key_part, disk.read(key))
            disk.rename(key_part, key_copy)
        disk.sync(part)
        disk.rename(part, file)
    except (DiskFull, DiskFailed) as exc:
        raise UserError(
            "BD-104",
            "the backup cannot be written",
            where=str(file),
            why=str(exc),
            fix="free some space, or choose another place",
            exit_code=7,
        ) from exc
    with Reader(file) as reader:
        head = reader.head()
    return Saved(file, file.stat().st_size, head.seq, head.hash, has_key)


def _key_of(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + ".key")


def _refuse_overwriting(ledger: Path, files: tuple[Path, ...], *, force: bool) -> None:
    for file in files:
        itself = file.exists() and any(each.exists() and file.samefile(each) for each in (ledger, _key_of(ledger)))
        if itself or (file.exists() and not force):
            raise UserError(
                "BD-115",
                "the backup would replace the ledger itself" if itself else "there is a file already",
                where=str(file),
                fix="choose another name" + ("" if itself else ", or --force"),
            )
