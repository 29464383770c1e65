"""What a run does about purchases in doubt: hold them, or buy again within a budget, said first (MON-2, MON-4)."""

import pytest

from bydawn.cli.formats import counted
from ledger.reader import Reader
from tests.system.shop import Shop, prompts
from tests.system.withheld import killed_in_the_air

TASKS = 20
RISK = ("--max-at-risk", "50")


def in_doubt(shop: Shop, what: str) -> tuple[str, ...]:
    """A batch at Kie that was killed with submits in the air; gives the command that goes on."""
    table = shop.table("pots.jsonl", prompts(what, TASKS))
    command = ("run", table, "--provider", "kie", *RISK, "--sandbox")
    assert shop.run(*command, fault="reply_read:5").code == -9
    return command


def ceiling(shop: Shop) -> float:
    """What one image may cost at most, in dollars."""
    return max(attempt.ceiling_microusd for state in shop.tasks("pots") for attempt in state.attempts) / 1e6


def test_resubmit_buys_what_is_in_doubt_again_and_nothing_else(shop: Shop) -> None:
    command = in_doubt(shop, "resubmitted")
    doubtful = shop.doubtful("kie")
    done = shop.run(*command, "--on-unknown", "resubmit", "--max-duplicate-usd", "5", "--json")
    assert done.code == 0, done.err
    assert "goes on: " in done.err
    assert "in doubt that nobody can be asked about (at most $" in done.err
    assert "may be bought again, for at most $5.00 in this batch" in done.err
    assert done.json()[-1]["duplicates_paid"] == doubtful > 0
    verdict = shop.verdict("pots")
    assert len(verdict.twice) <= doubtful
    assert len(verdict.once) + len(verdict.twice) == TASKS
    assert shop.run("verify", "--sandbox").code == 0


def test_the_budget_for_duplicates_is_never_exceeded(shop: Shop) -> None:
    """MON-4: by ceilings, in the transaction of the intent."""
    table = shop.table("pots.jsonl", prompts("a small budget", TASKS))
    command = ("run", table, "--provider", "kie", *RISK, "--sandbox")
    killed_in_the_air(shop, *command, least=2)
    doubtful = shop.doubtful("kie")
    assert doubtful >= 2
    small = ("--on-unknown", "resubmit", "--max-duplicate-usd", f"{ceiling(shop):.6f}")
    done = shop.run(*command, *small)
    assert done.code == 3, done.err
    held = [row for row in shop.manifest("pots") if row.status == "held"]
    assert len(held) == doubtful - 1
    again = shop.run(*command)  # the options keep their last values
    assert again.code == 3, again.err
    assert [row.id for row in shop.manifest("pots") if row.status == "held"] == [row.id for row in held]


@pytest.mark.parametrize("options", [pytest.param((), marks=pytest.mark.slow), ("--on-unknown", "ask")])
def test_without_leave_it_is_held(shop: Shop, options: tuple[str, ...]) -> None:
    """``ask`` asks on a terminal only."""
    command = in_doubt(shop, f"held {options}")
    doubtful = shop.doubtful("kie")
    for _ in range(2):
        done = shop.run(*command, *options)
        assert done.code == 3, done.err
        assert shop.phases("pots")["held"] == doubtful
    assert ("they stay held" in done.err) == ("ask" in options)
    assert shop.verdict("pots").agrees


def test_a_budget_without_leave_is_refused_before_anything(shop: Shop) -> None:
    table = shop.table("pots.jsonl", prompts("a budget alone", 3))
    refused = shop.run("run", table, "--max-duplicate-usd", "2", "--sandbox")
    assert refused.code == 2, refused.err
    assert "--on-unknown resubmit" in refused.err
    assert shop.run("run", table, "--on-unknown", "twice", "--sandbox").code == 2
    assert shop.bill() == []


def test_buying_again_is_said_first_and_needs_leave_of_its_own(shop: Shop) -> None:
    """MON-2: off a terminal, a run that would buy more than 1 % again sends nothing without --yes or --budget."""
    shop.leave_practice(together="sandbox-of-a-test")
    table = shop.table("pots.jsonl", prompts("leave to buy again", TASKS))
    command = ("run", table, "--provider", "together", "--ledger", "bydawn.db")
    assert shop.run(*command, *RISK, "--yes", fault="reply_read:5").code == -9
    held = shop.run(*command)
    assert held.code == 3, held.err
    assert " reused ($" in held.err
    doubtful = shop.phases("pots")["held"]
    bought = len(shop.bill())
    options = ("--on-unknown", "resubmit", "--max-duplicate-usd", "5")
    planned = shop.run("plan", "pots", "--ledger", "bydawn.db", *options)
    assert f"may be bought again: {doubtful} task" in planned.out
    assert "that needs your consent" in planned.out
    figures = shop.run("plan", "pots", "--ledger", "bydawn.db", *options, "--json").json()[-1]["resumes"]
    assert isinstance(figures, dict)
    assert (figures["again"], figures["held"]) == (doubtful, doubtful)
    refused = shop.run(*command, *options)
    assert refused.code == 2, refused.err
    assert "BD-072" in refused.err
    assert "bought so far" in refused.err
    assert len(shop.bill()) == bought
    with Reader(shop.ledger) as reader:
        assert reader.batch(1).settings.on_unknown is None  # a run that is refused changes nothing
    done = shop.run(*command, *options, "--yes")
    assert done.code == 0, done.err
    with Reader(shop.ledger) as reader:
        agreed = reader.batch(1).agreed
    assert agreed is not None
    assert agreed.again_microusd == figures["again_microusd"]


def test_what_resolve_gave_leave_for_is_said_by_the_run_too(shop: Shop) -> None:
    command = in_doubt(shop, "resolved")
    assert shop.run(*command).code == 3
    doubtful = shop.phases("pots")["held"]
    assert shop.run("resolve", "pots", "--all", "--buy-again", "--sandbox").code == 0
    done = shop.run(*command)
    assert done.code == 0, done.err
    assert f"may be bought again: {doubtful} task" in done.err
    assert f"{counted(TASKS - doubtful, 'image')} reused" in done.err
