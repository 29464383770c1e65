"""What a batch cost then, and what the same would cost now: told before anything is bought again.

Then: what providers charged, from the events.  Now: the plan that will be shown for consent.  The price of one image is
told per provider, model, resolution, and with or without references, because that is what a price belongs to.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import msgspec

from adapters import registry
from adapters.prices import PriceBook
from bydawn.cli.formats import count, counted, dollars, moment
from ledger.money import batch_money
from ledger.past import Bought, bought
from ledger.reader import Reader
from runtime.accounts import Account
from runtime.planning import Plan

_UNSETTLED = ("queued", "intended", "ambiguous", "accepted", "ready", "held")


class PriceChange(msgspec.Struct, frozen=True):
    """One image then and now.  ``now_microusd`` None: nothing is bought there now, and ``why`` tells the reason."""

    provider: str
    model: str
    resolution: str
    references: bool
    images: int
    then_microusd: int
    now_microusd: int | None
    why: str = ""


class Version(msgspec.Struct, frozen=True):
    """Which version of a model made how many images, as the provider told it."""

    provider: str
    model: str
    version: str
    images: int


class Differences(msgspec.Struct, frozen=True):
    """A batch then, and the same again.  ``states``: how its tasks stand; ``new`` providers were not bought from."""

    batch: str
    opened_at_us: int
    images: int
    cost_microusd: int
    states: dict[str, int]
    prices: tuple[PriceChange, ...]
    versions: tuple[Version, ...]
    new: dict[str, int]
    now_images: int
    now_expected_microusd: int


def differences(
    reader: Reader,
    batch: int,
    plan: Plan,
    accounts: Sequence[Account],
    book: PriceBook,
    *,
    keys: Collection[str],
) -> Differences:
    """Compare a batch with the plan of its rerun.  ``keys``: the providers that have a key here."""
    state = reader.batch(batch)
    made = bought(reader, batch)
    states: Counter[str] = Counter()
    for row in reader.counts(batch):
        states[row.state] += row.n
    then = {each.provider for each in made}
    money = reader.money(batch_money(batch)).get(batch_money(batch))
    new: Counter[str] = Counter()
    for part in plan.accounts:
        if part.images and part.provider not in then:
            new[part.provider] += part.images
    return Differences(
        batch=state.name,
        opened_at_us=state.opened_at_us,
        images=sum(each.images for each in made),
        cost_microusd=money.captured if money is not None else 0,
        states=dict(states),
        prices=tuple(_change(shape, rows, accounts, book, keys) for shape, rows in _by_shape(made).items()),
        versions=versions_of(made),
        new=dict(new),
        now_images=plan.images,
        now_expected_microusd=plan.expected_microusd,
    )


def versions_of(made: Sequence[Bought]) -> tuple[Version, ...]:
    """The versions that made the images, where providers told one."""
    found: Counter[tuple[str, str, str]] = Counter()
    for each in made:
        if each.version:
            found[each.provider, each.model, each.version] += each.images
    return tuple(Version(*key, images) for key, images in sorted(found.items()))


def _by_shape(made: Sequence[Bought]) -> Mapping[tuple[str, str, str, bool], list[Bought]]:
    shapes: dict[tuple[str, str, str, bool], list[Bought]] = {}
    for each in made:
        shapes.setdefault((each.provider, each.model, each.resolution, each.references), []).append(each)
    return shapes


def _change(
    shape: tuple[str, str, str, bool],
    rows: Sequence[Bought],
    accounts: Sequence[Account],
    book: PriceBook,
    keys: Collection[str],
) -> PriceChange:
    provider, model, resolution, references = shape
    images = sum(row.images for row in rows)
    then = round(sum(row.cost_microusd for row in rows) / images)
    account = next((each for each in accounts if each.provider == provider), None)
    if account is None:
        return PriceChange(provider, model, resolution, references, images, then, None, _why_not(provider, keys))
    record = account.codec.capabilities.model(model)
    if record is None:
        return PriceChange(provider, model, resolution, references, images, then, None, "it has this model no more")
    price = book.quote(provider, record.name, resolution, references=references)
    if price is None:
        return PriceChange(provider, model, resolution, references, images, then, None, "no price is known now")
    return PriceChange(provider, model, resolution, references, images, then, price.microusd)


def _why_not(provider: str, keys: Collection[str]) -> str:
    if provider not in registry.entries():
        return "there is no such provider any more"
    if provider not in keys:
        return f"no key is set ({registry.codec(provider).capabilities.key_env})"
    return "it is not among the chosen providers"


def difference_lines(found: Differences, *, erased: int, left_out: int) -> list[str]:
    """The comparison as people read it."""
    lines = [
        f"then: {counted(found.images, 'image')} for {dollars(found.cost_microusd)} (batch {found.batch}, begun "
        f"{moment(found.opened_at_us)})",
        f"now:  {counted(found.now_images, 'image')} for about {dollars(found.now_expected_microusd)}",
    ]
    for each in found.prices:
        what = f"  {each.provider} {each.model} {each.resolution}" + (" with references" if each.references else "")
        then = f"{what}: {counted(each.images, 'image')} at {dollars(each.then_microusd)} then"
        if each.now_microusd is None:
            lines.append(f"{then}, not bought there now: {each.why}")
        elif each.now_microusd == each.then_microusd:
            lines.append(f"{then}, the same now")
        else:
            lines.append(f"{then}, {dollars(each.now_microusd)} now{_percent(each.then_microusd, each.now_microusd)}")
    for provider, images in found.new.items():
        lines.append(f"  {provider}: no image then, {count(images)} now")
    for version in found.versions:
        lines.append(
            f"  {version.provider} {version.model}: {counted(version.images, 'image')} by version {version.version}"
        )
    unsettled = sum(found.states.get(state, 0) for state in _UNSETTLED)
    if unsettled:
        lines.append(f"{counted(unsettled, 'task')} of {found.batch} are not settled there; they are bought here, too")
    missed = [f"{count(found.states[state])} {state}" for state in ("failed", "cancelled") if found.states.get(state)]
    if missed:
        lines.append(f"what {found.batch} has no image of is wanted again, too: {', '.join(missed)}")
    if erased:
        lines.append(f"left out: {counted(erased, 'task')} whose texts were erased")
    if left_out:
        lines.append(f"left out: {counted(left_out, 'task')} that cannot be asked for again")
    return lines


def version_lines(then: Sequence[Version], now: Sequence[Version]) -> list[str]:
    """Say which models were of another version this time; only where both times were told."""
    lines = []
    for provider, model in dict.fromkeys((each.provider, each.model) for each in now):
        before, after = (
            sorted({each.version for each in told if (each.provider, each.model) == (provider, model)})
            for told in (then, now)
        )
        if before and before != after:
            lines.append(f"{provider} {model}: by version {', '.join(after)} now, {', '.join(before)} then")
    return lines


def _percent(then: int, now: int) -> str:
    return f" ({100 * (now - then) / then:+.0f} %)" if then else ""
