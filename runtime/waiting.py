"""Small helpers for actors that sleep until something happens or a time comes."""

import math

import trio


class Bell:
    """Wakes whoever waits; ringing while nobody waits is remembered once."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait_rung(self, *, deadline: float = math.inf) -> None:
        """Return when the bell was rung since the last return, or at ``deadline`` (the trio clock)."""
        if deadline == math.inf:
            await self._event.wait()
        else:
            with trio.move_on_at(deadline):
                await self._event.wait()
        self._event = trio.Event()
