"""How fast and wide an account buys: what answers teach its lanes and its rate (MON-3, LIVE-3)."""

from collections.abc import Callable, Sequence

import msgspec
import pytest
import trio

from adapters.base import Accepted, Finished, Refused, RefusedReason, Throttled, Unclear
from adapters.capabilities import Rate
from ledger.events import AccountEvent, BreakerChanged, LimiterSaved
from runtime.gateway import NotSent, SubmitResult
from runtime.pace import Pace
from tests.runtime.fakes import CAPS, Bench, known, run

START = Rate(10, 10.0)
IMAGE = Finished(data=b"x")


class Pacing:
    """One account's pace, and what it noted."""

    def __init__(self, *, moving: bool = False, own: Rate | None = None) -> None:
        caps = msgspec.structs.replace(CAPS, submit_rate=known(START), dynamic_rate=known(True) if moving else None)
        bench = Bench(caps=caps)
        self.noted: list[AccountEvent] = []
        account = msgspec.structs.replace(bench.account, rate=own)
        self.pace = Pace(account, clock=bench.clock, random=bench.random, note=self.noted.append)

    def learn(self, answers: Sequence[SubmitResult]) -> list[str]:
        return [self.pace.learn(self.pace.lane("1:1"), answer) for answer in answers]


def pacing(body: Callable[[Pacing], None], *, moving: bool = False, own: Rate | None = None) -> None:
    async def go() -> None:
        await trio.lowlevel.checkpoint()
        body(Pacing(moving=moving, own=own))

    run(go)


def test_a_rate_that_moves_with_our_use_grows_with_success_and_shrinks_when_turned_away() -> None:
    """Such a provider publishes no rate: steady traffic raises it, bursts are throttled."""

    def grows(at: Pacing) -> None:
        at.learn([IMAGE] * 40)
        assert 1.2 < at.pace.submits_per_second < 1.6
        at.learn([Throttled(1.0)])
        assert at.pace.submits_per_second < 1.1
        at.learn([IMAGE] * 100_000)
        assert at.pace.submits_per_second == 20.0

    pacing(grows, moving=True)


def test_a_rate_that_is_documented_or_set_stays() -> None:
    def stays(at: Pacing) -> None:
        at.learn([*[Accepted("j")] * 40, Throttled(1.0)])
        assert at.pace.submits_per_second == 1.0

    pacing(stays)
    pacing(stays, moving=True, own=START)


@pytest.mark.parametrize("reason", ["unauthorized", "no_credit", "forbidden"])
def test_what_concerns_the_account_says_why_it_should_be_parked(reason: RefusedReason) -> None:
    def parks(at: Pacing) -> None:
        assert at.learn([Refused(reason, "no"), Refused("invalid", "no"), IMAGE]) == [f"{reason}: no", "", ""]

    pacing(parks)


def test_a_lane_that_fails_opens_its_breaker_and_says_so_once() -> None:
    def opens(at: Pacing) -> None:
        at.learn([Unclear("what"), Accepted("j")] * 10)
        assert at.noted == []
        at.learn([NotSent("refused")] * 10)
        assert [event.state for event in at.noted if isinstance(event, BreakerChanged)] == ["open"]
        assert at.pace.room("1:1") == 0
        assert at.pace.seconds_until_room > 0

    pacing(opens)


def test_learned_limits_are_told_once_and_remembered() -> None:
    def learns(at: Pacing) -> None:
        at.learn([Accepted("j")] * 200)
        (saved,) = at.pace.changed_limits()
        assert saved == LimiterSaved(lane="1:1", concurrency=at.pace.lane("1:1").limit.value)
        assert at.pace.changed_limits() == []
        again = Pacing().pace
        again.restore([], {"1:1": saved.concurrency})
        assert again.lane("1:1").limit.value == saved.concurrency

    pacing(learns)
