"""Where tasks wait whose reference files must be uploaded first.

They stand outside the queues of the lanes: a slow upload must neither hold a place under the provider's rate nor
block a task that could be sent.  Nothing is intended for them yet.
"""

from collections.abc import Callable, Collection

import trio

from runtime.gateway import Submission
from runtime.references import References
from runtime.waiting import Bell
from runtime.work import WorkKey

_AT_ONCE = 16


class WarmUp:
    """Uploads for the tasks of one account, a few at a time."""

    def __init__(self, references: References, ready: Callable[[Submission], None]) -> None:
        """``ready`` takes each submission whose uploads are there, or have failed: its resolution tells which."""
        self._references = references
        self._ready = ready
        self._waiting: dict[WorkKey, Submission] = {}
        self._begun: set[WorkKey] = set()
        self._bell = Bell()

    def __repr__(self) -> str:
        return f"<WarmUp {len(self._waiting)} waiting, {len(self._begun)} begun>"

    @property
    def full(self) -> bool:
        return len(self._waiting) >= _AT_ONCE

    def count(self, lane: str) -> int:
        """How many tasks of the lane wait here."""
        return sum(submission.lane == lane for submission in self._waiting.values())

    def take(self, submission: Submission) -> bool:
        """Keep a submission until its uploads are there; False when it needs none."""
        if not self._references.cold(submission.work.request):
            return False
        self._waiting[submission.work.key] = submission
        self._bell.ring()
        return True

    def drain(self, lanes: Collection[str]) -> list[Submission]:
        """Let go of the tasks of these lanes; what is being uploaded for them may serve others."""
        drained = [submission for submission in self._waiting.values() if submission.lane in lanes]
        for submission in drained:
            del self._waiting[submission.work.key]
        return drained

    async def run(self) -> None:
        """Upload until cancelled.  Safe to call again after a failure."""
        self._begun.clear()
        async with trio.open_nursery() as nursery:
            while True:
                for submission in [each for key, each in self._waiting.items() if key not in self._begun]:
                    self._begun.add(submission.work.key)
                    nursery.start_soon(self._warm, submission)
                await self._bell.wait_rung()

    async def _warm(self, submission: Submission) -> None:
        key = submission.work.key
        await self._references.warm(submission.work.request)
        self._begun.discard(key)
        waiting = self._waiting.pop(key, None)
        if waiting is not None:  # else it was drained meanwhile
            self._ready(waiting)
