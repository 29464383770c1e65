"""Before a batch is bought: what a plan takes for its worst case."""

import msgspec

from adapters import registry
from adapters.base import Secret
from adapters.prices import DEFAULT_BOOK
from bydawn.spending import plan_of
from ledger.folds import EMPTY_BATCH, BatchSettings
from runtime.accounts import Account
from runtime.planning import Group, Plan


def planned(settings: BatchSettings, count: int = 10) -> Plan:
    account = Account("kie", "kie", registry.codec("kie"), Secret("x"))
    state = msgspec.structs.replace(EMPTY_BATCH, settings=settings)
    groups = [Group("nano-banana-2", "1:1", "1K", False, ("kie",), count)]
    return plan_of(state, groups, [account], DEFAULT_BOOK, None)


def test_the_worst_case_counts_the_attempts_that_the_batch_is_run_with() -> None:
    """Also those that a continue or a rerun keeps: consent is given to that figure."""
    usual, more = planned(BatchSettings()), planned(BatchSettings(attempts=6))
    assert more.worst_microusd == 2 * usual.worst_microusd
    assert more.expected_microusd == usual.expected_microusd


def test_a_plan_holds_the_budget_that_the_batch_keeps_against_its_cost() -> None:
    assert planned(BatchSettings()).notes == ()
    (note,) = planned(BatchSettings(budget_microusd=1_000)).notes
    assert note.startswith("the budget of $0.001 ends before the batch does")


def test_a_plan_is_bound_by_the_money_at_risk_that_the_batch_keeps() -> None:
    assert planned(BatchSettings(max_at_risk_microusd=70_000)).max_at_risk_microusd == 70_000
