"""The main job: 4,896 tasks of PartiPrompts in three aspects, undisturbed and with five kill -9 at random moments."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.reader import Reader
from scripts import check_bill
from tests.system.shop import ROOT, Shop, kill, sandbox

pytestmark = pytest.mark.slow

PARTI = ROOT / "examples" / "parti-prompts.tsv"
ASPECTS = ("1:1", "9:16", "16:9")
TASKS = 4896
COMMAND = ("run", str(PARTI), "--map", "prompt=Prompt", "--aspect", ",".join(ASPECTS), "--sandbox")
BATCH = "parti-prompts"
HOURS = 900.0


@pytest.fixture
def market(tmp_path: Path) -> Iterator[str]:
    """A sandbox for one job alone, with documented limits times ten."""
    with sandbox(tmp_path / "sandbox", latency=1.0, rate_factor=10.0) as url:
        yield url


def input_prompts() -> list[str]:
    """The first column of the file, split here by hand: quotes are ordinary signs in it."""
    lines = PARTI.read_bytes().decode("utf-8").split("\n")[1:]
    return [line.split("\t", 1)[0] for line in lines if line]


def check_everything_arrived(shop: Shop) -> None:
    wanted = Counter((prompt, aspect) for prompt in input_prompts() for aspect in ASPECTS)
    assert wanted.total() == len(wanted) == TASKS
    assert input_prompts()[1560].startswith('"G I G G L E" painted')
    rows = shop.manifest(BATCH)
    assert len(rows) == len({row.id for row in rows}) == TASKS
    assert {row.status for row in rows} == {"succeeded"}
    assert len({row.file for row in rows}) == TASKS
    assert shop.strangers(BATCH) == []
    # Every prompt reached the providers byte for byte.
    assert {(job["prompt"], job["aspect"]) for job in shop.bill()} == set(wanted)
    checked = shop.run("verify", "--sandbox")
    assert checked.code == 0, checked.out


def test_every_image_arrives(shop: Shop) -> None:
    done = shop.run(*COMMAND, timeout=HOURS)
    assert done.code == 0, done.err
    check_everything_arrived(shop)
    verdict = shop.verdict(BATCH)
    assert verdict.agrees, verdict
    assert len(verdict.once) == TASKS
    assert len(shop.bill()) == TASKS


def finished(shop: Shop) -> set[str]:
    """Ids of the tasks that have their image, as far as the ledger knows."""
    with Reader(shop.ledger) as reader:
        rows = reader.tasks(reader.batch_by_name(BATCH) or 0, limit=TASKS, states=("succeeded",))
    return {row.id for row in rows}


@pytest.mark.parametrize("seed", [1])
def test_five_kills_cost_nothing_but_time(shop: Shop, seed: int) -> None:
    """Everything is charged once; what was open at Kie is held, named with dollars, and bought again when told."""
    draws = random.Random(seed)
    moments = sorted(draws.uniform(0.02, 0.95) for _ in range(5))
    finished_at: list[tuple[int, set[str]]] = []  # how long the bill was at a kill, and what was finished then
    doubtful = 0
    for moment in moments:
        process = shop.start(*COMMAND)
        shop.wait_phases(process, BATCH, "succeeded", "held", least=round(moment * TASKS))
        kill(process)
        doubtful += shop.doubtful("kie")
        finished_at.append((len(shop.bill()), finished(shop)))

    done = shop.run(*COMMAND, timeout=HOURS)
    held = {row.id: row for row in shop.manifest(BATCH) if row.status == "held"}
    assert done.code == (3 if held else 0), done.err
    verdict = shop.verdict(BATCH)
    assert verdict.agrees, verdict
    assert set(verdict.never) <= set(held)
    assert len(verdict.once) + len(verdict.never) == TASKS
    assert {row.provider for row in held.values()} <= {"kie"}
    assert len(held) <= doubtful
    assert shop.run("verify", "--sandbox").code == 0
    listed = shop.run("resolve", BATCH, "--sandbox").out
    for row in held.values():
        assert row.error
        assert row.id in listed

    arrived = set(held) & set(verdict.once)
    if held:
        assert shop.run("resolve", BATCH, "--all", "--buy-again", "--sandbox").code == 0
        done = shop.run("run", BATCH, "--sandbox")
        assert done.code == 0, done.err
    assert {each.id for each in shop.verdict(BATCH).twice} == arrived
    check_everything_arrived(shop)
    nothing_finished_was_requested_again(shop, finished_at)


def nothing_finished_was_requested_again(shop: Shop, finished_at: list[tuple[int, set[str]]]) -> None:
    bill = shop.bill()
    digests = {task.id: task.digest for task in check_bill.read_manifest(shop.output(BATCH) / "manifest.jsonl")}
    for length, ids in finished_at:
        later = {job["digest"] for job in bill[length:]}
        assert [task for task in ids if digests[task] in later] == []
