"""How fast and how wide one account buys: its lanes under one rate, and what each answer teaches about them.

Bookkeeping without waiting or effects.  The account actor asks what may start now, and tells what came of it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random

from adapters.base import Accepted, Failed, Finished, Refused, Throttled, Unclear
from adapters.capabilities import Rate
from ledger.decisions import Exceeded
from ledger.events import AccountEvent, BreakerChanged, LimiterSaved
from runtime.accounts import Account
from runtime.gateway import NotSent, Submission, SubmitResult, Superseded
from runtime.lanes import Lane, next_submission
from runtime.limits import AdaptiveLimit, Breaker, TokenBucket
from runtime.ports import Clock
from runtime.references import Unresolved
from runtime.trust import Disbelieved

_RATE_GROWS = 20  # times a start that the provider may let grow
_LONGEST_PAUSE_S = 300.0


class Pace:
    """The lanes of an account.  ``note`` records what people should know of them."""

    def __init__(self, account: Account, *, clock: Clock, random: Random, note: Callable[[AccountEvent], None]) -> None:
        self._account = account
        self._caps = account.codec.capabilities
        self._clock = clock
        self._random = random
        self._note = note
        self._lanes: dict[str, Lane] = {}
        self._saved: dict[str, int] = {}
        self.bucket = TokenBucket(account.submit_rate)
        moving = account.rate is None and self._caps.dynamic_rate is not None
        start = self.bucket.rate.count
        self._rate = AdaptiveLimit(start, _RATE_GROWS * start) if moving else None

    @property
    def lanes(self) -> Collection[Lane]:
        return self._lanes.values()

    @property
    def in_flight(self) -> int:
        return sum(lane.in_flight for lane in self.lanes)

    @property
    def most_in_flight(self) -> int:
        """How wide a lane may ever become."""
        return self._account.max_inflight or self._caps.max_concurrency.value

    @property
    def submits_per_second(self) -> float:
        """The rate as it is now."""
        return self.bucket.per_second

    @property
    def seconds_until_room(self) -> float:
        """When a lane that is shut now might open; infinity when only an event can open it."""
        now = self._clock.monotonic()
        waits = [lane.breaker.seconds_until_open(now) for lane in self.lanes]
        waits.append(self.bucket.seconds_until_free(now))
        return min((wait for wait in waits if wait > 0), default=float("inf"))

    def lane(self, name: str) -> Lane:
        """Give a lane, as wide as it was last known to be good."""
        lane = self._lanes.get(name)
        if lane is None:
            start = self._saved.get(name) or self._account.max_inflight or self._caps.concurrency.value
            lane = self._lanes[name] = Lane(name, AdaptiveLimit(start, self.most_in_flight), Breaker())
        return lane

    def restore(self, intent_ages_s: Sequence[float], limits: Mapping[str, int]) -> None:
        """Remember the rate that older epochs used, and the limits that they learned."""
        self.bucket.restore(list(intent_ages_s), self._clock.monotonic())
        self._saved = dict(limits)

    def room(self, name: str) -> int:
        """How many more tasks the lane would take now: by its concurrency, and by a second of the rate."""
        now = self._clock.monotonic()
        # What cannot start yet for want of concurrency must not keep the account's other lanes empty.
        waiting = sum(min(len(each.queue), each.startable(now)) for each in self.lanes)
        ahead = max(2, int(self.bucket.per_second)) - waiting
        return min(ahead, self.lane(name).room(now))

    def next(self) -> Submission | float:
        """Take the submission that may start now, or return the seconds after which one might."""
        lanes = list(self.lanes)
        self._random.shuffle(lanes)  # none starves under the shared rate
        return next_submission(lanes, self.bucket, self._clock.monotonic())

    def learn(self, lane: Lane, result: SubmitResult) -> str:
        """Teach limiter and breaker what the answer says; returns why the account should be parked, if it should."""
        if isinstance(result, Disbelieved):
            result = result.answer
        now = self._clock.monotonic()
        before, park = lane.breaker.state, ""
        match result:
            case Accepted() | Finished():
                lane.breaker.succeeded()
                lane.limit.succeeded()
                if self._rate is not None:
                    self._rate.succeeded()
            case Throttled(retry_after_s=seconds):
                self._throttled(lane, seconds)
            case Refused(reason=("unauthorized" | "no_credit" | "forbidden") as reason, detail=detail):
                park = f"{reason}: {detail}" if detail else reason
            case Unresolved(reason="account", detail=detail):
                park = f"upload: {detail}"
            case (
                Unclear()
                | NotSent()
                | Failed(reason="provider")
                | Refused(reason="unavailable")
                | Unresolved(reason="later")
            ):
                lane.breaker.failed(now)
            case Refused() | Failed():
                lane.breaker.succeeded()  # it answers, this request alone is bad
            case Exceeded() | Superseded() | Unresolved():
                lane.breaker.not_tried(now)
        if self._rate is not None:
            self.bucket.rate = Rate(self._rate.value, self.bucket.rate.per_s)
        if lane.breaker.state != before:
            self._note(BreakerChanged(lane=lane.name, state=lane.breaker.state, reason=type(result).__name__))
        return park

    def job_failed(self, lane: Lane) -> None:
        """A job failed by the provider's own fault."""
        lane.breaker.failed(self._clock.monotonic())

    def changed_limits(self) -> list[LimiterSaved]:
        """What was learned since this was asked last, for the record."""
        changed = [lane for lane in self.lanes if self._saved.get(lane.name) != lane.limit.value]
        self._saved.update({lane.name: lane.limit.value for lane in changed})
        return [LimiterSaved(lane=lane.name, concurrency=lane.limit.value) for lane in changed]

    def _throttled(self, lane: Lane, seconds: float | None) -> None:
        now = self._clock.monotonic()
        lane.limit.throttled(now)
        if self._rate is not None:
            self._rate.throttled(now)
        if seconds is None:
            seconds = self.bucket.rate.per_s / 4 * self._random.uniform(0.5, 1.5)
        self.bucket.block(now + min(seconds, _LONGEST_PAUSE_S))
        lane.breaker.not_tried(now)  # a probe that was turned away has proved nothing
