"""W15 with real processes: the run is killed while it tells the provider to cancel, and told again to go on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.shop import Shop, kill, prompts, sandbox, wait_until

TASKS = 8


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Shop]:
    """A shop whose providers take an hour for an image."""
    (tmp_path / "shop").mkdir()
    with sandbox(tmp_path / "sandbox", latency=3600.0) as url, Shop(tmp_path / "shop", url) as shop:
        yield shop


def test_a_run_that_dies_while_it_cancels_cancels_the_rest_when_it_goes_on(slow: Shop) -> None:
    """W15, MON-2, MON-7: whether it was cancelled, had ended or still ran, each job ends, and none is bought twice."""
    table = slow.table("pots.jsonl", prompts("cancel killed", TASKS))
    process = slow.start("run", table, "--provider", "replicate", "--max-at-risk", "50", "--sandbox")
    slow.wait_phases(process, "pots", "accepted", least=TASKS)
    asked = slow.start("cancel", "pots", "--sandbox")
    wait_until(lambda: any(state.cancel_asked for state in slow.tasks("pots")))
    kill(process)
    asked.kill()
    asked.communicate()
    done = slow.run("run", "pots", "--sandbox")
    assert done.code in (0, 3), done.err
    phases = slow.phases("pots")
    assert set(phases) <= {"cancelled", "succeeded"}
    bill = slow.bill()
    assert len(bill) == TASKS
    stopped = sum(job["state"] == "cancelled" for job in bill)
    assert stopped == phases["cancelled"] > 0
    assert slow.run("verify", "--sandbox").code == 0
