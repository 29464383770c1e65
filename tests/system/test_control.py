"""Commands given while a run goes on: they reach it through the inbox, and it carries them out."""

import signal
import subprocess

import pytest

from ledger.reader import Reader
from runtime.inbox import inbox_of, waiting
from tests.system.shop import Done, Shop, prompts, wait, wait_until

FEW, MANY = 20, 250


def epoch(shop: Shop) -> int:
    with Reader(shop.ledger) as reader:
        return reader.epoch()


def given_to_the_run(shop: Shop, run: "subprocess.Popen[str]", *arguments: str) -> Done:
    """Give a command; it must have been the run, and no process of its own, that carried it out.

    The run stands still until the command has left its message: it would be over before, where that takes long.
    """
    before = epoch(shop)
    run.send_signal(signal.SIGSTOP)
    asked = shop.start(*arguments)
    wait_until(lambda: asked.poll() is not None or list(waiting(inbox_of(shop.ledger))))
    run.send_signal(signal.SIGCONT)
    done = wait(asked)
    assert done.code == 0, done.err
    assert epoch(shop) == before, "the command opened the ledger itself"
    return done


def held_tasks(shop: Shop, name: str) -> set[str]:
    """Leave a batch of 20 with some tasks held at Kie; gives those whose job had arrived."""
    table = shop.table("pots.jsonl", prompts(name, FEW))
    assert shop.run("run", table, "--provider", "kie", "--sandbox", fault="reply_read:3").code == -9
    assert shop.run("run", table, "--max-at-risk", "50", "--sandbox").code == 3
    held = {row.id for row in shop.manifest("pots") if row.status == "held"}
    arrived = held & set(shop.verdict("pots").once)
    assert arrived
    return arrived


def a_longer_run(shop: Shop, name: str, tasks: int = MANY) -> "subprocess.Popen[str]":
    """Add rows and start to buy them."""
    table = shop.table("pots.jsonl", prompts(name, tasks))
    process = shop.start("run", table, "--max-at-risk", "50", "--sandbox")
    shop.wait_phases(process, "pots", "succeeded", least=FEW + 10)
    return process


def test_resolve_reaches_a_run(shop: Shop) -> None:
    arrived = held_tasks(shop, "resolved")
    process = a_longer_run(shop, "resolved")
    given_to_the_run(shop, process, "resolve", "pots", "--all", "--buy-again", "--sandbox")
    done = wait(process)
    assert done.code == 0, done.err
    assert shop.phases("pots") == {"succeeded": MANY}
    assert {each.id for each in shop.verdict("pots").twice} == arrived
    assert shop.run("verify", "--sandbox").code == 0


@pytest.mark.slow
def test_retry_reaches_a_run(shop: Shop) -> None:
    arrived = held_tasks(shop, "retried")
    assert shop.run("resolve", "pots", "--all", "--give-up", "--sandbox").code == 0
    process = a_longer_run(shop, "retried")
    given_to_the_run(shop, process, "retry", "pots", "--sandbox")
    done = wait(process)
    assert done.code == 0, done.err
    assert shop.phases("pots") == {"succeeded": MANY}
    assert {each.id for each in shop.verdict("pots").twice} == arrived
    assert shop.run("verify", "--sandbox").code == 0


@pytest.mark.slow
def test_cancel_reaches_a_run(shop: Shop) -> None:
    process = a_longer_run(shop, "cancelled", tasks=1000)  # most of them still queued when the command arrives
    said = given_to_the_run(shop, process, "cancel", "pots", "--json", "--sandbox").json()[-1]
    done = wait(process)
    assert done.code == 0, done.err
    phases = shop.phases("pots")
    assert set(phases) == {"succeeded", "cancelled"}
    assert isinstance(said["free"], int)
    assert phases["cancelled"] >= said["free"] > 0
    verdict = shop.verdict("pots")
    assert verdict.agrees, verdict
    assert len(verdict.once) >= phases["succeeded"]
    bill = shop.bill()
    shop.run("run", "pots", "--sandbox")
    assert shop.bill() == bill  # what was cancelled stays so
    assert shop.run("verify", "--sandbox").code == 0
