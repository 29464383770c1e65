"""What only real threads have: a limit of their own.  The common contract is in ``test_seams.py``."""

import threading

import trio
import trio.lowlevel
import trio.testing
from trio.testing import trio_test

from runtime.threads import TrioThreads


@trio_test
async def test_no_more_than_the_limit_work_at_once_and_others_are_not_kept_waiting() -> None:
    busy, other = TrioThreads(limit=2), TrioThreads(limit=1)
    go = threading.Event()
    started: list[int] = []

    def work() -> None:
        started.append(1)
        go.wait(10)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(busy.run, work)
        await trio.testing.wait_all_tasks_blocked()
        while len(started) < 2:
            await trio.lowlevel.checkpoint()
        assert await other.run(lambda: "through") == "through"
        assert len(started) == 2
        go.set()
    assert len(started) == 5


@trio_test
async def test_work_is_done_on_another_thread() -> None:
    assert await TrioThreads().run(threading.get_ident) != threading.get_ident()
