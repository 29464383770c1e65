"""The second opinion must be able to disagree."""

import hashlib
import json
from pathlib import Path

import pytest

from adapters.sandbox import picture
from scripts import check_bill
from scripts.check_bill import Job, Task, compare

CENT = 10_000


def job(n: int, prompt: str, *, charged: int = 6 * CENT, state: str = "succeeded") -> Job:
    digest = check_bill.request_digest(prompt, (), "1:1", "1K")
    return Job(
        n=n,
        job=f"job-{n}",
        provider="kie",
        digest=digest,
        prompt=prompt,
        aspect="1:1",
        resolution="1K",
        charged_microusd=charged,
        state=state,
    )


def task(name: str, prompt: str, status: str = "succeeded", *, wanted: int = 1, shared: bool = False) -> Task:
    return Task(name, status, check_bill.request_digest(prompt, (), "1:1", "1K"), "kie", wanted, shared)


def test_its_digest_is_that_of_the_bill() -> None:
    request = ('two "quoted" pöts', ("https://a.test/1.png", "https://a.test/2.png"), "16:9", "2K")
    assert check_bill.request_digest(*request) == picture.request_digest(*request).hex()


@pytest.mark.parametrize(
    "place", ["http://127.0.0.1:1/kie/uploads/{}.png", "https://x.test/v1/files/{}", "https://x.test/assets/{}", ""]
)
def test_a_local_file_counts_by_its_bytes_wherever_it_went(tmp_path: Path, place: str) -> None:
    (tmp_path / "a|b.png").write_bytes(b"picture")
    digest = hashlib.sha256(b"picture").hexdigest()
    sent = place.format(digest[:32]) or f"sha256:{digest}"
    url = "https://a.test/1.png"
    line = {"id": "t", "status": "succeeded", "provider": "kie", "version": 1, "shared_with": None, "prompt": "p"}
    line |= {"images": json.dumps([str(tmp_path / "a|b.png"), url]), "aspect_ratio": "1:1", "resolution": "1K"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(line))
    (wanted,) = check_bill.read_manifest(tmp_path / "manifest.jsonl")
    assert wanted.digest == picture.request_digest("p", (sent, url), "1:1", "1K").hex()


def test_everything_paid_once() -> None:
    verdict = compare([job(1, "a"), job(2, "b")], [task("a", "a"), task("b", "b"), task("c", "b", shared=True)])
    assert verdict.agrees
    assert (verdict.once, verdict.shared, verdict.charged_microusd) == (["a", "b"], 1, 12 * CENT)


def test_a_duplicate_is_named_with_its_dollars() -> None:
    verdict = compare([job(1, "a"), job(2, "a", charged=9 * CENT)], [task("a", "a")])
    assert not verdict.agrees
    assert [(each.id, each.jobs, each.microusd) for each in verdict.twice] == [("a", ("job-2",), 9 * CENT)]
    assert verdict.once == []


def test_jobs_that_cost_nothing_are_no_duplicates() -> None:
    bill = [job(1, "a", charged=0, state="failed"), job(2, "a"), job(3, "a", charged=0, state="running")]
    verdict = compare(bill, [task("a", "a")])
    assert verdict.agrees
    assert verdict.once == ["a"]
    assert verdict.running == ["job-3"]


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_what_is_charged_for_no_image_is_not_an_image_bought_twice(state: str) -> None:
    """As Google charges the prompt of an image that its filter blocks."""
    bill = [job(1, "a", charged=CENT, state=state), job(2, "a")]
    verdict = compare(bill, [task("a", "a")])
    assert verdict.agrees
    assert (verdict.once, verdict.charged_microusd, verdict.fruitless_microusd) == (["a"], 7 * CENT, CENT)
    assert "no image          1   $0.01 charged all the same" in "\n".join(check_bill.lines(verdict))
    assert compare(bill[:1], [task("a", "a")]).unpaid == ["a"]
    assert not compare(bill[:1], []).agrees


def test_a_job_that_nobody_wants() -> None:
    verdict = compare([job(1, "a"), job(2, "b", charged=0, state="failed")], [task("a", "a")])
    assert [found["job"] for found in verdict.nobody] == ["job-2"]
    assert not verdict.agrees


def test_an_image_that_nobody_charged_for() -> None:
    verdict = compare([], [task("a", "a"), task("b", "b", "held")])
    assert verdict.never == {"a": "succeeded", "b": "held"}
    assert verdict.unpaid == ["a"]
    assert not verdict.agrees


def test_a_task_without_an_image_need_not_be_charged() -> None:
    assert compare([], [task("a", "a", "held"), task("b", "b", "failed"), task("c", "c", "queued")]).agrees


def test_equal_tasks_are_charged_one_by_one() -> None:
    twins = [task("a", "a", "held"), task("a-2", "a")]
    assert compare([job(1, "a")], twins).agrees
    assert compare([job(1, "a"), job(2, "a")], twins).agrees
    assert not compare([job(1, "a"), job(2, "a"), job(3, "a")], twins).agrees


def test_a_second_version_was_wanted() -> None:
    assert compare([job(1, "a"), job(2, "a")], [task("a", "a", wanted=2)]).agrees


# --- the command ------------------------------------------------------------------------------------------


def write(folder: Path, jobs: list[Job], **columns: str) -> tuple[str, str]:
    manifest = {"id": "a", "status": "succeeded", "provider": "kie", "version": 1, "shared_with": None}
    manifest |= {"aspect_ratio": "1:1", "resolution": "1K"} | columns
    (folder / "bill.jsonl").write_text("".join(json.dumps(each) + "\n" for each in jobs))
    (folder / "manifest.jsonl").write_text(json.dumps(manifest) + "\n")
    return str(folder / "bill.jsonl"), str(folder / "manifest.jsonl")


@pytest.mark.parametrize(("times", "code"), [(0, 1), (1, 0), (2, 1)])
def test_it_ends_as_the_books_are(tmp_path: Path, capsys: pytest.CaptureFixture[str], times: int, code: int) -> None:
    files = write(tmp_path, [job(n, "a pot") for n in range(1, times + 1)], Prompt="a pot")
    assert check_bill.main(files) == code
    assert ("the books agree" in capsys.readouterr().out) is (code == 0)
    assert check_bill.main([*files, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["agrees"] is (code == 0)


@pytest.mark.parametrize(("times", "code"), [(1, 1), (2, 0), (3, 1)])
def test_a_batch_and_its_rerun_share_a_bill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], times: int, code: int
) -> None:
    """Each of them wants the same image once."""
    row = {"id": "t1", "status": "succeeded", "provider": "kie", "version": 1, "shared_with": None, "prompt": "p"}
    for batch in ("pots", "pots-2"):
        (tmp_path / batch).mkdir()
        (tmp_path / batch / "manifest.jsonl").write_text(json.dumps(row | {"aspect_ratio": "1:1", "resolution": "1K"}))
    (tmp_path / "bill").write_text("\n".join(json.dumps(job(n, "p")) for n in range(times)))
    manifests = [str(tmp_path / batch / "manifest.jsonl") for batch in ("pots", "pots-2")]
    assert check_bill.main([str(tmp_path / "bill"), *manifests]) == code
    said = capsys.readouterr().out
    assert ("pots-2/t1" in said) == (times == 1)
    assert ("pots/t1" in said) == (times == 3)


def test_it_asks_for_the_prompt_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write(tmp_path, [job(1, "a pot")], Title="a pot")
    assert check_bill.main(files) == 2
    assert "--map prompt=COLUMN" in capsys.readouterr().err
    assert check_bill.main([*files, "--map", "prompt=Title"]) == 0
