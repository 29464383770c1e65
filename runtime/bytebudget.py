"""A bound on the bytes that large replies may fill at one time (SEC-9)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class ByteBudget:
    """Whoever expects ``size`` bytes waits until they fit, in the order of asking: a large one is not starved."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._turn = trio.Lock()  # held by the first of the queue
        self._freed = trio.Event()

    def __repr__(self) -> str:
        return f"<ByteBudget {self._total - self._free} of {self._total}>"

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold ``size`` bytes of the budget; what is larger than the whole of it waits to be alone."""
        size = min(size, self._total)
        if size:
            async with self._turn:
                while self._free < size:
                    self._freed = trio.Event()
                    await self._freed.wait()
                self._free -= size
        try:
            yield
        finally:
            self._free += size
            self._freed.set()
