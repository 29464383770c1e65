"""What only the real clock has: the system's wall clock.  The common contract is in ``test_seams.py``."""

import time

from trio.testing import trio_test

from runtime.clock import TrioClock


@trio_test
async def test_the_wall_clock_is_the_systems_in_microseconds() -> None:
    before = time.time_ns() // 1000
    now = TrioClock().now_us()
    assert before <= now <= time.time_ns() // 1000
