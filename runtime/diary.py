"""What happens to an account, on its way to the record: noted at once, appended in order by one task."""

from collections import deque
from collections.abc import Callable, Sequence

from ledger.events import AccountEvent
from runtime.accountlog import AccountLog
from runtime.ports import Clock
from runtime.waiting import Bell

_SAVE_LIMITS_S = 30.0


class Diary:
    def __init__(self, log: AccountLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._notes: deque[AccountEvent] = deque()
        self._bell = Bell()

    def note(self, event: AccountEvent) -> None:
        self._notes.append(event)
        self._bell.ring()

    async def write(self) -> None:
        """Append what was noted and is not on record yet."""
        while self._notes:
            await self._log.append(self._notes[0])
            self._notes.popleft()

    async def keep(self, changed_limits: Callable[[], Sequence[AccountEvent]]) -> None:
        """Write until cancelled, and every 30 s the limits that changed."""
        save_at = self._clock.monotonic() + _SAVE_LIMITS_S
        while True:
            await self.write()
            await self._bell.wait_rung(deadline=save_at)
            if self._clock.monotonic() >= save_at:
                save_at = self._clock.monotonic() + _SAVE_LIMITS_S
                for event in changed_limits():
                    self.note(event)
