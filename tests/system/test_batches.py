"""Batch files with real processes: kill -9 while batches are open, and at the edges of the call that pays (W16)."""

import signal
import sqlite3
import subprocess
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from ledger.folds import AttemptState
from tests.system.shop import Shop, kill, prompts, sandbox, wait

TASKS = 60
COMMAND = ("--provider", "google-batch", "--max-at-risk", "0.85", "--sandbox")  # files of 20 lines
SLOWLY = ("before_intent", "request_sent", "acceptance_recorded", "result_seen", "reply_spooled", "ready_recorded")
EDGES = ("intent_recorded", "reply_read", *(pytest.param(point, marks=pytest.mark.slow) for point in SLOWLY))


def attempts(shop: Shop) -> list[AttemptState]:
    return [attempt for state in shop.tasks("pots") for attempt in state.attempts]


def check_that_all_came_home_once(shop: Shop) -> None:
    """MON-7, RES-1, LIVE-2."""
    verdict = shop.verdict("pots")
    assert verdict.agrees, verdict
    assert len(verdict.once) == TASKS
    assert shop.strangers("pots") == []
    assert shop.leftovers("pots") == []
    charged = {job["job"]: job["charged_microusd"] for job in shop.bill()}
    paid = [attempt for attempt in attempts(shop) if attempt.cost_microusd]
    assert {attempt.job: attempt.cost_microusd for attempt in paid} == {
        job: cost for job, cost in charged.items() if cost
    }
    assert shop.run("verify", "--sandbox").code == 0


def let_all_end(directory: Path) -> None:
    """Turn on the clock of a sandbox that is not running: whatever was begun there has ended."""
    with closing(sqlite3.connect(directory / "sandbox.db")) as jobs, jobs:
        jobs.execute("UPDATE jobs SET done_us = (SELECT max(created_us) FROM jobs) + 1")


def test_a_kill_while_batches_are_open(tmp_path: Path) -> None:
    """W6: what was accepted is asked for again, by the batch."""
    with ExitStack() as stack:
        with sandbox(tmp_path / "sandbox", latency=3600.0) as url:
            shop = stack.enter_context(Shop(tmp_path, url))
            table = shop.table("pots.jsonl", prompts("open batches", TASKS))
            process = shop.start("run", table, *COMMAND)
            shop.wait_phases(process, "pots", "accepted", least=40)
            kill(process)
        let_all_end(tmp_path / "sandbox")
        shop.move_to(stack.enter_context(sandbox(tmp_path / "sandbox")))
        accepted = {attempt.job for attempt in attempts(shop) if attempt.phase == "accepted"}
        assert len({job.partition(".")[0] for job in accepted}) >= 2
        done = shop.run("run", table, *COMMAND)
        assert done.code == 0, done.err
        check_that_all_came_home_once(shop)
        assert accepted <= {attempt.job for attempt in attempts(shop) if attempt.phase == "done"}
        files = Counter(attempt.file for attempt in attempts(shop))
        assert max(files.values()) <= 20


@pytest.mark.slow
@pytest.mark.parametrize("point", EDGES)
def test_a_kill_at_the_edges_of_the_call_that_pays(shop: Shop, point: str) -> None:
    """MON-1, MON-2, REC-4, REC-5, W1 to W5, W16: nothing is held, and nothing is bought twice."""
    table = shop.table("pots.jsonl", prompts(f"edge {point}", TASKS))
    assert shop.run("run", table, *COMMAND, fault=f"{point}:2").code == -9
    intended = {attempt.file for attempt in attempts(shop) if attempt.phase == "intended"}
    assert len(intended) <= 1
    done = shop.run("run", table, *COMMAND)
    assert done.code == 0, done.err
    check_that_all_came_home_once(shop)
    if point == "reply_read":
        assert Counter(a.adopted_by for a in attempts(shop) if a.file in intended) == {"listing": 20}


def stopped_twice(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    while "draining" not in (line := process.stderr.readline()):
        assert line, "the run ended at the first signal"
    process.send_signal(signal.SIGTERM)
    assert wait(process, timeout=30).code == 130


@pytest.mark.slow
def test_a_batch_that_is_open_at_the_end_of_a_run_comes_home_with_the_next(tmp_path: Path) -> None:
    """LIVE-5: nobody waits a day for it, and nothing is lost."""
    with sandbox(tmp_path / "sandbox", latency=6.0) as url, Shop(tmp_path, url) as shop:
        table = shop.table("pots.jsonl", prompts("the next day", TASKS))
        process = shop.start("run", table, *COMMAND)
        shop.wait_phases(process, "pots", "accepted", least=TASKS)
        stopped_twice(process)
        assert shop.phases("pots") == {"accepted": TASKS}
        done = shop.run("run", table, *COMMAND)
        assert done.code == 0, done.err
        assert len(attempts(shop)) == TASKS
        check_that_all_came_home_once(shop)


def test_a_cancelled_batch_is_stopped_there_and_costs_nothing(tmp_path: Path) -> None:
    with sandbox(tmp_path / "sandbox", latency=3600.0) as url, Shop(tmp_path, url) as shop:
        table = shop.table("pots.jsonl", prompts("cancelled", TASKS))
        process = shop.start("run", table, *COMMAND)
        shop.wait_phases(process, "pots", "accepted", least=TASKS)
        told = shop.run("cancel", "pots", "--sandbox")
        assert told.code == 0, told.err
        wait(process)
        assert shop.phases("pots") == {"cancelled": TASKS}
        assert {job["state"] for job in shop.bill()} == {"cancelled"}
        assert sum(job["charged_microusd"] for job in shop.bill()) == 0
