"""Consent by an approved plan: a run that differs from it buys nothing."""

from pathlib import Path

import msgspec
import pytest

from adapters import registry
from adapters.base import Secret
from adapters.prices import DEFAULT_BOOK, Price
from bydawn.approval import Approval, load, quoted_in, require_same, save
from bydawn.errors import UserError
from runtime.accounts import Account
from runtime.planning import Group, plan

APPROVED = Approval(1, "abc", 100, {"kie": {"nano-banana-2 1K 1:1": 60_000}}, 6_000_000, 22_500_000)


def differs(now: Approval, *, tolerance_percent: float = 2.0) -> str:
    with pytest.raises(UserError) as caught:
        require_same(APPROVED, now, tolerance_percent=tolerance_percent, where=Path("plan.json"))
    assert caught.value.exit_code == 2
    return caught.value.why


def test_the_same_plan_passes_and_survives_its_file(tmp_path: Path) -> None:
    save(tmp_path / "plan.json", APPROVED)
    require_same(load(tmp_path / "plan.json"), APPROVED, tolerance_percent=0.0, where=tmp_path)


def test_another_input_is_another_plan() -> None:
    assert "input" in differs(msgspec.structs.replace(APPROVED, input_digest="abd"))


def test_another_account_is_another_plan() -> None:
    assert "accounts are kie, replicate" in differs(
        msgspec.structs.replace(APPROVED, prices={**APPROVED.prices, "replicate": {}})
    )


def test_prices_may_move_within_the_tolerance() -> None:
    dearer = msgspec.structs.replace(APPROVED, prices={"kie": {"nano-banana-2 1K 1:1": 61_000}})
    require_same(APPROVED, dearer, tolerance_percent=2.0, where=Path("plan.json"))
    assert "costs $0.061, not $0.06" in differs(dearer, tolerance_percent=1.0)


def test_a_quote_may_be_lower_than_approved_and_not_higher() -> None:
    """What the provider itself says today is what will be charged."""
    shape = ("kie", "nano-banana-2 1K 1:1")
    cheaper = msgspec.structs.replace(APPROVED, prices={"kie": {"nano-banana-2 1K 1:1": 30_000}})
    require_same(APPROVED, cheaper, tolerance_percent=2.0, where=Path("plan.json"), quoted={shape})
    assert "costs $0.03, not $0.06" in differs(cheaper)
    dearer = msgspec.structs.replace(APPROVED, prices={"kie": {"nano-banana-2 1K 1:1": 70_000}})
    with pytest.raises(UserError) as caught:
        require_same(APPROVED, dearer, tolerance_percent=2.0, where=Path("plan.json"), quoted={shape})
    assert "is quoted at $0.07, not $0.06" in caught.value.why
    assert caught.value.fix.endswith("--quotes")


def test_a_plan_names_its_quoted_prices() -> None:
    account = Account("wavespeed", "wavespeed", registry.codec("wavespeed"), Secret("x"))
    key, quote = ("wavespeed", "nano-banana-2", "1K", False), Price(80_000, "quoted", "2026-11-22", "confirmed", True)
    groups = [Group("nano-banana-2", "1:1", size, False, ("wavespeed",), 1) for size in ("1K", "2K")]
    planned = plan(groups, [account], DEFAULT_BOOK.with_prices({key: quote}))
    assert quoted_in(planned) == {("wavespeed", "nano-banana-2 1K 1:1")}


def test_a_higher_worst_cost_is_refused() -> None:
    assert "worst cost is $23.50" in differs(msgspec.structs.replace(APPROVED, worst_microusd=23_500_000))


def test_a_file_that_is_no_plan_is_told(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"type":"plan"}')
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "plan.json")
