"""The judge of a torture must be able to condemn, and agrees with the script that knows nothing of bydawn."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from adapters.sandbox.base import Job, JobState
from adapters.sandbox.house import BillLine
from adapters.sandbox.picture import draw, request_digest
from bydawn.torture.judging import Again, Cut, Terms, Verdict, Wanted, judge, read_manifest
from bydawn.torture.planning import Recovery, Round, Target
from scripts import check_bill

CENT = 10_000


def bought(
    n: int,
    prompt: str,
    *,
    charged: int = 6 * CENT,
    state: JobState | None = None,
    provider: str = "kie",
    called: bool = False,
) -> BillLine:
    digest = request_digest(prompt, (), "1:1", "1K").hex()
    state = state or ("succeeded" if charged else "failed")
    return BillLine(n, f"job-{n}", provider, "a", digest, prompt, "1:1", "1K", charged, state, 0, called)


def task(prompt: str, status: str = "succeeded", **more: object) -> Wanted:
    digest = request_digest(prompt, (), "1:1", "1K").hex()
    return Wanted(**{"id": prompt, "status": status, "digest": digest, "provider": "kie", **more})  # type: ignore[arg-type]


def verdict(
    tasks: list[Wanted],
    bill: list[BillLine],
    *cuts: Cut,
    recovery: Recovery = "none",
    others: tuple[Target, ...] = (),
    terms: Terms | None = None,
    verified: bool = True,
    again: Again | None = None,
) -> Verdict:
    played = Round("kie", (Target("kie", "async", recovery), *others), len(tasks), ())
    return judge(played, tasks, bill, cuts, terms=terms or Terms(), verified=verified, again=again)


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


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_what_is_charged_for_no_image_is_not_an_image_paid_twice_or_lost(state: JobState) -> None:
    fruitless = bought(1, "a", charged=CENT, state=state)
    found = verdict([task("a")], [fruitless, bought(2, "a")])
    assert found.broken == ()
    assert (found.charged_microusd, found.fruitless_microusd) == (7 * CENT, CENT)
    assert verdict([task("a", "failed")], [fruitless]).broken == ()
    assert promises(verdict([task("a")], [fruitless])) == [("every image was paid for", ("a",))]


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


def test_an_image_that_is_not_on_the_disk_as_it_was_recorded() -> None:
    """RES-1: judged from the bytes, not from the ledger's word."""
    assert promises(verdict([task("a", whole=False)], [bought(1, "a")])) == [
        ("every image is on the disk as it was recorded", ("a",)),
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
    """MON-6, LIVE-1: and so there are never more held tasks than submits that were open at the kills."""
    cuts = (Cut(0, open=frozenset({"a"})), Cut(0, open=frozenset({"b"})))
    tasks = [task("a", "held"), task("b", "held")]
    assert verdict(tasks, [], *cuts).broken == ()
    assert promises(verdict(tasks, [], cuts[0])) == [("only what was open at a kill is held", ("b",))]
    assert verdict(tasks, [], terms=Terms(loses_answers=True)).broken == ()


FINDABLE = "where a purchase can be found again, nothing is held"
OPEN = Cut(0, open=frozenset({"a"}))


@pytest.mark.parametrize("recovery", ["lookup", "listing"])
def test_nothing_is_held_where_everything_can_be_found(recovery: Recovery) -> None:
    """REC-4, REC-5."""
    assert promises(verdict([task("a", "held")], [], OPEN, recovery=recovery)) == [(FINDABLE, ("a",))]


def test_where_all_buy_together_each_provider_keeps_its_own_promise() -> None:
    replicate = (Target("replicate", "async", "listing"),)
    held = [task("a", "held", provider="replicate")]
    assert promises(verdict(held, [], OPEN, others=replicate)) == [(FINDABLE, ("a",))]
    assert verdict([task("a", "held")], [], OPEN, others=replicate).broken == ()
    # A manifest that does not tell who has the task excuses nothing.
    assert promises(verdict([task("a", "held", provider="")], [], OPEN)) == [(FINDABLE, ("a",))]


def test_a_list_without_inputs_tells_of_absence_while_it_shows_no_job_that_nobody_called_about() -> None:
    """REC-4: such a job may be that of any task in doubt."""
    both = Cut(0, open=frozenset({"a", "b"}))
    tasks = [task("a", "held"), task("b", "held")]
    assert promises(verdict(tasks, [], both, recovery="absence")) == [(FINDABLE, ("a", "b"))]
    assert verdict(tasks, [bought(1, "a")], both, recovery="absence").broken == ()


def test_a_provider_that_has_called_leaves_no_doubt() -> None:
    """REC-7: the call came, so the job can be read."""
    tasks = [task("a", "held")]
    found = verdict(tasks, [bought(1, "a", called=True)], OPEN, recovery="callback")
    assert promises(found) == [("nothing is held that its provider has called about", ("a",))]
    assert found.held_billed == 1
    assert verdict(tasks, [bought(1, "a")], OPEN, recovery="callback").broken == ()
    # It called about another attempt: one without an image, or that of a twin.
    failed = bought(1, "a", charged=CENT, state="failed", called=True)
    assert verdict(tasks, [failed], OPEN, recovery="callback").broken == ()
    twins = [task("a", "held"), task("a")]
    assert verdict(twins, [bought(1, "a", called=True)], OPEN, recovery="callback").broken == ()


# --- where buying again is allowed --------------------------------------------------------------------------


def test_a_duplicate_within_the_budget_is_what_was_asked_for() -> None:
    """MON-4."""
    again = Again(6 * CENT, purchases=1, cost_microusd=6 * CENT, ceiling_microusd=6 * CENT)
    found = verdict([task("a")], [bought(1, "a"), bought(2, "a")], OPEN, again=again)
    assert found.broken == ()
    assert (found.twice, found.twice_microusd, found.again) == (("a",), 6 * CENT, again)


def test_duplicates_beyond_the_budget_are_found_on_the_bill_whatever_the_ledger_says() -> None:
    """MON-4."""
    again = Again(5 * CENT, purchases=1, cost_microusd=0)
    (broken,) = verdict([task("a")], [bought(1, "a"), bought(2, "a")], OPEN, again=again).broken
    assert (broken.promise, broken.tasks) == ("what is bought again stays within its budget", ("a",))
    assert broken.detail == "60000 of 50000 microusd"


def test_a_ledger_that_spent_more_than_the_budget() -> None:
    """MON-4: also when the bill shows none of it."""
    again = Again(5 * CENT, purchases=1, cost_microusd=6 * CENT)
    (broken,) = verdict([task("a")], [bought(1, "a")], OPEN, again=again).broken
    assert broken.promise == "what is bought again stays within its budget"


def test_nothing_is_bought_again_that_was_not_in_doubt() -> None:
    """MON-2: a budget for duplicates is no leave to make them."""
    bill = [bought(1, "a"), bought(2, "a")]
    assert promises(verdict([task("a")], bill, Cut(0), again=Again(9 * CENT))) == [
        ("only what was open at a kill is bought again", ("a",)),
    ]
    assert verdict([task("a")], bill, again=Again(9 * CENT), terms=Terms(loses_answers=True)).broken == ()


def test_nothing_is_held_while_there_is_room_in_the_budget() -> None:
    tasks = [task("a", "held")]
    room = Again(12 * CENT, ceiling_microusd=6 * CENT, waiting={"a": 6 * CENT})
    assert promises(verdict(tasks, [], OPEN, again=room)) == [
        ("only what finds no room in the budget is held", ("a",)),
    ]
    assert verdict(tasks, [], OPEN, again=replace(room, ceiling_microusd=7 * CENT)).broken == ()


def test_a_doubtful_purchase_beside_one_that_failed_is_shown_and_not_lost() -> None:
    """MON-10: nobody knows of the first that it was paid for, and its ceiling stays on a line of its own."""
    bill = [bought(1, "a"), bought(2, "a", charged=0)]
    shown = Again(6 * CENT, purchases=1, unknown={"a": 1})
    assert verdict([task("a", "failed")], bill, OPEN, again=shown).broken == ()
    assert promises(verdict([task("a", "failed")], bill, OPEN, again=replace(shown, unknown={}))) == [
        ("nothing that was paid for is lost", ("a",)),
    ]
    more = [*bill, bought(3, "a")]
    assert verdict([task("a", "failed")], more, OPEN, again=shown).lost == ("a",)


def test_what_is_queued_once_more_and_finds_no_room_waits_like_what_is_held() -> None:
    """LIVE-1: it was refused when it was bought again, by a provider that was busy."""
    queued = [task("a", "queued")]
    full = Again(6 * CENT, ceiling_microusd=6 * CENT, waiting={"a": 6 * CENT})
    found = verdict(queued, [], OPEN, again=full)
    assert (found.broken, found.held, found.unfinished) == ((), ("a",), ())
    assert promises(verdict(queued, [], Cut(0), again=full)) == [("only what was open at a kill is held", ("a",))]
    assert promises(verdict(queued, [], OPEN, again=replace(full, allowed_microusd=12 * CENT))) == [
        ("only what finds no room in the budget is held", ("a",)),
    ]
    assert promises(verdict(queued, [], OPEN, again=replace(full, waiting={}))) == [("every task ends", ("a",))]


def test_a_spoiled_image_is_bought_again_openly_or_not_at_all() -> None:
    bill, storm = [bought(1, "a"), bought(2, "a")], Terms(spoils=True)
    assert verdict([task("a", cost_microusd=12 * CENT)], bill, terms=storm).broken == ()
    assert verdict([task("a", cost_microusd=6 * CENT)], bill, terms=storm).twice == ("a",)
    assert verdict([task("a", cost_microusd=12 * CENT)], bill).twice == ("a",)


def test_a_ledger_that_does_not_verify() -> None:
    assert [each.promise for each in verdict([task("a")], [bought(1, "a")], verified=False).broken] == [
        "verify finds nothing"
    ]


STATES: st.SearchStrategy[JobState] = st.sampled_from(("succeeded", "failed", "cancelled"))


@settings(deadline=None)
@given(
    jobs=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from((0, 1)), STATES), max_size=8),
    statuses=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(("succeeded", "held", "queued"))), max_size=5),
)
def test_the_second_opinion_agrees(jobs: list[tuple[str, int, JobState]], statuses: list[tuple[str, str]]) -> None:
    bill = [bought(n, prompt, charged=6 * CENT * paid, state=state) for n, (prompt, paid, state) in enumerate(jobs, 1)]
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
    assert other.fruitless_microusd == found.fruitless_microusd
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
    common: dict[str, object] = {
        "status": "succeeded",
        "provider": "kie",
        "version": 1,
        "shared_with": None,
        "cost_microusd": 60_000,
        column: "a pot",
    }
    common |= {"aspect_ratio": "1:1", "resolution": "1K", "flags": []}
    files: list[tuple[str | None, list[str]]] = [
        ("own.png", []),
        ("other.png", []),
        ("none.png", []),
        ("gone.png", []),
        (None, []),
        ("other.png", ["blank"]),
        ("own.png", []),
    ]
    lines = [{**common, "id": f"t{n}", "file": file, "flags": flags} for n, (file, flags) in enumerate(files)]
    for line in lines[:-1]:  # the last one was changed since
        file = tmp_path / str(line["file"])
        line["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "00"
    lines[-1]["sha256"] = hashlib.sha256(b"what was recorded").hexdigest()
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_manifest(tmp_path, columns)
    assert [each.own for each in found] == [True, False, False, True, True, True, True]
    assert [each.whole for each in found] == [True, True, True, False, False, True, False]
    assert {each.digest for each in found} == {request_digest("a pot", (), "1:1", "1K").hex()}
    assert found[0] == Wanted("t0", "succeeded", found[0].digest, "kie", cost_microusd=60_000)


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
