"""When a batch file is closed, and with how many lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.decisions import Count, Exceeded, Guard, Reserve
from runtime.gateway import Submission
from runtime.gathering import QUIET_S, Gathering
from runtime.lanes import Lane
from runtime.limits import AdaptiveLimit, Breaker
from tests.runtime.batches import FILE_CAPS, LINES, FileProvider
from tests.runtime.fakes import Bench, nothing

LIMITS = FILE_CAPS.batch_file


def gathering(*, budget: int = 1_000_000) -> Gathering:
    assert LIMITS is not None
    return Gathering(LIMITS.value, FileProvider(budget=budget))


def lane(count: int, *guards: Guard, limit: int = 100, prompt: str = "12345", ceiling: int = 40) -> Lane:
    bench = Bench()
    made = Lane("m", AdaptiveLimit(limit, limit), Breaker())
    for n in range(1, count + 1):
        work = bench.work(n, prompt=prompt)
        made.queue.append(Submission(work, bench.account, "m", "only", ceiling, lambda at_us: guards, nothing))
    return made


def ask(
    gathered: Gathering, found: Lane, now: float = 0.0, *, open_batches: int = 0, tokens: int = 0
) -> tuple[Lane, int] | float:
    return gathered.next_file([found], now, open_batches=open_batches, waiting_tokens=lambda name: tokens)


def test_a_full_file_is_closed_at_once() -> None:
    found = lane(LINES + 1)
    assert ask(gathering(), found) == (found, LINES)


def test_a_file_that_is_not_full_waits_for_more_and_then_closes() -> None:
    gathered, found = gathering(), lane(2)
    assert ask(gathered, found) == QUIET_S
    found.queue.append(found.queue[0])
    assert ask(gathered, found, QUIET_S) == QUIET_S  # one more came: the moment begins anew
    assert ask(gathered, found, 1.5 * QUIET_S) == pytest.approx(0.5 * QUIET_S)
    assert ask(gathered, found, 2 * QUIET_S) == (found, 3)


def test_an_empty_lane_waits_for_news() -> None:
    assert ask(gathering(), lane(0)) == float("inf")


def test_no_more_batches_than_the_provider_has_room_for() -> None:
    assert ask(gathering(), lane(9), open_batches=3) == float("inf")


def test_no_more_lines_than_the_lane_may_have_in_flight() -> None:
    found = lane(9, limit=3)
    found.in_flight = 1
    assert ask(gathering(), found) == (found, 2)
    found.in_flight = 3
    assert ask(gathering(), found) == float("inf")


def test_a_lane_that_failed_waits_and_is_probed_with_one_line() -> None:
    gathered, found = gathering(), lane(9)
    for _ in range(5):
        found.breaker.failed(0.0)
    assert ask(gathered, found) == 5.0
    assert ask(gathered, found, 5.0) == (found, 1)


def test_the_money_at_risk_bounds_a_file() -> None:
    """MON-3: a file is in doubt as a whole."""
    found = lane(9, Reserve("risk/1", 99), Reserve("batch/1", 5))
    assert ask(gathering(), found) == (found, 2)
    dear = lane(9, Reserve("risk/1", 39))
    assert ask(gathering(), dear) == (dear, 1)  # and the guard will say so


def test_tokens_that_wait_bound_a_file() -> None:
    found = lane(9)
    assert ask(gathering(budget=14), found) == (found, 2)
    assert ask(gathering(budget=34), found, tokens=20) == (found, 2)
    assert ask(gathering(budget=29), found, tokens=20) == float("inf")  # a remnant would make a tiny file
    assert ask(gathering(budget=3), found) == (found, 1)  # the provider says what it thinks of it


def test_a_guard_that_refused_makes_the_next_file_smaller_once() -> None:
    gathered, found = gathering(), lane(9)
    lines = list(found.queue)[:LINES]
    assert gathered.too_large(found, lines, Exceeded(Reserve("batch/1", 100), 180))  # 4 × 40 + 20 that were there
    assert ask(gathered, found) == (found, 2)
    assert ask(gathered, found) == (found, LINES)
    assert gathered.too_large(found, lines, Exceeded(Count("lane/m", 10), 11))
    assert ask(gathered, found) == (found, 3)
    assert not gathered.too_large(found, lines[:1], Exceeded(Reserve("batch/1", 100), 101))
    assert ask(gathered, found) == (found, LINES)


def test_there_is_room_for_a_file_and_the_next_one() -> None:
    assert gathering().room(lane(0), 0.0) == 2 * LINES
    assert gathering().room(lane(7), 0.0) == 1
    assert gathering().room(lane(0, limit=3), 0.0) == 3
    assert gathering().room(lane(20), 0.0) == 0


@given(st.integers(0, 30), st.integers(1, 40), st.integers(0, 40), st.integers(1, 200), st.integers(0, 200))
def test_what_is_closed_is_there_and_within_every_limit(
    waiting: int, limit: int, in_flight: int, budget: int, tokens: int
) -> None:
    gathered, found = gathering(budget=budget), lane(waiting, Reserve("risk/1", 120), limit=limit)
    found.in_flight = in_flight
    for now in (0.0, QUIET_S):
        closed = ask(gathered, found, now, tokens=tokens)
        if isinstance(closed, tuple):
            size = closed[1]
            assert 1 <= size <= min(waiting, LINES, 3, limit - in_flight)
            assert size * 5 + tokens <= budget or (size == 1 and not tokens)
