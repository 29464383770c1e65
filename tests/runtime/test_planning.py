"""The plan: every image is placed once, costs add up, more work never takes less time."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Secret
from adapters.capabilities import Rate
from adapters.prices import DEFAULT_BOOK, Price, PriceBook
from adapters.registry import codec
from runtime.accounts import Account
from runtime.planning import Group, default_at_risk, plan, too_late, usd

EVERYONE = ("kie", "replicate", "segmind")
ACCOUNTS = tuple(Account(name=name, provider=name, codec=codec(name), key=Secret("k")) for name in EVERYONE)

takers = st.lists(st.sampled_from(EVERYONE), min_size=1, unique=True).map(tuple)
groups = st.lists(
    st.builds(
        lambda aspect, resolution, references, who, count, shared: Group(
            "nano-banana-2", aspect, resolution, references, who, count, min(shared, count - 1)
        ),
        st.sampled_from(["1:1", "9:16", "16:9"]),
        st.sampled_from(["1K", "2K", "4K"]),
        st.booleans(),
        takers,
        st.integers(1, 100_000),
        st.integers(0, 50),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda group: (group.aspect, group.resolution, group.references, group.takers),
)
several_accounts = st.lists(st.sampled_from(ACCOUNTS), min_size=1, unique_by=lambda account: account.name)


def square(count: int, *, who: tuple[str, ...] = EVERYONE) -> Group:
    return Group("nano-banana-2", "1:1", "1K", False, who, count)


# --- laws -------------------------------------------------------------------------------------------------


@given(groups, several_accounts, st.integers(1, 5))
def test_every_image_is_placed_once_and_the_costs_add_up(
    groups: list[Group], accounts: list[Account], attempts: int
) -> None:
    made = plan(groups, accounts, DEFAULT_BOOK, attempts=attempts)
    uncovered = {part.group for part in made.uncovered}
    names = {account.provider for account in accounts}
    assert uncovered == {group for group in groups if not names & set(group.takers)}
    assert made.tasks == sum(group.count for group in groups)
    assert made.images == sum(group.count - group.shared for group in groups)
    assert sum(part.images for part in made.accounts) == made.images - sum(group.images for group in uncovered)
    assert all(0 <= part.images <= part.can_take for part in made.accounts)
    assert made.expected_microusd == sum(part.expected_microusd for part in made.accounts)
    assert made.low_microusd <= made.expected_microusd <= made.worst_microusd
    assert made.finish_s == max(part.finish_s for part in made.accounts)
    assert all(part.finish_s <= part.alone_s + 1e-6 for part in made.accounts)


@given(groups, several_accounts)
def test_the_plan_does_not_depend_on_the_order_of_accounts(groups: list[Group], accounts: list[Account]) -> None:
    one = plan(groups, accounts, DEFAULT_BOOK)
    two = plan(groups, accounts[::-1], DEFAULT_BOOK)
    assert {part.account: part.images for part in one.accounts} == {part.account: part.images for part in two.accounts}
    assert one.expected_microusd == two.expected_microusd


@given(st.integers(1, 200_000), st.integers(0, 200_000), st.sampled_from(ACCOUNTS))
def test_more_images_cost_more_and_take_no_less_time(count: int, more: int, account: Account) -> None:
    small = plan([square(count)], [account], DEFAULT_BOOK)
    large = plan([square(count + more)], [account], DEFAULT_BOOK)
    assert small.finish_s <= large.finish_s
    assert small.expected_microusd <= large.expected_microusd
    assert small.disk_bytes <= large.disk_bytes


@given(st.integers(0, 10**12))
def test_dollars_are_exact(microusd: int) -> None:
    text = usd(microusd)
    whole, _, decimals = text.removeprefix("$").replace(",", "").partition(".")
    assert int(whole) * 1_000_000 + int(decimals.ljust(6, "0")) == microusd
    assert len(decimals) >= 2


# --- examples ---------------------------------------------------------------------------------------------


def test_few_images_go_to_the_cheapest_and_many_to_all() -> None:
    few = plan([square(2)], ACCOUNTS, DEFAULT_BOOK)
    assert {part.account: part.images for part in few.accounts} == {"kie": 2, "replicate": 0, "segmind": 0}
    assert few.expected_microusd == 120_000
    many = plan([square(10_000)], ACCOUNTS, DEFAULT_BOOK)
    shares = {part.account: part.images for part in many.accounts}
    assert shares["replicate"] > shares["kie"] > shares["segmind"] > 0
    alone = {part.account: part.alone_s for part in many.accounts}
    assert many.finish_s < min(alone.values())


def test_the_limits_of_a_provider_set_the_time() -> None:
    (kie,) = plan([square(7_218)], ACCOUNTS[:1], DEFAULT_BOOK).accounts
    assert kie.per_second == pytest.approx(1.8)
    assert kie.finish_s == pytest.approx(30 + 7_200 / 1.8)
    narrow = Account(
        name="kie",
        provider="kie",
        codec=codec("kie"),
        key=Secret("k"),
        max_inflight=3,
        rate=Rate(100, 1.0),
        latency_s=2.0,
    )
    (few,) = plan([square(9)], [narrow], DEFAULT_BOOK).accounts
    assert few.finish_s == pytest.approx(2 + 6 * 2 / 3)
    assert "jobs in flight" in few.why


def test_polls_that_count_against_the_rate_slow_it_down() -> None:
    (segmind,) = plan([square(1_000)], ACCOUNTS[2:], DEFAULT_BOOK).accounts
    assert segmind.per_second == pytest.approx(50 / 60 / 2.5)


def test_a_lane_more_is_room_for_more() -> None:
    rich = Account(
        name="s", provider="segmind", codec=codec("segmind"), key=Secret("k"), rate=Rate(1000, 1.0), max_inflight=10
    )
    one = plan([square(1_000)], [rich], DEFAULT_BOOK)
    wide = Group("nano-banana-2", "16:9", "1K", False, EVERYONE, 500)
    two = plan([square(500), wide], [rich], DEFAULT_BOOK)
    assert two.finish_s < one.finish_s


def by_file(count: int, *others: str) -> list[tuple[int, float]]:
    """Images and seconds of Google's batches, and of others beside them."""
    names = ("google-batch", *others)
    accounts = [Account(name=name, provider=name, codec=codec(name), key=Secret("k")) for name in names]
    made = plan([square(count, who=names)], accounts, DEFAULT_BOOK)
    return [(part.images, part.finish_s) for part in made.accounts]


def test_a_batch_file_takes_a_day_however_few_images_it_has() -> None:
    assert by_file(1) == [(1, 86_400.0)]
    assert by_file(6_000) == [(6_000, 86_400.0)]
    ((_, seconds),) = by_file(60_000)
    assert seconds == 86_400.0 + 40_000 / 20_000 * 86_400.0  # so many may wait, and then the next ones


def test_files_take_what_they_can_before_anything_dearer_is_bought() -> None:
    assert by_file(1_000, "google") == [(1_000, 86_400.0), (0, 0.0)]


def test_no_price_means_not_bought_and_says_how_to_set_one() -> None:
    pro = Group("nano-banana-pro", "1:1", "1K", False, EVERYONE, 10)
    made = plan([pro], ACCOUNTS, DEFAULT_BOOK)
    segmind = made.accounts[2]
    assert (segmind.can_take, segmind.images) == (0, 0)
    assert "[prices.segmind.nano-banana-pro]" in segmind.problems[0]
    assert not made.uncovered
    alone = plan([pro], ACCOUNTS[2:], DEFAULT_BOOK)
    assert [part.group for part in alone.uncovered] == [pro]
    assert "no price" in alone.uncovered[0].reasons[0]
    assert (alone.expected_microusd, alone.worst_microusd, alone.finish_s) == (0, 0, 0.0)
    own = DEFAULT_BOOK.with_prices(
        {("segmind", "nano-banana-pro", "1K", False): Price(200_000, "invoice", "2026-11-22", "confirmed")}
    )
    assert plan([pro], ACCOUNTS[2:], own).expected_microusd == 2_000_000


def test_a_price_is_found_under_the_providers_own_model_id() -> None:
    raw = Group("google/nano-banana-2", "1:1", "1K", False, ("replicate",), 3)
    made = plan([raw], ACCOUNTS, DEFAULT_BOOK)
    assert made.expected_microusd == 3 * 67_000
    assert "has no model" in made.accounts[0].problems[0]


def test_an_account_may_be_kept_to_some_models() -> None:
    kept = Account(name="kie-eu", provider="kie", codec=codec("kie"), key=Secret("k"), models=("nano-banana-pro",))
    made = plan([square(5)], [kept, *ACCOUNTS[1:]], DEFAULT_BOOK)
    assert made.accounts[0].images == 0
    assert "nano-banana-pro" in made.accounts[0].problems[0]


def test_worst_case_is_every_attempt_at_the_dearest_ceiling() -> None:
    made = plan([square(4)], ACCOUNTS, PriceBook(DEFAULT_BOOK.prices), attempts=2)
    assert made.worst_microusd == 4 * 2 * 105_000
    assert made.low_microusd == 4 * 60_000


def test_shared_tasks_are_bought_once() -> None:
    made = plan([Group("nano-banana-2", "1:1", "1K", False, EVERYONE, 10, shared=9)], ACCOUNTS, DEFAULT_BOOK)
    assert (made.tasks, made.images, made.expected_microusd) == (10, 1, 60_000)


def test_budget_deadline_and_risk_are_spoken_of() -> None:
    made = plan([square(1_000)], ACCOUNTS, DEFAULT_BOOK, budget_microusd=1_000_000, deadline_s=45.0)
    assert "the budget of $1.00 ends before the batch does" in made.notes[0]
    assert "deadline" in made.notes[1]
    assert made.max_at_risk_microusd == default_at_risk(made.expected_microusd) == 1_320_000
    assert "worst case" in plan([square(10)], ACCOUNTS, DEFAULT_BOOK, budget_microusd=1_000_000).notes[0]
    assert default_at_risk(100_000_000) == 2_000_000
    small = msgspec.structs.replace(ACCOUNTS[0], budget_microusd=100_000)
    assert "its own budget of $0.10" in plan([square(100)], [small], DEFAULT_BOOK).accounts[0].why


def test_nothing_to_do_is_a_plan_too() -> None:
    made = plan([], ACCOUNTS, DEFAULT_BOOK)
    assert (made.tasks, made.images, made.finish_s, made.expected_microusd) == (0, 0, 0.0, 0)
    assert all("none" in part.why for part in made.accounts)


def test_the_money_at_risk_bounds_a_synchronous_account_and_the_plan_says_so() -> None:
    """MON-3: every open call is in doubt until its answer has come."""
    together = Account(name="together", provider="together", codec=codec("together"), key=Secret("k"))
    group = Group("nano-banana-pro", "1:1", "1K", False, ("together",), 1000)
    prices = PriceBook({("together", "nano-banana-pro", "1K", False): Price(100_000, "test", "2026-11-22", "assumed")})
    narrow = plan([group], [together], prices, max_at_risk_microusd=1_000_000)
    wide = plan([group], [together], prices, max_at_risk_microusd=100_000_000)
    assert narrow.accounts[0].per_second * 3 < wide.accounts[0].per_second
    assert narrow.finish_s > wide.finish_s
    (note,) = narrow.notes
    assert "at most 8 at once under $1.00" in note
    assert wide.notes == ()
    assert plan([group], [together], prices).max_at_risk_microusd == default_at_risk(100_000_000)


def test_nothing_is_planned_where_an_image_takes_longer_than_the_deadline() -> None:
    day = msgspec.structs.replace(ACCOUNTS[1], name="slow", latency_s=86_400.0)
    made = plan([square(100)], [ACCOUNTS[0], day], DEFAULT_BOOK, deadline_s=8 * 3600.0)
    assert {part.account: part.images for part in made.accounts} == {"kie": 100, "slow": 0}
    assert "usually takes 24.0 h there" in made.accounts[1].problems[0]
    assert too_late(day, 600.0) == "slow: an image usually takes 24.0 h there, and the deadline comes in 10 min"
    assert str(too_late(day, 2.0)).endswith("comes in 2 s")
    assert str(too_late(day, -5.0)).endswith("comes in 0 s")
    assert too_late(day, None) is None
    assert too_late(day, 90_000.0) is None
