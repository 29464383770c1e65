"""A file that was intended is found by its name, or proven absent by two complete lists; nothing else counts (W16)."""

import logging
from collections.abc import Callable
from email.utils import formatdate

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import HttpCall, HttpReply
from adapters.batchfile import BatchPage, line_job
from ledger.commands import Intend, Record
from ledger.events import AttemptAmbiguous
from runtime.batchevidence import BatchEvidence, attempt_of_key, line_key
from runtime.evidence import Looked
from runtime.ports import WireError
from runtime.reconcile import CannotTell, Found, NotThere
from runtime.work import Work, WorkKey
from tests.runtime.batches import key_of, page
from tests.runtime.fakes import run
from tests.runtime.test_batchpoller import FileBench

DAY_S = 86_400.0


def evidence(bench: FileBench) -> BatchEvidence:
    return BatchEvidence(bench.account, bench.files_of, query=bench.provider.send, clock=bench.clock)


async def doubtful(bench: FileBench, n: int, file: str = "f1") -> Work:
    work = bench.work(n)
    await bench.log.record(work, Intend("fake", "fake", "m", "only", 40_000, "d", 0, file=file))
    await bench.log.record(work, Record(AttemptAmbiguous(attempt=1, reason="no_reply")))
    return work


def looks(bench: FileBench, *pauses: float, files: tuple[str, ...] = ("f1", "f1"), ripe: bool = True) -> list[Looked]:
    """Look once after each pause, at a line of each file."""
    found: list[Looked] = []

    async def go() -> None:
        works = {WorkKey(1, n): await doubtful(bench, n, file) for n, file in enumerate(files, 1)}
        asked = evidence(bench)
        for pause_s in pauses:
            await trio.sleep(pause_s)
            found.append(await asked.look(works, works if ripe else ()))

    run(go)
    return found


def job(batch: str, n: int) -> str:
    return line_job(batch, key_of(n))


def test_a_file_that_was_missed_and_found_is_not_waited_for() -> None:
    """Its second look was past, and the account's list was read without a pause while anything else was in doubt."""
    bench = FileBench()
    bench.provider.say("batches", page(), page(("b1", "f1", 1)), page())

    async def go() -> None:
        one, other = await doubtful(bench, 1), await doubtful(bench, 2, "f2")
        works, asked = {one.key: one}, evidence(bench)
        await asked.look(works, works)
        assert asked.next_look() < float("inf")
        assert [type(verdict) for verdict in (await asked.look(works, works)).verdicts] == [Found]
        assert asked.next_look() == float("inf")
        await asked.look({other.key: other}, {other.key})
        await asked.look({}, ())
        assert asked.next_look() == float("inf")

    run(go)


def test_all_lines_of_a_file_are_found_by_its_name() -> None:
    bench = FileBench()
    bench.provider.say("batches", page(("b0", "f0", 1), ("b1", "f1", 2), ("b2", "", 3)))
    (looked,) = looks(bench, 0.0, ripe=False)
    assert looked == Looked([Found(WorkKey(1, 1), job("b1", 1)), Found(WorkKey(1, 2), job("b1", 2))])


def test_every_page_is_read() -> None:
    bench = FileBench()
    bench.provider.say("batches", page(("b0", "f0", 1), cursor="next"), page(("b1", "f1", 2)))
    (looked,) = looks(bench, 0.0)
    assert [type(verdict) for verdict in looked.verdicts] == [Found, Found]
    assert bench.provider.calls == ["batches/", "batches/next"]


def test_one_list_without_it_proves_nothing() -> None:
    bench = FileBench()
    bench.provider.say("batches", page(), page(), page(("b1", "f1", 9)))
    first, soon, late = looks(bench, 0.0, 0.5, 10.0)
    assert (first.verdicts, soon.verdicts) == ([], [])
    assert [type(verdict) for verdict in late.verdicts] == [Found, Found]


def test_two_lists_without_it_prove_that_none_of_its_lines_was_bought() -> None:
    """REC-4."""
    bench = FileBench()
    bench.provider.say("batches", page(("b0", "f0", 1)))
    first, second = looks(bench, 0.0, 1.1)
    assert first.verdicts == []
    assert second.verdicts == [NotThere(WorkKey(1, 1)), NotThere(WorkKey(1, 2))]


def test_before_the_quarantine_is_over_no_list_proves_absence() -> None:
    bench = FileBench()
    bench.provider.say("batches", page())
    assert [looked.verdicts for looked in looks(bench, 0.0, 2.0, 2.0, ripe=False)] == [[], [], []]


def test_the_next_look_is_when_the_second_list_may_count() -> None:
    bench = FileBench()
    bench.provider.say("batches", page())
    times: list[float] = []

    async def go() -> None:
        asked = evidence(bench)
        times.append(asked.next_look())
        work = await doubtful(bench, 1)
        await asked.look({WorkKey(1, 1): work}, [WorkKey(1, 1)])
        times.append(asked.next_look() - bench.clock.monotonic())

    run(go)
    assert times == [float("inf"), pytest.approx(1.0)]


@pytest.mark.parametrize("answer", [WireError("no", sent=True), page(("b", "f0", 1), cursor="again")])
def test_a_list_that_is_not_whole_is_trouble(answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.batchevidence._PAGES_AT_MOST", 3)
    bench = FileBench()
    bench.provider.say("batches", answer)
    (looked,) = looks(bench, 0.0)
    assert looked.trouble
    assert looked.verdicts == []
    assert looked.unanswered == {WorkKey(1, 1), WorkKey(1, 2)}


def test_clocks_that_disagree_are_trouble() -> None:
    """REC-8: how old the attempt is decides whether the list reaches back to it."""
    bench = FileBench()
    bench.provider.say("batches", page())
    send = bench.provider.send

    async def with_date(call: HttpCall, on_sent: Callable[[], None] | None = None) -> HttpReply:
        reply = await send(call, on_sent)
        date = formatdate(bench.clock.now_us() / 1e6 + 900, usegmt=True)
        return HttpReply(reply.status, {"date": date}, reply.body)

    bench.provider.send = with_date  # type: ignore[method-assign]  # the test's own fake
    (looked,) = looks(bench, 0.0)
    assert "apart" in looked.trouble


def test_an_attempt_older_than_the_list_reaches_can_only_be_found() -> None:
    bench = FileBench()
    bench.provider.say("batches", page(("b1", "f1", 1)))
    found: list[Looked] = []

    async def go() -> None:
        works = {WorkKey(1, n): await doubtful(bench, n, file) for n, file in enumerate(("f1", "f2", ""), 1)}
        bench.clock.jump(2 * DAY_S)
        found.append(await evidence(bench).look(works, works))

    run(go)
    assert found[0].verdicts == [
        Found(WorkKey(1, 1), job("b1", 1)),
        CannotTell(WorkKey(1, 2), "no_evidence"),
        CannotTell(WorkKey(1, 3), "no_evidence"),
    ]


def test_two_batches_of_one_name_are_one_purchase_and_a_surplus(caplog: pytest.LogCaptureFixture) -> None:
    """REC-5, MON-7: the older one is ours; the other is told, once, and nothing is bought for it."""
    bench = FileBench()
    bench.provider.say("batches", page(("b2", "f1", 9), ("b1", "f1", 2)))
    with caplog.at_level(logging.ERROR):
        first, _ = looks(bench, 0.0, 1.0)
    assert [verdict.job for verdict in first.verdicts if isinstance(verdict, Found)] == [job("b1", 1), job("b1", 2)]
    (said,) = [record.message for record in caplog.records]
    assert "b2" in said
    assert "b1" not in said


def test_the_key_of_a_line_is_the_attempts_own() -> None:
    bench = FileBench()
    keys = {line_key(bench.work(n), number): f"1-{n}-{number}" for n in (1, 11) for number in (1, 11)}
    assert len(keys) == 4
    assert all(attempt_of_key(key) == attempt_of_key(begins) == begins for key, begins in keys.items())


def test_the_key_of_a_line_tells_the_tasks_of_two_copies_apart() -> None:
    """REC-5: where both imported more, the same number names different tasks; only copies of one share its salt."""
    task, copy, other = FileBench().work(1), FileBench().work(1), FileBench().work(1)
    other.salt = b"another import's"
    assert line_key(task, 1) == line_key(copy, 1) == key_of(1)
    assert line_key(other, 1) != key_of(1)
    assert attempt_of_key(line_key(other, 1)) == attempt_of_key(key_of(1))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["f1", "f2", ""])), max_size=6), st.booleans())
def test_only_the_name_adopts(batches: list[tuple[str, str]], ripe: bool) -> None:
    bench = FileBench()
    listed: BatchPage = page(*((batch, name, at) for at, (batch, name) in enumerate(dict(batches).items())))
    bench.provider.say("batches", listed)
    names = {each.name: each.batch for each in reversed(listed.batches)}
    for looked in looks(bench, 0.0, 5.0, files=("f1", "f2", "f3"), ripe=ripe):
        found = {verdict.key.n: verdict.job for verdict in looked.verdicts if isinstance(verdict, Found)}
        absent = {verdict.key.n for verdict in looked.verdicts if isinstance(verdict, NotThere)}
        assert found == {n: job(names[f"f{n}"], n) for n in (1, 2, 3) if f"f{n}" in names}
        assert not absent & found.keys()
        assert ripe or not absent
