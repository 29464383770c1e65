"""A past batch as the input of another one, and what its rerun is told to differ in."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from adapters.base import Secret
from adapters.prices import DEFAULT_BOOK
from adapters.registry import codec
from bydawn.differences import (
    Differences,
    PriceChange,
    Version,
    difference_lines,
    differences,
    version_lines,
    versions_of,
)
from bydawn.importing import append_batch
from bydawn.inputs import InputOptions, open_input
from bydawn.inputs.past import PastBatch
from ledger.events import BatchOpened, TaskQueued
from ledger.imports import NewTask
from ledger.journal import Ledger
from ledger.past import Bought, bought, followers, past_tasks
from ledger.reader import Reader
from runtime.accounts import Account
from runtime.planning import Group, plan
from tests.bydawn.a_night import START_US, tell
from tests.bydawn.tables import CODECS

ROWS: Sequence[dict[str, str]] = (
    {"id": "a", "prompt": "A red pot", "seed": "7", "output_format": "png", "grounding": "true", "Shelf": "1"},
    {"id": "b", "prompt": "A blue pot", "version": "a" * 64, "group": "g", "n": "2"},
    {"id": "c", "prompt": "A red pot", "seed": "7", "output_format": "png", "grounding": "true"},
    {"id": "d", "prompt": "Ein Töpfchen 陶壶", "images": "https://ref.example/pot.png?sig=1|https://ref.example/b"},
    {"id": "e", "prompt": "A green pot", "provider": "kie", "aspect_ratio": "16:9"},
)
ALL = {name: codec(name) for name in ("kie", "replicate", "segmind", "google")}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.create_or_open(tmp_path / "bydawn.db", create=True, mounts=lambda: "") as opened:
        opened.start_epoch(machine="m", pid=1, app_version="0", operator="o", command="run", at_us=1)
        yield opened


def bring_in(
    ledger: Ledger, batch: int, tasks: Sequence[NewTask], *, share: bool = True, digest: str = "d", rerun_of: int = 0
) -> None:
    if not ledger.batch(batch).version:
        folder = str(ledger.path.parent / f"b{batch}")
        opened = BatchOpened(name=f"b{batch}", folder=folder, sandbox=True, operator="o", rerun_of=rerun_of)
        append_batch(ledger, batch, opened)
    assert ledger.stage(batch, tasks, input_digest=digest).duplicates_count == 0
    ledger.import_staged(batch, source="s", input_digest=digest, at_us=2, share=share)


def of_table(folder: Path, rows: Sequence[dict[str, str]], options: InputOptions = InputOptions()) -> list[NewTask]:  # noqa: B008 - frozen
    path = folder / "table.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with open_input(str(path), options) as file:
        checked = file.check(ALL)
        assert not checked.problems
        return list(file.tasks())


def again(ledger: Ledger, batch: int = 1) -> list[NewTask]:
    past = PastBatch(ledger.path, batch)
    assert not past.check(ALL).problems
    return list(past.tasks())


def same(tasks: Sequence[NewTask]) -> list[NewTask]:
    """With the ids whole: that one of them was given by a table is not on record."""
    return [msgspec.structs.replace(each, row=each.row + each.suffix, suffix="", given=True) for each in tasks]


@pytest.mark.parametrize(
    "options", [InputOptions(), InputOptions(aspects=("1:1", "4:3"), resolutions=("1K",), variants=2)]
)
def test_everything_that_was_asked_for_is_asked_for_again(ledger: Ledger, options: InputOptions) -> None:
    """Byte for byte, and again from the batch that was made so."""
    tasks = of_table(ledger.path.parent, ROWS, options)
    bring_in(ledger, 1, tasks)
    first = again(ledger)
    assert same(first) == same(tasks)
    assert [each.row for each in first] == [each.row for each in tasks]
    bring_in(ledger, 2, first, rerun_of=1)
    assert again(ledger, 2) == first
    with Reader(ledger.path) as reader:
        assert reader.batch(2).rerun_of == 1
        owners = [[each.queued.owner for each in past_tasks(reader, batch, page=2)] for batch in (1, 2)]
    assert owners[0] == owners[1]
    assert any(owners[0])


def test_ids_that_were_made_of_the_content_stay_what_they_are(ledger: Ledger) -> None:
    rows = [{"prompt": "a pot"}, {"prompt": "a pot"}, {"prompt": "a jug"}]
    bring_in(ledger, 1, of_table(ledger.path.parent, rows), share=False)
    past = PastBatch(ledger.path, 1)
    assert (past.share, past.check(CODECS).groups[0].images) == (False, 3)  # each was bought, so each is
    assert PastBatch(ledger.path, 1, share=True).check(CODECS).groups[0].images == 2
    bring_in(ledger, 2, again(ledger), share=past.share)
    with Reader(ledger.path) as reader:
        ids = [[each.queued.id for each in past_tasks(reader, batch)] for batch in (1, 2)]
        assert followers(reader, 2) == 0
    assert ids[0] == ids[1]
    assert ids[0][1] == ids[0][0] + "-2"


def test_a_dropped_import_and_the_numbers_it_used_up_do_not_count(ledger: Ledger) -> None:
    """LED-11: what was never sealed was never asked for."""
    folder = ledger.path.parent
    bring_in(ledger, 1, of_table(folder, ROWS[:2]))
    ledger.stage(1, of_table(folder, [{"id": "lost", "prompt": "a lost pot"}]), input_digest="half")

    def killed(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ledger.import_staged(1, source="s", input_digest="half", at_us=2, share=True, progress=killed)
    assert [each.row for each in again(ledger)] == ["a", "b", "b"]
    bring_in(ledger, 1, of_table(folder, ROWS[:4]), digest="other")
    assert [each.row for each in again(ledger)] == ["a", "b", "b", "c", "d"]


def test_what_nobody_takes_any_more_is_named_by_its_id(ledger: Ledger) -> None:
    bring_in(ledger, 1, of_table(ledger.path.parent, ROWS))
    past = PastBatch(ledger.path, 1)
    rejected = ledger.path.parent / "b2" / "rejected.csv"
    checked = past.check({"segmind": codec("segmind")}, rejected=rejected)
    found = {problem.value: (problem.column, problem.reason) for problem in checked.problems}
    assert found["b.v1"] == ("version", "Segmind has no version pins")
    assert found["e"] == ("provider", "kie is not among the chosen providers (segmind)")
    assert checked.rows == 6
    assert checked.tasks == checked.rows - checked.bad_rows == len(list(past.tasks()))
    assert rejected.read_text("utf-8").startswith("row,column,reason,value\n")


def test_the_digest_tells_whether_it_is_the_same_tasks(ledger: Ledger) -> None:
    bring_in(ledger, 1, of_table(ledger.path.parent, ROWS))
    past = PastBatch(ledger.path, 1)
    whole = past.check(ALL).digest
    assert past.check(ALL).digest == whole
    assert past.check({"kie": codec("kie")}).digest != whole  # without b, whose version nobody takes


# --- then and now -----------------------------------------------------------------------------------------


def account(provider: str) -> Account:
    return Account(provider, provider, codec(provider), Secret("k"))


def compared(path: Path, chosen: Sequence[str], keys: Sequence[str]) -> Differences:
    accounts = [account(name) for name in chosen]
    group = Group("nano-banana-2", "1:1", "1K", False, tuple(chosen), 6)
    planned = plan([group], accounts, DEFAULT_BOOK)
    with Reader(path) as reader:
        return differences(reader, 1, planned, accounts, DEFAULT_BOOK, keys=frozenset(keys))


def test_what_was_charged_is_compared_with_the_price_book(tmp_path: Path) -> None:
    tell(tmp_path / "bydawn.db", tmp_path)
    found = compared(tmp_path / "bydawn.db", ("kie", "replicate"), ("kie", "replicate"))
    assert (found.batch, found.opened_at_us, found.images, found.cost_microusd) == (
        "teapots",
        START_US + 2_000_000,
        2,
        120_000,
    )
    assert found.prices == (PriceChange("kie", "nano-banana-2", "1K", False, 2, 60_000, 60_000),)
    assert (found.now_images, set(found.new)) == (6, {"replicate"})  # kie made all of them then
    lines = difference_lines(found, erased=1, left_out=2)
    assert "  kie nano-banana-2 1K: 2 images at $0.06 then, the same now" in lines
    assert "3 tasks of teapots are not settled there; they are bought here, too" in lines
    assert "what teapots has no image of is wanted again, too: 1 failed" in lines
    assert lines[-2:] == [
        "left out: 1 task whose texts were erased",
        "left out: 2 tasks that cannot be asked for again",
    ]


@pytest.mark.parametrize(
    ("keys", "why"),
    [(("replicate",), "no key is set (KIE_API_KEY)"), (("kie", "replicate"), "it is not among the chosen providers")],
)
def test_a_provider_that_is_not_bought_from_any_more_is_named(tmp_path: Path, keys: Sequence[str], why: str) -> None:
    tell(tmp_path / "bydawn.db", tmp_path)
    found = compared(tmp_path / "bydawn.db", ("replicate",), keys)
    assert [(each.now_microusd, each.why) for each in found.prices] == [(None, why)]
    assert f"  kie nano-banana-2 1K: 2 images at $0.06 then, not bought there now: {why}" in difference_lines(
        found, erased=0, left_out=0
    )


def test_versions_are_told_and_compared() -> None:
    then = versions_of(
        [
            Bought("google", "nano-banana-2", "1K", False, "001", 3, 9),
            Bought("google", "nano-banana-2", "2K", True, "001", 4, 9),
            Bought("kie", "nano-banana-2", "1K", False, "", 4, 9),
        ]
    )
    assert then == (Version("google", "nano-banana-2", "001", 7),)
    assert version_lines(then, then) == []
    assert version_lines((), then) == []  # nobody told one then
    now = (Version("google", "nano-banana-2", "002", 7),)
    assert version_lines(then, now) == ["google nano-banana-2: by version 002 now, 001 then"]


def test_images_of_a_batch_are_counted_by_provider_and_shape(tmp_path: Path) -> None:
    tell(tmp_path / "bydawn.db", tmp_path)
    with Reader(tmp_path / "bydawn.db") as reader:
        assert bought(reader, 1) == [Bought("kie", "nano-banana-2", "1K", False, "", 2, 120_000)]
        assert bought(reader, 2) == []
        first = next(past_tasks(reader, 1))
    assert isinstance(first.queued, TaskQueued)
    assert (first.n, first.queued.id, first.key) == (1, "red", None)
