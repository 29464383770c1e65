"""Runs that stop before they are done: signals, budget; the next run goes on where they stopped."""

import signal
from contextlib import ExitStack
from pathlib import Path

from ledger.money import batch_money
from ledger.reader import Reader
from tests.system.shop import Shop, prompts, sandbox, wait

MICRO = 1_000_000
TASKS = 60


def test_a_budget_is_never_exceeded_and_a_higher_one_goes_on(shop: Shop) -> None:
    """MON-8: what is captured and reserved stays within the budget; exit 5 says why the run ended."""
    table = shop.table("pots.jsonl", prompts("budget", 30))
    done = shop.run("run", table, "--sandbox", "--budget", "1", "--json")
    assert done.code == 5, done.err
    summary = done.json()[-1]
    assert summary["stopped_by"] == "budget"
    with Reader(shop.ledger) as reader:
        name = batch_money(reader.batch_by_name("pots") or 0)
        assert reader.money(name)[name].total <= MICRO
    paid = sum(job["charged_microusd"] for job in shop.bill())
    assert 0 < paid <= MICRO
    assert summary["cost_microusd"] == paid

    same = shop.run("run", "pots", "--sandbox")
    assert same.code == 5  # the budget keeps its value
    assert sum(job["charged_microusd"] for job in shop.bill()) == paid

    more = shop.run("run", "pots", "--sandbox", "--budget", "100")
    assert more.code == 0, more.err
    verdict = shop.verdict("pots")
    assert verdict.agrees, verdict
    assert len(verdict.once) == 30


def test_sigterm_drains(tmp_path: Path) -> None:
    """LIVE-5: nothing is open that need not be; the next run finishes, and nothing was paid twice."""
    with ExitStack() as stack:
        # Kie takes 18 tasks in ten seconds: most of them are queued yet when the signal comes.
        with sandbox(tmp_path / "sandbox", rate_factor=1.0) as url:
            shop = stack.enter_context(Shop(tmp_path, url))
            table = shop.table("pots.jsonl", prompts("sigterm", TASKS))
            process = shop.start("run", table, "--provider", "kie", "--sandbox")
            shop.wait_phases(process, "pots", "succeeded", least=10)
            process.send_signal(signal.SIGTERM)
            done = wait(process, timeout=45)  # the grace is 60 s: it must end because nothing is left
        shop.move_to(stack.enter_context(sandbox(tmp_path / "sandbox")))
        assert done.code == 130, done.err
        assert "draining" in done.err
        assert set(shop.phases("pots")) <= {"queued", "succeeded"}
        assert shop.phases("pots")["queued"] > 0
        assert len(shop.bill()) == shop.phases("pots")["succeeded"]
        assert len(shop.manifest("pots")) == TASKS

        done = shop.run("run", table, "--sandbox")
        assert done.code == 0, done.err
        verdict = shop.verdict("pots")
        assert verdict.agrees, verdict
        assert len(verdict.once) == TASKS


def test_the_second_sigterm_stops_at_once(tmp_path: Path) -> None:
    """The sandbox needs an hour per image; the run does not wait for it, and knows afterwards what it left."""
    with sandbox(tmp_path / "sandbox", latency=3600) as url, Shop(tmp_path, url) as shop:
        table = shop.table("pots.jsonl", prompts("twice", 12))
        process = shop.start("run", table, "--sandbox")
        shop.wait_phases(process, "pots", "accepted", least=12)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        while "draining" not in (line := process.stderr.readline()):
            assert line, "the run ended at the first signal"
        process.send_signal(signal.SIGTERM)
        assert wait(process, timeout=30).code == 130
        assert shop.phases("pots") == {"accepted": 12}
        assert len(shop.bill()) == 12
        assert shop.run("verify", "--sandbox").code == 0
