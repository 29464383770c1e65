"""Wrong key, no credit, a locked model, a policy, a bad reference: each ends in its own words, and buys no more."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.registry import PROVIDERS, codec
from ledger.folds import TaskState
from tests.system.shop import Done, Shop, sandbox
from tests.system.test_every_provider import RISK, row, table

# What a cheap call tells is refused before anything is sent; what it does not tell, with the first purchase.
FEW = ("kie", "replicate", "together")
EACH = [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in PROVIDERS]
# With real keys the first poll comes near the real latency: only who answers at once is quick.
BOUGHT = [pytest.param(name, marks=() if name == "together" else pytest.mark.slow) for name in PROVIDERS]


def buys(shop: Shop, provider: str, *, key: str = "sandbox-good", **more: object) -> Done:
    """Buy three images with a real-looking account."""
    shop.leave_practice(**{provider: key})
    rows = [row(provider, f"t{n}", f"refused {key} at {provider}: {n}", **more) for n in range(3)]
    name = table(shop, "pots.jsonl", rows)
    return shop.run("run", name, "--ledger", "bydawn.db", "--provider", provider, "--yes", *RISK)


def charged(shop: Shop) -> int:
    return sum(job["charged_microusd"] for job in shop.bill())


def reasons(states: list[TaskState]) -> set[str]:
    return {attempt.reason for state in states for attempt in state.attempts}


@pytest.mark.parametrize("provider", EACH)
def test_a_wrong_key_is_told_before_anything_is_sent(shop: Shop, provider: str) -> None:
    ended = buys(shop, provider, key="wrong")
    assert ended.code == 4, ended.err
    assert "BD-044" in ended.err
    assert provider in ended.err
    assert shop.bill() == []


@pytest.mark.parametrize("provider", EACH)
def test_without_credit_the_account_is_parked_and_nothing_is_charged(shop: Shop, provider: str) -> None:
    ended = buys(shop, provider, key="sandbox-broke")
    assert ended.code in (4, 6), ended.err
    assert "credit" in ended.err
    assert shop.bill() == []
    if ended.code == 6:
        assert f"account {provider} was parked: no_credit" in ended.err
        assert reasons(shop.tasks("pots")) == {"no_credit"}
        assert {state.phase for state in shop.tasks("pots")} == {"queued"}  # bought when there is credit again


@pytest.mark.parametrize("provider", EACH)
def test_a_model_that_is_not_enabled_parks_the_account(shop: Shop, provider: str) -> None:
    ended = buys(shop, provider, key="sandbox-locked")
    assert ended.code in (4, 6), ended.err
    assert shop.bill() == []
    if ended.code == 6:
        assert f"account {provider} was parked: " in ended.err or "no provider" in ended.err
        assert reasons(shop.tasks("pots")) <= {"forbidden", "unavailable"}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Providers whose policy forbids every prompt."""
    folder = tmp_path_factory.mktemp("strict")
    (folder / "policy.toml").write_text("policy_job = 1.0\n")
    with sandbox(folder / "sandbox", chaos=str(folder / "policy.toml")) as url:
        yield url


@pytest.mark.parametrize("provider", BOUGHT)
def test_a_policy_fails_the_task_and_is_not_tried_again(tmp_path: Path, strict: str, provider: str) -> None:
    with Shop(tmp_path, strict) as shop:
        ended = buys(shop, provider)
        assert ended.code == 3, ended.err
        states = shop.tasks("pots")
        assert {(state.phase, state.reason) for state in states} == {("failed", "policy")}
        assert all(len(state.attempts) == 1 for state in states)
        assert charged(shop) == sum(attempt.cost_microusd or 0 for state in states for attempt in state.attempts)
        assert "policy" in shop.run("tasks", "pots", "--ledger", "bydawn.db").out


@pytest.mark.parametrize(
    "provider", [param for param in BOUGHT if codec(str(param.values[0])).capabilities.references.value.urls]
)
def test_a_reference_that_cannot_be_fetched_fails_the_task_alone(shop: Shop, provider: str) -> None:
    ended = buys(shop, provider, images="https://missing.example/mug.png", aspect_ratio="1:1")
    assert ended.code == 3, ended.err
    states = shop.tasks("pots")
    assert {state.phase for state in states} == {"failed"}
    assert {state.reason for state in states} <= {"rejected", "failed_for_good"}
    assert charged(shop) == 0
