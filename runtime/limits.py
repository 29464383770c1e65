"""How fast and how wide an account may be used: token bucket, adaptive concurrency, circuit breaker.

Plain state machines over a time that the caller gives (seconds, monotonic): no clock, no waiting, no random.
The account actor asks them before each effect and tells them what came of it.
"""

from collections import deque
from typing import Literal

import msgspec

from adapters.capabilities import Rate

_LEAST_S = 0.05  # no first poll comes sooner: far below any provider, so that only their latency decides

BreakerState = Literal["closed", "open", "half_open"]


class TokenBucket:
    """A sliding window: at most ``count`` takes in any ``per_s`` seconds, as providers count it.

    A bucket that refills smoothly would allow a burst plus the refill, which a provider with a fixed window
    answers with 429; a window of the last takes never does.
    """

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._takes: deque[float] = deque()
        self._blocked_until = 0.0

    def seconds_until_free(self, now: float) -> float:
        """Return 0.0 when a take is allowed now, else how long to wait before asking again."""
        while self._takes and self._takes[0] <= now - self.rate.per_s:
            self._takes.popleft()
        wait = self._blocked_until - now
        if len(self._takes) >= self.rate.count:
            # The take that must have left the window, counted from the newest: rounding may have kept an old one.
            wait = max(wait, self._takes[-self.rate.count] + self.rate.per_s - now)
        return max(0.0, wait)

    def take(self, now: float) -> None:
        """Use one; the caller has seen that it is free."""
        self._takes.append(now)

    def block(self, until: float) -> None:
        """Allow nothing before ``until``: the provider asked for a pause."""
        self._blocked_until = max(self._blocked_until, until)

    def restore(self, ages_s: list[float], now: float) -> None:
        """Rebuild the window after a restart from how long ago the last intents were."""
        self._takes = deque(sorted(now - age for age in ages_s if 0 <= age < self.rate.per_s))

    @property
    def per_second(self) -> float:
        return self.rate.count / self.rate.per_s


class AdaptiveLimit:
    """Additive increase, multiplicative decrease on the number of jobs in flight in a lane."""

    def __init__(self, start: int, most: int) -> None:
        self._limit = float(max(1, min(start, most)))
        self._most = max(1, most)
        self._last_cut = float("-inf")

    @property
    def value(self) -> int:
        return int(self._limit)

    def succeeded(self) -> None:
        self._limit = min(float(self._most), self._limit + 1.0 / self._limit)

    def throttled(self, now: float, *, settle_s: float = 5.0) -> None:
        """Cut by a third, at most once in ``settle_s``: one burst of 429s is one signal."""
        if now - self._last_cut >= settle_s:
            self._last_cut = now
            self._limit = max(1.0, self._limit * 0.67)


class Breaker:
    """Stops a lane that keeps failing, and probes it with one task after a growing pause.

    Closed: all pass.  Open: none pass until ``retry_at``.  Half open: one probe is out; its success closes,
    its failure opens for twice as long (up to ``longest_s``).
    """

    def __init__(self, *, threshold: int = 5, pause_s: float = 5.0, longest_s: float = 300.0) -> None:
        self._threshold = threshold
        self._first_pause_s = pause_s
        self._longest_s = longest_s
        self._failures = 0
        self._pause_s = pause_s
        self.retry_at = 0.0
        self.state: BreakerState = "closed"

    def seconds_until_open(self, now: float) -> float:
        """Return 0.0 when one task may pass now; a half-open lane waits for its probe (infinity)."""
        if self.state == "closed":
            return 0.0
        if self.state == "half_open":
            return float("inf")
        return max(0.0, self.retry_at - now)

    def passed(self) -> None:
        """A task goes through; after the pause of an open breaker it is the probe."""
        if self.state == "open":
            self.state = "half_open"

    def succeeded(self) -> None:
        self._failures = 0
        self._pause_s = self._first_pause_s
        self.state = "closed"

    def not_tried(self, now: float) -> None:
        """The task that passed was not sent after all: a probe that proved nothing, so the next one may go."""
        if self.state == "half_open":
            self.state = "open"
            self.retry_at = now

    def failed(self, now: float) -> None:
        self._failures += 1
        if self.state == "half_open":
            self._pause_s = min(self._longest_s, self._pause_s * 2)
        elif self._failures < self._threshold:
            return
        self.state = "open"
        self.retry_at = now + self._pause_s


class LatencyEstimate(msgspec.Struct):
    """Where to put the first poll of a job: near the time by which four of five jobs have ended.

    A first poll that finds its job done pulls the estimate a little below the age of that job, one that finds it
    running pushes it twice as hard above; the two balance where 80 % of first polls find the result.  Each step
    aims at the age that was seen and not at a multiple of the estimate, because the news of many jobs that were
    scheduled by the same estimate arrive together and must not compound.
    """

    seconds: float

    def first_poll_found(self, age_s: float, *, done: bool) -> None:
        if done:
            self.seconds += 0.05 * min(0.0, 0.95 * age_s - self.seconds)
        else:
            self.seconds += 0.1 * max(0.0, 1.1 * age_s - self.seconds)
        self.seconds = max(_LEAST_S, self.seconds)

    def delay_s(self, polls: int) -> float:
        """Return how long to wait before poll number ``polls + 1``: the estimate, then short growing steps."""
        if polls == 0:
            return self.seconds
        longest_s = min(30.0, max(2.0, self.seconds))
        return min(longest_s, max(0.5, self.seconds * 0.2) * 1.4 ** min(polls - 1, 12))
