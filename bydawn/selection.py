"""Which ledger and which batch the user means.

The ledger is the one named, else ``bydawn.db`` beside the nearest ``bydawn.toml`` or ``bydawn.db`` upwards from the
working directory.  Practice has a ledger of its own beside it, ``bydawn-sandbox.db``.  Commands that only read look
there too when the real one does not know the batch; commands that write never do, so that practice and the real
thing cannot be mixed up.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bydawn.errors import UserError
from ledger.errors import LedgerMissing

if TYPE_CHECKING:
    from ledger.reader import BatchRow, Reader
    from ledger.tasklist import TaskRow

LEDGER_NAME = "bydawn.db"
SANDBOX_LEDGER_NAME = "bydawn-sandbox.db"
PROJECT_NAME = "bydawn.toml"


class Target(NamedTuple):
    """What ``BATCH/TASK`` names; ``batch`` is empty for the newest one."""

    batch: str
    task: str


def home(start: Path) -> Path | None:
    """Find the nearest folder upwards that holds a project file or a ledger; None when there is none."""
    for folder in (start, *start.parents):
        if any((folder / name).is_file() for name in (LEDGER_NAME, PROJECT_NAME, SANDBOX_LEDGER_NAME)):
            return folder
    return None


def ledger_path(explicit: Path | None, *, sandbox: bool, start: Path | None = None) -> Path:
    """Say where the ledger is, or would be made: it need not exist.

    Where a link leads to it, it is the file itself: its lock and its key lie beside that.
    """
    if explicit is not None:
        path = explicit.absolute()
    else:
        here = (start or Path.cwd()).absolute()
        path = (home(here) or here) / (SANDBOX_LEDGER_NAME if sandbox else LEDGER_NAME)
    return Path(os.path.realpath(path)) if path.is_symlink() else path  # of a loop too, which is then no file


def readable_ledgers(explicit: Path | None, *, sandbox: bool) -> list[Path]:
    """Return the ledgers that a reading command looks into, in order; never empty.

    Raises:
        UserError: there is none (exit 10).
    """
    wanted = [ledger_path(explicit, sandbox=sandbox)]
    if explicit is None and not sandbox:
        wanted.append(ledger_path(None, sandbox=True))
    found = [path for path in wanted if path.is_file()]
    if not found:
        # Commands that write look into one ledger, which they name here although nobody named it to them.
        own = [ledger_path(None, sandbox=practice) for practice in (False, True)]
        practised = wanted[0].with_name(SANDBOX_LEDGER_NAME)
        raise UserError(
            LedgerMissing.code,
            f"there is no ledger at {wanted[0]}",
            why="no run has been started here, or it was started in another folder"
            if wanted[0] in own
            else "the file named by --ledger does not exist",
            fix=f"practice is in {practised.name}: --sandbox means that"
            if wanted[0] in own and practised.is_file()
            else "bydawn run INPUT starts one; in another folder: --ledger FILE",
            exit_code=10,
        )
    return found


@contextmanager
def open_ledger(path: Path) -> Iterator["Reader"]:
    """Open one ledger for reading."""
    from ledger.reader import Reader

    with Reader(path) as reader:
        yield reader


@contextmanager
def open_batch(explicit: Path | None, name: str, *, sandbox: bool) -> Iterator[tuple["Reader", "BatchRow"]]:
    """Open the ledger that knows the batch, and find it there; without a name the newest batch is meant.

    Raises:
        UserError: no ledger, or no such batch in any of them (exit 10).
    """
    paths = readable_ledgers(explicit, sandbox=sandbox)
    known: list[str] = []
    for path in paths:
        with open_ledger(path) as reader:
            batches = reader.batches()
            row = next((b for b in batches if b.name == name), None) if name else batches[-1] if batches else None
            if row is not None:
                yield reader, row
                return
            known += [batch.name for batch in batches]
    if not name:
        raise UserError(
            "BD-103",
            f"no batch has been started in {paths[0].name} yet",
            where=str(paths[0]),
            fix="bydawn run INPUT",
            exit_code=10,
        )
    raise UserError(
        "BD-101",
        f"there is no batch named {name}",
        where=", ".join(str(path) for path in paths),
        why=_near(name, known),
        fix="bydawn log lists the batches; another ledger: --ledger FILE",
        exit_code=10,
    )


def _near(name: str, known: list[str]) -> str:
    if not known:
        return "no batch has been started here yet"
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    newest = list(reversed(known))
    listed = ", ".join(newest[:8]) + (f" and {len(newest) - 8} more" if len(newest) > 8 else "")
    return f"did you mean {near[0]}?  The batches are: {listed}" if near else f"the batches are: {listed}"


def target(text: str) -> Target:
    """Split ``BATCH/TASK``; a text without a slash is a task of the newest batch.

    Task ids may hold slashes, batch names do not: the first one divides.
    """
    batch, slash, task = text.partition("/")
    return Target(batch, task) if slash else Target("", batch)


def find_task(reader: "Reader", batch: "BatchRow", task: str) -> "TaskRow":
    """Find a task by its id, or by ``#17`` for the one that was imported seventeenth.

    Raises:
        UserError: the batch has no such task (exit 10).
    """
    row = reader.task_by_id(batch.batch, task)
    if row is None and task.startswith("#") and task[1:].isdigit():
        row = reader.task(batch.batch, int(task[1:]))
    if row is None:
        some = [entry.id for entry in reader.tasks(batch.batch, limit=3)]
        raise UserError(
            "BD-102",
            f"batch {batch.name} has no task {task}",
            why=f"its ids look like: {', '.join(some)}" if some else "it has no tasks yet",
            fix=f"bydawn tasks {batch.name} lists them",
            exit_code=10,
        )
    return row
