"""What a batch will cost and how long it will take, before anything is spent.

Pure: counts of tasks, accounts and prices in, a :class:`Plan` out.  The plan models what the router does.  It
buys from the cheapest lane with room, and while there are more tasks than room everywhere, all lanes work at
once, each as fast as its limits allow.  So the cheapest accounts fill first, and what is left is shared out by
throughput.  The model is simple on purpose: every figure in it can be explained to the person who pays.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from adapters.base import ImageRequest
from adapters.prices import Price, PriceBook, PriceKey
from runtime.accounts import Account

POLLS_PER_TASK = 1.5  # the bar of performance.md; webhooks need fewer
LEDGER_BYTES_PER_TASK = 2_200
# Generous: PNGs of photographs.  Disk that stays free harms nobody.
IMAGE_BYTES: Mapping[str, int] = {"0.5K": 600_000, "1K": 2_000_000, "2K": 7_000_000, "4K": 24_000_000}
_ELSEWHERE = "these rows are not for it (prompt too long, references it does not take, or another provider named)"
_REFERENCE = ("https://example.com/reference.png",)


class Group(msgspec.Struct, frozen=True):
    """Tasks that are alike for the planner, counted.

    ``takers`` are the providers that can take them, ``shared`` how many repeat another one of the group and are
    bought once with it.
    """

    model: str
    aspect: str
    resolution: str
    references: bool
    takers: tuple[str, ...]
    count: int
    shared: int = 0

    @property
    def images(self) -> int:
        """How many are bought."""
        return self.count - self.shared

    def __str__(self) -> str:
        return f"{self.model} {self.resolution} {self.aspect}" + (" with references" if self.references else "")


class AccountPlan(msgspec.Struct, frozen=True):
    """One account's part.  ``alone_s`` is how long it would take for all it can take, without the others."""

    account: str
    provider: str
    can_take: int
    images: int  # in the mix
    prices: tuple[tuple[str, Price], ...]  # group in words -> price
    expected_microusd: int  # of its part in the mix
    alone_microusd: int  # for all it can take
    finish_s: float
    alone_s: float
    per_second: float
    why: str
    problems: tuple[str, ...] = ()  # what it cannot take, and why


class Uncovered(msgspec.Struct, frozen=True):
    """Tasks that no chosen account may buy, with the reason per account."""

    group: Group
    reasons: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True):
    """``low``: every image at its cheapest account.  ``expected``: the mix.  ``worst``: every attempt of every task is
    charged, at the highest ceiling; a budget stops before that."""

    tasks: int
    images: int
    accounts: tuple[AccountPlan, ...]
    uncovered: tuple[Uncovered, ...]
    low_microusd: int
    expected_microusd: int
    worst_microusd: int
    finish_s: float
    disk_bytes: int
    max_at_risk_microusd: int
    notes: tuple[str, ...] = ()


def default_at_risk(expected_microusd: int) -> int:
    """Return the default of ``--max-at-risk``: 2 % of the expected cost, a dollar at least, in cents (MON-3)."""
    return max(1_000_000, expected_microusd // 50 // 10_000 * 10_000)


def plan(
    groups: Iterable[Group],
    accounts: Sequence[Account],
    prices: PriceBook,
    *,
    attempts: int = 3,
    budget_microusd: int | None = None,
    deadline_s: float | None = None,
    max_at_risk_microusd: int | None = None,
) -> Plan:
    """Work out cost and time for ``groups`` on ``accounts``."""
    groups = tuple(group for group in groups if group.count > 0)
    lines = [_Line(account, groups, prices, deadline_s) for account in accounts]
    covered = [group for group in groups if any(group in line.offers for line in lines)]
    mix = _share_out(covered, lines)
    if max_at_risk_microusd is None:
        max_at_risk_microusd = default_at_risk(sum(_expected(line, mix) for line in lines))
    bound = [line for line in lines if line.bound_by(max_at_risk_microusd)]
    if bound:
        mix = _share_out(covered, lines)
    low = expected = worst = 0
    for group in covered:
        offers = [line.offers[group] for line in lines if group in line.offers]
        low += group.images * min(offer.microusd for offer in offers)
        worst += group.images * attempts * max(offer.ceiling_microusd for offer in offers)
    parts = tuple(_account_plan(line, mix, images=sum(group.images for group in groups)) for line in lines)
    expected = sum(part.expected_microusd for part in parts)
    finish_s = max((part.finish_s for part in parts), default=0.0)
    return Plan(
        tasks=sum(group.count for group in groups),
        images=sum(group.images for group in groups),
        accounts=parts,
        uncovered=tuple(
            Uncovered(group, tuple(line.refusals[group] for line in lines)) for group in groups if group not in covered
        ),
        low_microusd=low,
        expected_microusd=expected,
        worst_microusd=worst,
        finish_s=finish_s,
        disk_bytes=sum(
            group.images * IMAGE_BYTES.get(group.resolution, IMAGE_BYTES["4K"]) + group.count * LEDGER_BYTES_PER_TASK
            for group in groups
        ),
        max_at_risk_microusd=max_at_risk_microusd,
        notes=(
            *_notes(expected, worst, finish_s, budget_microusd, deadline_s),
            *(_risk_note(line, max_at_risk_microusd) for line in bound if mix[line.account.name]),
        ),
    )


class _Line:
    """One account as the model sees it."""

    def __init__(self, account: Account, groups: Sequence[Group], prices: PriceBook, deadline_s: float | None) -> None:
        capabilities = account.codec.capabilities
        self.account = account
        self.offers: dict[Group, Price] = {}
        self.refusals: dict[Group, str] = {}
        lanes: set[str] = set()
        for group in groups:
            late = too_late(account, deadline_s)
            offer = late if late is not None else _offer(account, group, prices)
            if isinstance(offer, str):
                self.refusals[group] = offer
            else:
                self.offers[group] = offer
                lanes.add(account.codec.lane(sample(group)))
        width = account.max_inflight or capabilities.max_concurrency.value
        self.in_flight = max(1, len(lanes)) * width
        self.latency_s = account.latency_s or capabilities.typical_latency_s.value
        submits = account.submit_rate
        files = capabilities.batch_file
        self.by_file = files is not None
        if files is not None:  # one call buys a whole file, and a look at a batch is for all its lines
            self.burst = float(submits.count * files.value.lines)
            self.submits_per_s = self.burst / submits.per_s
        elif capabilities.polls_share_submit_rate.value:
            share = 1 / (1 + POLLS_PER_TASK)
            self.burst = submits.count * share
            self.submits_per_s = submits.count / submits.per_s * share
        else:
            polls = account.query_rate
            self.burst = float(submits.count)
            self.submits_per_s = min(submits.count / submits.per_s, polls.count / polls.per_s / POLLS_PER_TASK)
        self._set_speed()

    def _set_speed(self) -> None:
        self.per_second = min(self.submits_per_s, self.in_flight / max(self.latency_s, 0.001))
        at_once = int(self.burst) if self.by_file else max(2, int(self.submits_per_s))
        self.first_room = min(self.in_flight, at_once)

    def bound_by(self, max_at_risk_microusd: int) -> bool:
        """Be no wider than the money at risk allows; whether that is narrower than the account's own limits.

        A synchronous call is in doubt from its first byte to its last one, so the cap is its concurrency (MON-3).
        """
        if self.account.codec.capabilities.shape.value != "sync" or not self.offers:
            return False
        width = max(1, max_at_risk_microusd // max(offer.ceiling_microusd for offer in self.offers.values()))
        if width >= self.in_flight:
            return False
        self.in_flight = width
        self._set_speed()
        return True

    def seconds(self, images: int) -> float:
        """How long this account takes for so many images, from the first submit to the last result."""
        if images == 0:
            return 0.0
        submitting = max(0.0, images - self.burst) / self.submits_per_s
        waiting = max(0, images - self.in_flight) * self.latency_s / self.in_flight
        return self.latency_s + max(submitting, waiting)


def price_key(account: Account, group: Group) -> PriceKey:
    """Name what a group is priced under at an account: a provider's own id counts as bydawn's name."""
    record = account.codec.capabilities.model(group.model)
    return account.provider, record.name if record else group.model, group.resolution, group.references


def refusal(account: Account, group: Group) -> str | None:
    """Say why the account takes none of a group, whatever it costs; None when it does."""
    if account.provider not in group.takers:
        problem = account.codec.problem(sample(group))
        return f"{account.name}: {problem or _ELSEWHERE}"
    _, name, *_ = price_key(account, group)
    if account.models and not {name, group.model} & set(account.models):
        return f"{account.name}: its settings allow only {', '.join(account.models)}"
    return None


def sample(group: Group) -> ImageRequest:
    """Make a request of the group's shape, with nothing of the user's in it."""
    references = _REFERENCE if group.references else ()
    return ImageRequest("x", group.model, group.aspect, group.resolution, references)


def too_late(account: Account, deadline_s: float | None) -> str | None:
    """Say why nothing is bought here before a deadline that comes sooner than an image usually does."""
    if deadline_s is None or account.latency <= deadline_s:
        return None
    return (
        f"{account.name}: an image usually takes {_span(account.latency)} there, "
        f"and the deadline comes in {_span(max(0.0, deadline_s))}"
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _offer(account: Account, group: Group, prices: PriceBook) -> Price | str:
    """Return the price at which the account takes a group, or why it does not."""
    refused = refusal(account, group)
    if refused is not None:
        return refused
    key = price_key(account, group)
    price = prices.prices.get(key)
    if price is None:
        name = key[1]
        return (
            f"{account.name}: no price is known for {name} at {group.resolution}; what has no price is not bought.  "
            f'Set one in bydawn.toml: [prices.{account.provider}.{name}] "{group.resolution}" = 0.10'
        )
    return price


def _share_out(groups: Sequence[Group], lines: Sequence[_Line]) -> dict[str, dict[Group, int]]:
    """Say how many images of each group each account makes: whole numbers that add up."""
    left = {group: float(group.images) for group in groups}
    given: dict[Group, dict[str, float]] = {group: {} for group in groups}
    room = {line.account.name: float(line.first_room) for line in lines}

    def give(group: Group, line: _Line, images: float) -> None:
        name = line.account.name
        given[group][name] = given[group].get(name, 0.0) + images
        left[group] -= images

    for group in groups:  # the first moment: the cheapest account with room
        takers = [line for line in lines if group in line.offers]
        for line in sorted(takers, key=lambda line: (line.offers[group].microusd, line.account.name)):
            images = min(room[line.account.name], left[group])
            room[line.account.name] -= images
            give(group, line, images)
    while any(left.values()):  # then everybody works until the next group is used up
        speeds: dict[Group, list[tuple[_Line, float]]] = {group: [] for group in left if left[group]}
        for line in lines:
            mine = [group for group in speeds if group in line.offers]
            total = sum(left[group] for group in mine)
            for group in mine:
                speeds[group].append((line, line.per_second * left[group] / total))
        ends = {group: left[group] / sum(speed for _, speed in working) for group, working in speeds.items()}
        step = min(ends.values())
        for group, working in speeds.items():
            if ends[group] <= step * (1 + 1e-9):
                step_of_group, left_after = ends[group], 0.0
            else:
                step_of_group, left_after = step, left[group] - step * sum(speed for _, speed in working)
            for line, speed in working:
                give(group, line, speed * step_of_group)
            left[group] = left_after
    whole: dict[str, dict[Group, int]] = {line.account.name: {} for line in lines}
    for group, parts in given.items():
        for name, images in _rounded(parts, group.images).items():
            whole[name][group] = images
    return whole


def _rounded(parts: Mapping[str, float], total: int) -> dict[str, int]:
    """Round to whole numbers that add up to ``total``: the largest remainders get what is missing."""
    floors = {name: int(value + 1e-6) for name, value in parts.items()}
    missing = total - sum(floors.values())
    # Rounded: sums of the same speeds in another order differ in their last bits.
    for name in sorted(parts, key=lambda name: (round(floors[name] - parts[name], 6), name))[:missing]:
        floors[name] += 1
    return floors


def _account_plan(line: _Line, mix: Mapping[str, Mapping[Group, int]], *, images: int) -> AccountPlan:
    mine = mix[line.account.name]
    part = sum(mine.values())
    can_take = sum(group.images for group in line.offers)
    expected = _expected(line, mix)
    return AccountPlan(
        account=line.account.name,
        provider=line.account.provider,
        can_take=can_take,
        images=part,
        prices=tuple(dict.fromkeys((str(group), price) for group, price in line.offers.items())),
        expected_microusd=expected,
        alone_microusd=sum(group.images * price.microusd for group, price in line.offers.items()),
        finish_s=line.seconds(part),
        alone_s=line.seconds(can_take),
        per_second=line.per_second,
        why=_why(line, part, can_take, images, expected),
        problems=tuple(dict.fromkeys(line.refusals.values())),
    )


def _expected(line: _Line, mix: Mapping[str, Mapping[Group, int]]) -> int:
    return sum(count * line.offers[group].microusd for group, count in mix[line.account.name].items())


def _risk_note(line: _Line, max_at_risk_microusd: int) -> str:
    return (
        f"{line.account.name} answers with the image itself, so every open call is money at risk: at most "
        f"{line.in_flight} at once under {usd(max_at_risk_microusd)}; --max-at-risk raises that"
    )


def _why(line: _Line, part: int, can_take: int, images: int, expected: int) -> str:
    if not line.offers:
        return "not used: it can take none of these tasks"
    costs = sorted({price.microusd for price in line.offers.values()})
    span = usd(costs[0]) if len(costs) == 1 else f"{usd(costs[0])} to {usd(costs[-1])}"
    narrow = "rate limit" if line.submits_per_s <= line.per_second else "jobs in flight"
    if all(price.quoted for price in line.offers.values()):
        span += " (quoted)"
    text = f"{span} an image, {line.per_second:.1f} a second ({narrow}), gets {part:,} of the {can_take:,} it can take"
    if can_take < images:
        text += f" (of {images:,})"
    budget = line.account.budget_microusd
    if budget is not None and expected > budget:
        text += f"; its own budget of {usd(budget)} ends before that"
    return text


def _notes(expected: int, worst: int, finish_s: float, budget: int | None, deadline_s: float | None) -> Iterable[str]:
    if budget is not None and budget < expected:
        yield f"the budget of {usd(budget)} ends before the batch does: {usd(expected)} are expected"
    elif budget is not None and budget < worst:
        yield f"the budget of {usd(budget)} holds the worst case of {usd(worst)} back"
    if deadline_s is not None and finish_s > deadline_s:
        yield f"the deadline comes about {(finish_s - deadline_s) / 60:,.0f} minutes before the end"


def usd(microusd: int) -> str:
    """Write dollars with two to six decimals, exactly."""
    whole, micro = divmod(abs(microusd), 1_000_000)
    decimals = f"{micro:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if microusd < 0 else ''}${whole:,}.{decimals}"
