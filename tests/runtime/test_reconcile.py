"""Laws of judging doubtful attempts by a listing (REC-4, REC-5)."""

from hypothesis import given
from hypothesis import strategies as st

from adapters.base import ListedJob, Pending
from runtime.reconcile import CannotTell, Doubt, Found, NotThere, judge
from runtime.work import WorkKey

_NOW = 10_000_000_000


def doubt(n: int, print_: str, *, ripe: bool = True, at_us: int = _NOW) -> Doubt:
    return Doubt(WorkKey(1, n), print_, at_us, ripe)


def job(name: str, print_: str | None, *, at_us: int = _NOW) -> ListedJob:
    return ListedJob(job=name, created_us=at_us, fingerprint=print_, outcome=Pending())


prints = st.sampled_from(["a", "b", "c"])
doubts_ = st.lists(st.tuples(prints, st.booleans()), max_size=6).map(
    lambda rows: [doubt(n, print_, ripe=ripe) for n, (print_, ripe) in enumerate(rows)]
)
jobs_ = st.lists(st.one_of(prints, st.none()), max_size=8).map(
    lambda rows: [job(f"j{n}", print_) for n, print_ in enumerate(rows)]
)


@given(doubts=doubts_, jobs=jobs_, bound=st.sets(st.integers(0, 7)), busy=st.sets(prints))
def test_one_job_binds_one_attempt_of_the_same_input(
    doubts: list[Doubt], jobs: list[ListedJob], bound: set[int], busy: set[str]
) -> None:
    """REC-5: never a bound job, never another input, never twice, never while a twin is being submitted."""
    taken = {f"j{n}" for n in bound}
    verdicts = judge(doubts, jobs, taken, busy)
    by_key = {each.key: each for each in doubts}
    shown = {each.job: each.fingerprint for each in jobs}
    found = [verdict for verdict in verdicts if isinstance(verdict, Found)]
    assert len({verdict.job for verdict in found}) == len(found)
    for verdict in found:
        assert verdict.job not in taken
        assert shown[verdict.job] == by_key[verdict.key].fingerprint
    assert not any(by_key[verdict.key].fingerprint in busy for verdict in verdicts)


@given(doubts=doubts_, jobs=jobs_)
def test_absent_is_only_said_when_nothing_could_fit(doubts: list[Doubt], jobs: list[ListedJob]) -> None:
    """REC-4: ripe, no free job of the input left, and no job whose input is hidden."""
    verdicts = judge(doubts, jobs, set(), set())
    found = {verdict.job for verdict in verdicts if isinstance(verdict, Found)}
    by_key = {each.key: each for each in doubts}
    for verdict in verdicts:
        if isinstance(verdict, NotThere):
            assert by_key[verdict.key].ripe
            assert all(each.fingerprint is not None for each in jobs)
            wanted = by_key[verdict.key].fingerprint
            assert all(each.job in found for each in jobs if each.fingerprint == wanted)


def test_an_unripe_attempt_is_adopted_but_never_absent() -> None:
    early = doubt(1, "a", ripe=False)
    assert judge([early], [job("x", "a")], set(), set()) == [Found(early.key, "x")]
    assert judge([early], [], set(), set()) == []


def test_a_hidden_input_forbids_absence() -> None:
    late = doubt(1, "a")
    assert judge([late], [job("x", None)], set(), set()) == [CannotTell(late.key, "several_fit")]
    assert judge([late], [job("x", None)], {"x"}, set()) == [NotThere(late.key)]


def test_a_job_of_long_before_the_intent_is_not_ours() -> None:
    late = doubt(1, "a", at_us=_NOW)
    assert judge([late], [job("x", "a", at_us=_NOW - 700_000_000)], set(), set()) == [NotThere(late.key)]


def test_equal_inputs_are_interchangeable_and_the_oldest_come_first() -> None:
    first, second = doubt(1, "a", at_us=_NOW), doubt(2, "a", at_us=_NOW + 5)
    jobs = [job("late", "a", at_us=_NOW + 9), job("early", "a", at_us=_NOW + 1)]
    assert judge([second, first], jobs, set(), set()) == [Found(first.key, "early"), Found(second.key, "late")]
