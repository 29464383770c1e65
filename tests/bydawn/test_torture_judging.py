"""The judge of a torture must be able to condemn, and agrees with the script that knows nothing of bydawn."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from adapters.sandbox.base import Job
from adapters.sandbox.house import BillLine
from adapters.sandbox.picture import draw, request_digest
from bydawn.torture.judging import Cut, Terms, Verdict, Wanted, judge, read_manifest
from bydawn.torture.planning import Recovery, Round, Target
from scripts import check_bill

CENT = 10_000


def bought(n: int, prompt: str, *, charged: int = 6 * CENT) -> BillLine:
    digest = request_digest(prompt, (), "1:1", "1K").hex()
    state = "succeeded" if charged else "failed"
    return BillLine(n, f"job-{n}", "kie", "a", digest, prompt, "1:1", "1K", charged, state, 0)  # type: ignore[arg-type]


def task(prompt: str, status: str = "succeeded", **more: object) -> Wanted:
    digest = request_digest(prompt, (), "1:1", "1K").hex()
    return Wanted(id=prompt, status=status, digest=digest, **more)  # type: ignore[arg-type]


def verdict(
    tasks: list[Wanted],
    bill: list[BillLine],
    *cuts: Cut,
    recovery: Recovery = "none",
    terms: Terms | None = None,
    verified: bool = True,
) -> Verdict:
    played = Round("kie", (Target("kie", "async", recovery),), len(tasks), ())
    return judge(played, tasks, bill, cuts, terms=terms or Terms(), verified=verified)


def promises(found: Verdict) -> list[tuple[str, tuple[str, ...]]]:
    return [(each.promise, each.tasks) for each in found.broken]


def test_a_clean_book() -> None:
    cut = Cut(1, finished=frozenset({"a"}), open=frozenset({"c"}))
    found = verdict([task("a"), task("b"), task("c", "held")], [bought(1, "a"), bought(2, "b"), bought(3, "c")], cut)
    assert found.broken == ()
    assert (found.tasks, found.jobs, found.charged_microusd, found.held) == (3, 3, 18 * CENT, ("c",))


def test_a_planted_duplicate_is_found_with_its_dollars() -> None:
    found = verdict([task("a"), task("b")], [bought(1, "a"), bought(2, "b"), bought(3, "a", charged=9 * CENT)])
    assert promises(found) == [("nothing is paid twice", ("a",))]
    assert (found.twice, found.twice_microusd) == (("a",), 9 * CENT)


def test_jobs_without_a_charge_are_no_duplicates() -> None:
    assert verdict([task("a")], [bought(1, "a", charged=0), bought(2, "a")]).broken == ()


def test_twins_and_second_versions_are_wanted() -> None:
    bill = [bought(1, "a"), bought(2, "a")]
    assert verdict([task("a"), task("a")], bill).broken == ()
    assert verdict([task("a", versions=2)], bill).broken == ()
    assert verdict([task("a"), task("a", shared=True)], bill).twice == ("a",)


def test_what_was_paid_for_and_has_no_image_is_lost() -> None:
    assert promises(verdict([task("a", "failed")], [bought(1, "a")])) == [
        ("nothing that was paid for is lost", ("a",)),
    ]
    assert verdict([task("a", "failed")], [bought(1, "a", charged=0)]).broken == ()


def test_a_task_that_never_ends() -> None:
    found = verdict([task("a", "accepted")], [])
    assert promises(found) == [("every task ends", ("a",))]
    assert found.unfinished == ("a",)


def test_an_image_for_nothing_and_an_image_of_another() -> None:
    assert promises(verdict([task("a")], [])) == [("every image was paid for", ("a",))]
    assert promises(verdict([task("a", own=False)], [bought(1, "a")])) == [
        ("every image is the one that was asked for", ("a",)),
    ]


def test_a_job_that_nobody_wants() -> None:
    (broken,) = verdict([task("a")], [bought(1, "a"), bought(2, "b")]).broken
    assert (broken.promise, broken.detail) == ("every job on the bill belongs to a task", "job-2")


def test_a_finished_task_is_never_asked_for_again() -> None:
    """Even when the provider takes no money for it."""
    cut = Cut(1, finished=frozenset({"a"}))
    assert promises(verdict([task("a")], [bought(1, "a"), bought(2, "a", charged=0)], cut)) == [
        ("no finished task is asked for again", ("a",)),
    ]
    assert verdict([task("a")], [bought(1, "a", charged=0), bought(2, "a")], Cut(1)).broken == ()


def test_only_what_was_open_at_a_kill_may_be_held() -> None:
    cuts = (Cut(0, open=frozenset({"a"})), Cut(0, open=frozenset({"b"})))
    tasks = [task("a", "held"), task("b", "held")]
    assert verdict(tasks, [], *cuts).broken == ()
    assert promises(verdict(tasks, [], cuts[0])) == [("only what was open at a kill is held", ("b",))]
    assert verdict(tasks, [], terms=Terms(loses_answers=True)).broken == ()


@pytest.mark.parametrize("recovery", ["lookup", "listing"])
def test_nothing_is_held_where_everything_can_be_found(recovery: Recovery) -> None:
    cut = Cut(0, open=frozenset({"a"}))
    assert promises(verdict([task("a", "held")], [], cut, recovery=recovery)) == [
        ("where a purchase can be found again, nothing is held", ("a",)),
    ]


def test_a_spoiled_image_is_bought_again_openly_or_not_at_all() -> None:
    bill, storm = [bought(1, "a"), bought(2, "a")], Terms(spoils=True)
    assert verdict([task("a", cost_microusd=12 * CENT)], bill, terms=storm).broken == ()
    assert verdict([task("a", cost_microusd=6 * CENT)], bill, terms=storm).twice == ("a",)
    assert verdict([task("a", cost_microusd=12 * CENT)], bill).twice == ("a",)


def test_a_ledger_that_does_not_verify() -> None:
    assert [each.promise for each in verdict([task("a")], [bought(1, "a")], verified=False).broken] == [
        "verify finds nothing"
    ]


@settings(deadline=None)
@given(
    jobs=st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=8),
    statuses=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(("succeeded", "held", "queued"))), max_size=5),
)
def test_the_second_opinion_agrees(jobs: list[tuple[str, bool]], statuses: list[tuple[str, str]]) -> None:
    bill = [bought(n, prompt, charged=6 * CENT * paid) for n, (prompt, paid) in enumerate(jobs, 1)]
    tasks = [replace(task(prompt, status), id=f"t{n}") for n, (prompt, status) in enumerate(statuses)]
    found = verdict(tasks, bill)
    other = check_bill.compare(
        [
            check_bill.Job(
                n=line.n,
                job=line.job,
                provider=line.provider,
                digest=line.digest,
                prompt=line.prompt,
                aspect=line.aspect,
                resolution=line.resolution,
                charged_microusd=line.charged_microusd,
                state=line.state,
            )
            for line in bill
        ],
        [check_bill.Task(each.id, each.status, each.digest, "kie", each.versions, each.shared) for each in tasks],
    )
    said = {each.promise for each in found.broken}
    assert {each.id for each in other.twice} == set(found.twice)
    assert other.twice_microusd == found.twice_microusd
    assert bool(other.unpaid) == ("every image was paid for" in said)
    assert bool(other.nobody) == ("every job on the bill belongs to a task" in said)


# --- the manifest -----------------------------------------------------------------------------------------


def drawn(prompt: str) -> bytes:
    job = Job("j", "kie", "a", "m", "{}", prompt, (), "1:1", "1K", "png", 0, 0, 0, 0)
    return draw(job, short_side=64)


@pytest.mark.parametrize("columns", [{}, {"prompt": "Title"}, {"prompt": "A photo of {Title}"}])
def test_the_manifest_is_read_under_the_columns_of_the_input(tmp_path: Path, columns: dict[str, str]) -> None:
    (tmp_path / "own.png").write_bytes(drawn("a pot"))
    (tmp_path / "other.png").write_bytes(drawn("a pan"))
    (tmp_path / "none.png").write_bytes(b"no image")
    column = columns.get("prompt", "prompt") if "{" not in columns.get("prompt", "") else "prompt"
    common = {"status": "succeeded", "version": 1, "shared_with": None, "cost_microusd": 60_000, column: "a pot"}
    common |= {"aspect_ratio": "1:1", "resolution": "1K", "flags": []}
    files: list[tuple[str | None, list[str]]] = [
        ("own.png", []),
        ("other.png", []),
        ("none.png", []),
        ("gone.png", []),
        (None, []),
        ("other.png", ["blank"]),
    ]
    lines = [{**common, "id": f"t{n}", "file": file, "flags": flags} for n, (file, flags) in enumerate(files)]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_manifest(tmp_path, columns)
    assert [each.own for each in found] == [True, False, False, False, True, True]
    assert {each.digest for each in found} == {request_digest("a pot", (), "1:1", "1K").hex()}
    assert found[0] == Wanted("t0", "succeeded", found[0].digest, cost_microusd=60_000)


def test_references_count_by_their_content(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    url = "https://x.test/1.png"
    line = {"id": "t", "status": "held", "provider": "kie", "version": 1, "shared_with": None, "cost_microusd": 0}
    line |= {"file": None, "flags": [], "prompt": "p", "aspect_ratio": "1:1", "resolution": "1K"}
    for cell in (json.dumps([str(tmp_path / "a.png"), url]), f"{tmp_path / 'a.png'}|{url}"):
        (tmp_path / "manifest.jsonl").write_text(json.dumps(line | {"images": cell}))
        (found,) = read_manifest(tmp_path, {})
        (other,) = check_bill.read_manifest(tmp_path / "manifest.jsonl")
        assert found.digest == other.digest
