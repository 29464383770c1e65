"""Keeps actors running: a failed one is started again with growing, jittered pauses, within a restart budget.

Over budget means parked, not dead: the night goes on without that actor (LIVE-4), its attempts stay in the
ledger and are tracked again on the next start.  A ledger that fails is never restarted into: it ends the run.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from random import Random

from ledger.errors import LedgerError
from runtime.ports import Clock, DiskFailed, DiskFull

_log = logging.getLogger(__name__)

FATAL: tuple[type[Exception], ...] = (LedgerError, DiskFull, DiskFailed, AssertionError)


async def supervise(
    name: str,
    actor: Callable[[], Awaitable[None]],
    *,
    clock: Clock,
    random: Random,
    on_parked: Callable[[str], None],
    budget: int = 5,
    window_s: float = 60.0,
) -> None:
    """Run ``actor`` until it returns.

    More than ``budget`` failures within ``window_s`` park it: ``on_parked`` is told and this returns.  Errors
    of the ledger, of the disk, and broken invariants propagate at once: going on could spend money blindly.
    """
    failures: deque[float] = deque()
    pause_s = 0.5
    while True:
        try:
            await actor()
        except Exception as exc:
            fatal = _fatal_in(exc)
            if fatal is not None:
                raise fatal from exc
            now = clock.monotonic()
            failures.append(now)
            while failures and failures[0] < now - window_s:
                failures.popleft()
            _log.exception("%s failed (%d of %d in %.0f s)", name, len(failures), budget, window_s)
            if len(failures) > budget:
                on_parked(f"{name} failed {len(failures)} times in {window_s:.0f} s: {_cause(exc)}")
                return
            if len(failures) == 1:
                pause_s = 0.5
            await clock.sleep_until(now + pause_s * random.uniform(0.5, 1.5))
            pause_s = min(30.0, pause_s * 2)
        else:
            return


def _fatal_in(exc: Exception) -> Exception | None:
    if isinstance(exc, FATAL):
        return exc
    if isinstance(exc, ExceptionGroup):
        for inner in exc.exceptions:
            if (found := _fatal_in(inner)) is not None:
                return found
    return None


def _cause(exc: Exception) -> str:
    while isinstance(exc, ExceptionGroup):
        exc = exc.exceptions[0]
    return f"{type(exc).__name__}: {exc}"
