"""What a live check found, as a page: calls, differences, price, image; never a value of an answer."""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from adapters.base import ImageRequest
from adapters.prices import Price
from bydawn.cli.formats import dollars
from runtime.accounts import Account
from scripts.shapes import Difference


class Exchange(NamedTuple):
    """One kind of call, and where its two answers differ."""

    name: str
    status: int
    emulated_status: int
    seconds: float
    found: tuple[Difference, ...]


class Bought(NamedTuple):
    """What came of the purchase; ``problem`` is empty when an image did."""

    image: str = ""
    cost_microusd: int | None = None
    problem: str = ""
    code: int = 0


def report(
    account: Account, request: ImageRequest, price: Price, exchanges: Collection[Exchange], bought: Bought
) -> Iterator[str]:
    """Write what was found as a page."""
    caps = account.codec.capabilities
    found = sum(len(each.found) + (each.status != each.emulated_status) for each in exchanges)
    told = "not told" if bought.cost_microusd is None else dollars(bought.cost_microusd)
    yield f"# Live check of {caps.title}"
    yield ""
    yield f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, at {'another base URL' if account.base_url else caps.base_url}."
    yield f"One image of `{request.model}`, {request.aspect}, {request.resolution}."
    yield ""
    yield f"- {'Differences' if found else 'No differences'} between its answers and the emulator's" + (
        f": {found}." if found else "."
    )
    yield f"- Price: {dollars(price.microusd)} by the book ({price.mark}: {price.source}); charged: {told}."
    yield f"- Image: {bought.image or bought.problem}."
    yield ""
    yield "| call | status | emulator's | seconds | differences |"
    yield "|---|---|---|---|---|"
    for each in exchanges:
        yield f"| {each.name} | {each.status} | {each.emulated_status} | {each.seconds:.2f} | {len(each.found) or ''} |"
    if any(each.found for each in exchanges):
        yield ""
        yield "| call | field | the provider has | the emulator has |"
        yield "|---|---|---|---|"
        for each in exchanges:
            for difference in each.found:
                real, emulated = difference.real or "-", difference.emulated or "-"
                yield f"| {each.name} | `{difference.field}` | {real} | {emulated} |"
    yield ""
    yield f"For `docs/providers/{caps.provider}.md`: Last live check: {datetime.now(UTC):%Y-%m-%d}."
