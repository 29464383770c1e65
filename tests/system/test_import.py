"""A kill in the middle of an import: nothing is bought before the seal, and the same command goes on (LED-11)."""

import random
import signal
import time

import pytest

from ledger.errors import LedgerError
from ledger.reader import Reader
from tests.system.shop import Shop, kill, prompts, wait_until

ROWS, WANTED = 30_000, 3


def sealed(shop: Shop) -> bool:
    try:
        with Reader(shop.ledger) as reader:
            batch = reader.batch_by_name("pots")
            return batch is not None and reader.batch(batch).sealed_through > 0
    except LedgerError:
        return False


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_a_killed_import_goes_on(shop: Shop, seed: int) -> None:
    table = shop.table("pots.jsonl", prompts(f"import {seed}", ROWS))
    command = ("run", table, "--limit", str(WANTED), "--sandbox")
    draws = random.Random(seed)
    killed = 0
    while killed < 2:
        process = shop.start(*command)
        wait_until(shop.ledger.exists)
        time.sleep(draws.uniform(0.0, 0.4))
        process.send_signal(signal.SIGSTOP)  # what is looked at now is what the kill will find
        if sealed(shop):  # too late for this test, and fine for the user
            process.send_signal(signal.SIGCONT)
            process.communicate()
            break
        kill(process)
        assert shop.bill() == []
        killed += 1
    assert killed
    done = shop.run(*command)
    assert done.code == 0, done.err
    assert shop.phases("pots") == {"succeeded": WANTED, "queued": ROWS - WANTED}
    assert len(shop.bill()) == WANTED
    assert shop.run("verify", "--sandbox").code == 0


def test_a_batch_whose_import_was_refused_cannot_be_bought_by_its_name(shop: Shop) -> None:
    """LED-11: without a seal there is nothing to buy, and the message says what brings it in."""
    table = shop.table("pots.jsonl", ["the same pot"] * 4)
    assert shop.run("run", table, "--sandbox").code == 2  # three of four share: which column was forgotten?
    done = shop.run("run", "pots", "--sandbox")
    assert done.code == 2
    assert "BD-081" in done.err
    assert "bydawn run INPUT --name pots --sandbox" in done.err
    assert shop.run("run", table, "--dedupe", "share", "--sandbox").code == 0
    assert len(shop.bill()) == 1
    again = shop.run("run", "pots", "--new", "--sandbox")
    assert (again.code, "BD-020" in again.err) == (2, True)
    assert len(shop.bill()) == 1
