"""Small helpers for actors that sleep until something happens or a time comes."""

import trio


class Bell:
    """Wakes whoever waits; ringing while nobody waits is remembered once."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait_rung(self, *, deadline: float = float("inf")) -> None:
        """Return when the bell was rung since the last return, or at ``deadline`` (the trio clock)."""
        with trio.move_on_at(deadline):
            await self._event.wait()
        self._event = trio.Event()
