"""kill -9 at every edge of every crash window, and the same command again: the bill knows nothing of it."""

import itertools
import random

import pytest

from runtime.faults import POINTS
from tests.system.shop import Shop, prompts

TASKS = 20
SPOOLED = "reply_spooled"  # only where the answer holds the image
EVERYWHERE = [
    *itertools.product([point for point in POINTS if point != SPOOLED], ("kie", "replicate", "segmind")),
    (SPOOLED, "together"),
]
HELD_AT = ("kie", "together")  # nothing tells there what was bought
# One of each kind: doubt with a listing (adopted, absent), doubt without one (held), and work that is only repeated.
OFTEN = [
    ("intent_recorded", "replicate"),
    ("request_sent", "kie"),
    ("reply_read", "segmind"),
    ("blob_stored", "kie"),
]


def die_and_go_on(shop: Shop, point: str, provider: str, nth: int) -> None:
    """MON-1, MON-2, MON-7, RES-1, RES-5, REC-4, REC-5, LIVE-1, LIVE-2 with real processes.

    Every window that a process can die in: W1, W2, W3, W4, W5, W6, W7, W8, W9, W10, W11, W13, W14.
    """
    table = shop.table("pots.jsonl", prompts(f"{point}:{nth} at {provider}", TASKS))
    # Held attempts fill the cap of money at risk, and the run would rightly end there (exit 5).
    command = ("run", table, "--provider", provider, "--max-at-risk", "50", "--sandbox")
    assert shop.run(*command, fault=f"{point}:{nth}").code == -9
    doubtful = shop.doubtful(provider)
    finished = sum(state.phase == "succeeded" for state in shop.tasks("pots"))

    done = shop.run(*command)
    held = [row for row in shop.manifest("pots") if row.status == "held"]
    verdict = shop.verdict("pots")
    assert done.code == (3 if held else 0), done.err
    assert verdict.agrees, verdict
    assert len(held) <= doubtful
    assert not held or provider in HELD_AT
    assert all(row.error for row in held)
    assert set(verdict.never) <= {row.id for row in held}
    assert sum(row.status == "succeeded" for row in shop.manifest("pots")) == TASKS - len(held)
    assert len(verdict.once) >= finished
    assert shop.strangers("pots") == []
    assert shop.leftovers("pots") == []
    checked = shop.run("verify", "--sandbox")
    assert checked.code == 0, checked.out


@pytest.mark.parametrize(("point", "provider"), OFTEN)
def test_a_kill_costs_nothing_but_time(shop: Shop, point: str, provider: str) -> None:
    die_and_go_on(shop, point, provider, nth=7)


@pytest.mark.slow
@pytest.mark.parametrize("nth", [1, 12])
@pytest.mark.parametrize(("point", "provider"), EVERYWHERE)
def test_a_kill_anywhere_costs_nothing_but_time(shop: Shop, point: str, provider: str, nth: int) -> None:
    die_and_go_on(shop, point, provider, nth=nth)


def test_what_is_held_is_bought_again_only_when_told(shop: Shop) -> None:
    """The bill's duplicates are then exactly the held tasks whose job had arrived, and no more than was named."""
    table = shop.table("pots.jsonl", prompts("told", TASKS))
    command = ("run", table, "--provider", "kie", "--max-at-risk", "50", "--sandbox")
    assert shop.run(*command, fault="reply_read:5").code == -9
    assert shop.run(*command).code == 3
    held = {row.id for row in shop.manifest("pots") if row.status == "held"}
    assert held
    arrived = held & set(shop.verdict("pots").once)
    assert arrived

    listed = shop.run("resolve", "pots", "--sandbox")
    assert listed.code == 0
    assert all(task in listed.out for task in held)
    assert f"{len(held)} held, $" in listed.out

    again = shop.run("run", "pots", "--sandbox")
    assert again.code == 3  # a second run alone decides nothing
    assert {row.id for row in shop.manifest("pots") if row.status == "held"} == held

    assert shop.run("resolve", "pots", "--all", "--buy-again", "--sandbox").code == 0
    done = shop.run("run", "pots", "--sandbox", "--json")
    assert done.code == 0, done.err
    summary = done.json()[-1]
    verdict = shop.verdict("pots")
    assert {each.id for each in verdict.twice} == arrived
    assert verdict.nobody == []
    assert len(verdict.once) == TASKS - len(arrived)
    assert summary["duplicates_paid"] == len(held)
    assert shop.run("verify", "--sandbox").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kills_during_recovery(shop: Shop, seed: int) -> None:
    """REC-3: a run that is killed while it recovers from a kill, several times over, at all providers."""
    draws = random.Random(seed)
    table = shop.table("pots.jsonl", prompts(f"in a row {seed}", 3 * TASKS))
    command = ("run", table, "--max-at-risk", "50", "--sandbox")
    doubtful = 0
    for _ in range(6):
        code = shop.run(*command, fault=f"{draws.choice(POINTS)}:{draws.randint(1, 9)}").code
        if code != -9:  # nothing was left to reach that point
            break
        doubtful += shop.doubtful("kie")
    done = shop.run(*command)
    held = {row.id for row in shop.manifest("pots") if row.status == "held"}
    verdict = shop.verdict("pots")
    assert done.code == (3 if held else 0), done.err
    assert verdict.agrees, verdict
    assert len(held) <= doubtful
    assert set(verdict.never) <= held
    assert shop.strangers("pots") == []
    assert shop.leftovers("pots") == []
    assert shop.run("verify", "--sandbox").code == 0
