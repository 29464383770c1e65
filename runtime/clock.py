"""The real clock: trio's monotonic time for waiting, the system's wall clock for records."""

import time

import trio


class TrioClock:
    """Implements :class:`runtime.ports.Clock`.  Works inside a trio run only.

    Durations come from trio and not from :func:`time.monotonic`, so that ``sleep_until`` and ``monotonic`` can
    never disagree (trio's clock has its own offset, and a mock clock in tests).
    """

    def monotonic(self) -> float:
        return trio.current_time()

    def now_us(self) -> int:
        return time.time_ns() // 1000

    async def sleep_until(self, deadline: float) -> None:
        await trio.sleep_until(deadline)
