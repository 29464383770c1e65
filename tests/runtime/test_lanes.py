"""Lanes: who may start now, and when to ask again."""

from collections.abc import Sequence
from typing import cast

from adapters.capabilities import Rate
from runtime.gateway import Submission
from runtime.lanes import Lane, drain_queues, next_submission
from runtime.limits import AdaptiveLimit, Breaker, TokenBucket


def lane(name: str = "a", *, limit: int = 2, queued: int = 0) -> Lane:
    made = Lane(name, AdaptiveLimit(limit, 10), Breaker(threshold=1, pause_s=5.0))
    made.queue.extend(cast(Submission, f"{name}{n}") for n in range(queued))
    return made


def start(lanes: Sequence[Lane], rate: TokenBucket, now: float) -> object:
    return next_submission(lanes, rate, now)


def bucket(count: int = 100) -> TokenBucket:
    return TokenBucket(Rate(count, 10.0))


def test_a_lane_starts_as_many_as_its_limit() -> None:
    one = lane(limit=2, queued=3)
    started = [start([one], bucket(), 0.0) for _ in range(3)]
    assert started == ["a0", "a1", float("inf")]
    assert one.in_flight == 2


def test_the_rate_says_when_to_ask_again() -> None:
    one, rate = lane(limit=5, queued=3), bucket(1)
    assert start([one], rate, 0.0) == "a0"
    assert start([one], rate, 4.0) == 6.0


def test_a_full_lane_does_not_hold_up_the_next_one() -> None:
    """LIVE-3."""
    full, free = lane("a", limit=1, queued=1), lane("b", queued=1)
    full.in_flight = 1
    assert start([full, free], bucket(), 0.0) == "b0"


def test_an_open_breaker_lets_one_probe_through_while_older_jobs_run() -> None:
    """LIVE-1: it waited for every job that was in flight before, however long they ran."""
    one = lane(limit=2, queued=2)
    one.in_flight = 2
    one.breaker.failed(0.0)
    assert start([one], bucket(), 1.0) == 4.0
    assert one.startable(5.0) == 1
    assert start([one], bucket(), 5.0) == "a0"
    assert one.breaker.state == "half_open"
    assert start([one], bucket(), 5.0) == float("inf")
    assert one.room(5.0) == 0


def test_room_counts_what_waits() -> None:
    one = lane(limit=4, queued=1)
    one.in_flight = 1
    assert one.room(0.0) == 2
    assert cast(list[object], drain_queues([one])) == ["a0"]
    assert one.room(0.0) == 3
