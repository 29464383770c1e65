"""What one image costs at an account: the question that whoever buys and whoever books asks of a price book."""

from collections.abc import Callable
from typing import TypeAlias

from adapters.base import ImageRequest
from adapters.prices import Price, PriceBook
from runtime.accounts import Account

Quote: TypeAlias = Callable[[Account, ImageRequest], Price | None]
"""None = unknown = not bought."""


def quote_by(prices: PriceBook) -> Quote:
    """Ask this price book."""

    def quote(account: Account, request: ImageRequest) -> Price | None:
        record = account.codec.capabilities.model(request.model)
        name = record.name if record else request.model  # a provider's own id is priced under bydawn's name
        return prices.quote(account.provider, name, request.resolution, references=bool(request.references))

    return quote
