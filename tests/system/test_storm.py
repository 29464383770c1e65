"""Providers at their worst: every task ends, and every job on their bill is in our books."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from ledger.money import batch_money
from ledger.reader import Reader
from tests.ports import free_port
from tests.system.shop import Shop, kill, prompts, sandbox, wait

pytestmark = pytest.mark.slow

TASKS = 60


@pytest.mark.parametrize("killed", [False, True])
def test_every_task_ends_and_the_books_agree(tmp_path: Path, killed: bool) -> None:
    """LIVE-1, MON-7, MON-10: throttling, 5xx, resets, cut and slow answers, failed jobs, spoiled images."""
    with sandbox(tmp_path / "sandbox", chaos="storm") as url, Shop(tmp_path, url) as shop:
        table = shop.table("pots.jsonl", prompts("storm", TASKS))
        if killed:
            process = shop.start("run", table, "--sandbox")
            shop.wait_phases(process, "pots", "succeeded", least=TASKS // 3)
            kill(process)
        done = shop.run("run", table, "--sandbox", "--max-at-risk", "50", timeout=300)
        assert done.code in (0, 3), done.err
        rows = shop.manifest("pots")
        assert {row.status for row in rows} <= {"succeeded", "failed", "held"}
        assert all(row.error for row in rows if row.status != "succeeded")
        assert shop.strangers("pots") == []
        check_books(shop)
        assert shop.run("verify", "--sandbox").code == 0


def test_providers_that_die_are_waited_for(tmp_path: Path) -> None:
    """All providers go down in the middle of everything, and come back: the run goes on by itself."""
    with ExitStack() as stack:
        port = free_port()
        with sandbox(tmp_path / "sandbox", port=port) as url:
            shop = stack.enter_context(Shop(tmp_path, url))
            table = shop.table("pots.jsonl", prompts("outage", 5 * TASKS))
            process = shop.start("run", table, "--sandbox", "--max-at-risk", "50")
            shop.wait_phases(process, "pots", "succeeded", least=TASKS)
        assert process.poll() is None
        stack.enter_context(sandbox(tmp_path / "sandbox", port=port))
        done = wait(process, timeout=300)
        rows = shop.manifest("pots")
        assert done.code in (0, 3), done.err
        assert {row.status for row in rows} <= {"succeeded", "held"}
        assert {row.provider for row in rows if row.status == "held"} <= {"kie"}
        verdict = shop.verdict("pots")
        assert verdict.agrees, verdict
        check_books(shop)
        assert shop.run("verify", "--sandbox").code == 0


def check_books(shop: Shop) -> None:
    """Each charged job is one attempt of ours at that price; the only others are of tasks whose doubt is on record."""
    states = shop.tasks("pots")
    attempts = {attempt.job: attempt for state in states for attempt in state.attempts if attempt.job}
    jobs = {job["job"]: job for job in shop.bill()}
    assert set(attempts) <= set(jobs)
    for job, attempt in attempts.items():
        assert attempt.cost_microusd == jobs[job]["charged_microusd"], (attempt, jobs[job])
    unbound = [job for job in jobs if job not in attempts]
    doubtful = sum(attempt.phase == "unknown" for state in states for attempt in state.attempts)
    assert len(unbound) <= doubtful
    with Reader(shop.ledger) as reader:
        name = batch_money(reader.batch_by_name("pots") or 0)
        captured = reader.money(name)[name].captured
    assert captured == sum(jobs[job]["charged_microusd"] for job in attempts)
