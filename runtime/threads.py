"""Blocking work off the loop: a few threads of trio's cache under a limit of their own."""

from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


class TrioThreads:
    """Implements :class:`runtime.ports.Threads`.

    Each instance has its own limit, so that slow image decoding can't keep the ledger's commits waiting: give
    the writer one and the fetcher another.  Trio's default limiter is shared with name resolution and is left
    alone.
    """

    def __init__(self, limit: int = 4) -> None:
        self._limiter = trio.CapacityLimiter(limit)

    async def run(self, fn: Callable[[], T]) -> T:
        # abandon_on_cancel stays False: an abandoned thread would go on writing behind the caller's back.
        return await trio.to_thread.run_sync(fn, limiter=self._limiter)
