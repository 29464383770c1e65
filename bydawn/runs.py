"""The runs of a ledger: every process that could write, when, for how long, how it ended, and what it did."""

import os
from typing import Literal, NamedTuple

from ledger.deeds import Deeds, batch_between, deeds_between, told_at_us
from ledger.events import EpochEnded, EpochStarted
from ledger.reader import EpochRow, Reader


class Run(NamedTuple):
    """``killed``: it wrote no end, and it is gone; ``last_event_us`` is the last that is known of it."""

    epoch: int
    state: Literal["running", "ended", "killed"]
    started_at_us: int
    ended_at_us: int
    stopped_by: str
    started: EpochStarted
    ended: EpochEnded | None
    first: int
    last: int
    last_event_us: int


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
    return Run(
        epoch=row.epoch,
        state=state,
        started_at_us=row.started_at_us,
        ended_at_us=row.ended_at_us,
        stopped_by=stopped_by,
        started=row.started,
        ended=row.ended,
        first=row.first,
        last=row.last,
        last_event_us=told_at_us(reader, row.last),
    )


def done_by(reader: Reader, run: Run) -> Deeds:
    """What a run did to the batch that it worked on; ``batch`` 0 for one that touched none.

    From the record of its end where that tells it, else from its events.
    """
    ended = run.ended
    if ended is not None and ended.batch and (ended.run_succeeded or ended.run_failed or ended.run_held):
        return Deeds(ended.batch, ended.run_succeeded, ended.run_failed, ended.run_held, ended.run_cost_microusd)
    batch = ended.batch if ended is not None else 0
    batch = batch or batch_between(reader, run.first, run.last)
    return deeds_between(reader, batch, run.first, run.last) if batch else Deeds()


def took_s(run: Run, now_us: int) -> float:
    """How long it took, in seconds, or has taken until now; of one that was killed, until the last that it recorded."""
    end_us = run.last_event_us if run.state == "killed" else run.ended_at_us or now_us
    return max(0, end_us - run.started_at_us) / 1e6


def _holds(reader: Reader, started: EpochStarted) -> bool:
    """Whether the process that started the epoch still lives; only sure on the machine where it ran.

    The lock itself is not tried: taking it, even for a moment, could turn a starting run away.
    """
    lock = reader.path.with_name(f"{reader.path.name}.lock")
    try:
        if int(lock.read_text("ascii").split()[0]) != started.pid:
            return False
        os.kill(started.pid, 0)
    except PermissionError:
        return True  # it lives, under another user
    except (OSError, ValueError, IndexError):
        return False
    return True
