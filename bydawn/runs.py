"""The runs of a ledger: every process that could write, when, for how long, and how it ended."""

import os
from typing import Literal, NamedTuple

from ledger.events import EpochEnded, EpochStarted
from ledger.reader import EpochRow, Reader


class Run(NamedTuple):
    """``killed``: it wrote no end, and it is gone."""

    epoch: int
    state: Literal["running", "ended", "killed"]
    started_at_us: int
    ended_at_us: int
    stopped_by: str
    started: EpochStarted
    ended: EpochEnded | None


def runs(reader: Reader, *, last: int = 0) -> list[Run]:
    """Newest first; ``last`` 0 = all of them."""
    epochs = list(reversed(reader.epochs()))
    newest = epochs[0].epoch if epochs else 0
    return [_run(reader, row, newest=row.epoch == newest) for row in (epochs[:last] if last else epochs)]


def _run(reader: Reader, row: EpochRow, *, newest: bool) -> Run:
    if row.ended is not None:
        state: Literal["running", "ended", "killed"] = "ended"
    else:
        state = "running" if newest and _holds(reader, row.started) else "killed"
    stopped_by = row.ended.stopped_by if row.ended is not None else ""
    return Run(row.epoch, state, row.started_at_us, row.ended_at_us, stopped_by, row.started, row.ended)


def _holds(reader: Reader, started: EpochStarted) -> bool:
    """Whether the process that started the epoch still lives; only sure on the machine where it ran.

    The lock itself is not tried: taking it, even for a moment, could turn a starting run away.
    """
    lock = reader.path.with_name(f"{reader.path.name}.lock")
    try:
        if int(lock.read_text("ascii")) != started.pid:
            return False
        os.kill(started.pid, 0)
    except PermissionError:
        return True  # it lives, under another user
    except (OSError, ValueError):
        return False
    return True
