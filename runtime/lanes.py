"""A lane: one queue of an account with its own concurrency, under the account's one rate limit.

Plain bookkeeping, no waiting: the account actor asks which submission may start now, or when to ask again.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from runtime.gateway import Submission
from runtime.limits import AdaptiveLimit, Breaker, TokenBucket


class Lane:
    def __init__(self, name: str, limit: AdaptiveLimit, breaker: Breaker) -> None:
        self.name = name
        self.limit = limit
        self.breaker = breaker
        self.queue: deque[Submission] = deque()
        self.in_flight = 0  # from the start of the submit until the job has ended

    def __repr__(self) -> str:
        return (
            f"<Lane {self.name} queued={len(self.queue)} in_flight={self.in_flight}/{self.limit.value} "
            f"{self.breaker.state}>"
        )

    def startable(self, now: float) -> int:
        """How many submits the lane would let start now, by breaker and concurrency alone.

        The probe of an open breaker may go while older jobs still run: they say nothing about a new submit, and
        waiting for the slowest of them would keep the lane shut long after the provider is well.
        """
        if self.breaker.seconds_until_open(now) > 0:
            return 0
        if self.breaker.state != "closed":
            return 1
        return max(0, self.limit.value - self.in_flight)

    def room(self, now: float) -> int:
        """How many more tasks the lane would take beside those that wait in it."""
        return max(0, self.startable(now) - len(self.queue))


def next_submission(lanes: Sequence[Lane], bucket: TokenBucket, now: float) -> Submission | float:
    """Take the submission that may start now, or return the seconds after which one might (infinity: none waits).

    Lanes are served in the order given; the caller rotates them so that none starves.
    """
    wait_s = float("inf")
    for lane in lanes:
        if not lane.queue:
            continue
        if not lane.startable(now):
            shut_s = lane.breaker.seconds_until_open(now)
            wait_s = min(wait_s, shut_s) if shut_s > 0 else wait_s
            continue
        free_s = bucket.seconds_until_free(now)
        if free_s > 0:
            return min(wait_s, free_s)
        bucket.take(now)
        lane.breaker.passed()
        lane.in_flight += 1
        return lane.queue.popleft()
    return wait_s


def drain_queues(lanes: Iterable[Lane]) -> list[Submission]:
    """Empty all queues; nothing in them has been intended yet."""
    drained: list[Submission] = []
    for lane in lanes:
        drained.extend(lane.queue)
        lane.queue.clear()
    return drained
