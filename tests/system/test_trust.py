"""``--trust``: the same kill under both settings, and what plan and providers say of it."""

import pytest

from tests.system.shop import Shop, prompts

TASKS = 12


def killed(shop: Shop, what: str, *options: str) -> tuple[str, ...]:
    """A batch at Toapis that dies between an intent and its first byte, so that nothing was bought for it."""
    table = shop.table("pots.jsonl", prompts(what, TASKS))
    command = ("run", table, "--provider", "toapis", "--max-at-risk", "50", "--sandbox")
    assert shop.run(*command, *options, fault="intent_recorded:3").code == -9
    return command


@pytest.mark.slow
def test_what_is_only_assumed_holds_under_documented_and_buys_again_by_default(shop: Shop) -> None:
    """REC-4; how it is run may change on any continue, and keeps its last value."""
    command = killed(shop, "documented", "--trust", "documented")
    doubtful = shop.doubtful("toapis")
    done = shop.run(*command)
    assert done.code == 3, done.err
    assert "under --trust documented nothing proves that a job was never made at toapis" in done.err
    held = [row for row in shop.run("resolve", "pots", "--sandbox", "--json").json() if row["type"] == "held"]
    reasons = [row["reason"] for row in held]
    assert set(reasons) == {"lookup_assumed"}
    assert 1 <= len(reasons) <= doubtful
    assert len(shop.bill()) == TASKS - len(reasons)
    verdict = shop.verdict("pots")
    assert verdict.agrees
    again = shop.run(*command, "--trust", "assumed")  # looks up again what was held, and buys it
    assert again.code == 0, again.err
    assert len(shop.bill()) == TASKS
    assert "--trust" not in again.err


def test_by_default_the_same_kill_ends_with_every_image_bought_once(shop: Shop) -> None:
    """REC-4."""
    command = killed(shop, "assumed")
    assert shop.run(*command).code == 0
    assert len(shop.bill()) == TASKS
    assert shop.verdict("pots").agrees


def test_plan_and_providers_name_whom_it_touches(shop: Shop) -> None:
    table = shop.table("pots.jsonl", prompts("planned", 2))
    shop.env["BYDAWN_TRUST"] = "documented"
    planned = shop.run("plan", table, "--provider", "kie,replicate", "--sandbox")
    assert "nothing proves that a job was never made at replicate:" in planned.out
    assert "a refusal by replicate does not prove" in planned.out
    notes = shop.run("plan", table, "--provider", "kie,replicate", "--sandbox", "--json").json()[-1]["notes"]
    assert isinstance(notes, list)
    assert len(notes) == 2
    assert "never made" not in shop.run("plan", table, "--provider", "kie", "--sandbox").out
    refused = shop.run("plan", table, "--trust", "blindly", "--sandbox")
    assert refused.code == 2
    assert "documented, assumed" in refused.err
    listed = shop.run("providers", "list", "kie", "--json").json()[0]
    assert listed["trust_documented"] == {"absence": False, "refusals": True}
    assert "nothing proves" in shop.run("providers").out
