"""Laws of the limiter state machines: they never allow more than the provider does."""

from hypothesis import given
from hypothesis import strategies as st

from adapters.capabilities import Rate
from runtime.limits import AdaptiveLimit, Breaker, LatencyEstimate, TokenBucket

gaps = st.lists(st.floats(0.0, 3.0), max_size=80)


@given(gaps=gaps, count=st.integers(1, 6), per_s=st.floats(0.5, 5.0))
def test_no_window_holds_more_takes_than_the_rate(gaps: list[float], count: int, per_s: float) -> None:
    bucket = TokenBucket(Rate(count=count, per_s=per_s))
    now, taken = 0.0, list[float]()
    for gap in gaps:
        now += gap
        now += bucket.seconds_until_free(now)
        bucket.take(now)
        taken.append(now)
    for first in taken:
        assert sum(first <= moment < first + per_s - 1e-9 for moment in taken) <= count


@given(gaps=gaps)
def test_waiting_as_long_as_told_is_enough(gaps: list[float]) -> None:
    bucket = TokenBucket(Rate(count=2, per_s=1.0))
    now = 0.0
    for gap in gaps:
        now += gap
        wait_s = bucket.seconds_until_free(now)
        assert bucket.seconds_until_free(now + wait_s + 1e-9) == 0.0
        now += wait_s + 1e-9
        bucket.take(now)


def test_a_block_holds_until_its_end_and_never_shortens() -> None:
    bucket = TokenBucket(Rate(count=10, per_s=1.0))
    bucket.block(7.0)
    bucket.block(3.0)
    assert bucket.seconds_until_free(2.0) == 5.0
    assert bucket.seconds_until_free(7.0) == 0.0


def test_a_restored_window_counts_the_intents_of_before() -> None:
    bucket = TokenBucket(Rate(count=2, per_s=10.0))
    bucket.restore([1.0, 4.0, 11.0], now=100.0)  # the third is too old to count
    assert bucket.seconds_until_free(100.0) == 6.0


@given(news=st.lists(st.booleans(), max_size=200), start=st.integers(1, 50), most=st.integers(1, 60))
def test_the_limit_stays_between_one_and_the_most(news: list[bool], start: int, most: int) -> None:
    limit = AdaptiveLimit(start, most)
    for n, good in enumerate(news):
        if good:
            limit.succeeded()
        else:
            limit.throttled(n * 10.0)
        assert 1 <= limit.value <= most


def test_one_burst_of_429s_cuts_once() -> None:
    limit = AdaptiveLimit(30, 60)
    for moment in (0.0, 0.1, 4.9):
        limit.throttled(moment)
    assert limit.value == 20
    limit.throttled(5.0)
    assert limit.value == 13


def test_breaker_opens_probes_and_closes() -> None:
    breaker = Breaker(threshold=3, pause_s=5.0)
    for _ in range(3):
        assert breaker.seconds_until_open(0.0) == 0.0
        breaker.passed()
        breaker.failed(0.0)
    assert breaker.state == "open"
    assert breaker.seconds_until_open(1.0) == 4.0
    breaker.passed()  # after the pause
    assert breaker.seconds_until_open(6.0) == float("inf")  # one probe only
    breaker.failed(6.0)
    assert breaker.retry_at == 16.0  # twice as long
    breaker.passed()
    breaker.succeeded()
    assert breaker.seconds_until_open(16.0) == 0.0


def test_a_probe_that_was_not_sent_lets_the_next_one_go() -> None:
    breaker = Breaker(threshold=1)
    breaker.failed(0.0)
    breaker.passed()
    breaker.not_tried(9.0)
    assert breaker.seconds_until_open(9.0) == 0.0


def test_the_first_poll_settles_where_most_jobs_have_ended() -> None:
    latencies = [8.0 + (n * 7 % 20) / 10 for n in range(1200)]  # 8.0 .. 9.9 s
    for start in (1.0, 60.0):
        estimate = LatencyEstimate(start)
        for latency in latencies:
            age_s = estimate.delay_s(0)
            estimate.first_poll_found(age_s, done=latency <= age_s)
        assert 8.5 < estimate.seconds < 10.5
        assert estimate.delay_s(1) < estimate.delay_s(4) <= 30.0


def test_many_late_answers_at_once_do_not_compound() -> None:
    """Forty jobs scheduled by one estimate all turn out to be running: one piece of news, not forty."""
    estimate = LatencyEstimate(2.0)
    for _ in range(40):
        estimate.first_poll_found(2.0, done=False)
    assert estimate.seconds < 2.3
