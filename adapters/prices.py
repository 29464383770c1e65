"""The price book: what one image costs, where the figure comes from, and how sure it is.

A price is for a provider, a model, a resolution, with or without reference images, and is never lent to another
one: what is not in the book is not bought.  Figures that users set replace the book's.  An intent reserves the
*ceiling*, which is the price and a margin: providers round, and the published figures of one provider differ by
some per cent among themselves (Segmind 4K: 0.168 and 0.175).  A charge above the ceiling parks the account.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import msgspec

from adapters.capabilities import Mark

CEILING_PERCENT = 125

_ARTICLE = "price tables of the comparison of Nano Banana batch providers that bydawn started from"
_LIGHT_PLAN = _ARTICLE + ": token plan Light, 30.10 dollars for about 140 images"
_TOGETHER = "https://docs.together.ai/docs/serverless/models"
# What their quote endpoint told a user on 2026-09-15.
_WAVESPEED_QUOTES = "https://github.com/Wujidadi/image-generation-with-wavespeed-api documents/price.md"
_GOOGLE = "https://ai.google.dev/gemini-api/docs/pricing"
_CREDITS = "NewportAI names no price per image: Google's, in credits of the pack of 8,000 for $60, rounded up"
_READ = "2026-11-22"


class Price(msgspec.Struct, frozen=True):
    """``microusd`` is expected per image, ``ceiling_microusd`` the most that is reserved for one.

    ``quoted``: the provider itself said so, to us, for this run.
    """

    microusd: int
    source: str
    date: str  # the day it was read, ISO
    mark: Mark
    quoted: bool = False

    @property
    def ceiling_microusd(self) -> int:
        return -(-self.microusd * CEILING_PERCENT // 100)


PriceKey: TypeAlias = tuple[str, str, str, bool]  # provider, model, resolution, with references


class PriceBook(msgspec.Struct, frozen=True):
    """Look prices up with :meth:`quote`; the model is bydawn's name, not the provider's id."""

    prices: Mapping[PriceKey, Price]

    def quote(self, provider: str, model: str, resolution: str, *, references: bool) -> Price | None:
        """Return the price, None when there is none: then it must not be bought."""
        return self.prices.get((provider, model, resolution, references))

    def ceiling(self, provider: str, model: str, resolution: str, references: bool, /) -> int | None:
        """Return what an intent reserves for one image, None when there is no price."""
        price = self.quote(provider, model, resolution, references=references)
        return None if price is None else price.ceiling_microusd

    def with_prices(self, prices: Mapping[PriceKey, Price]) -> "PriceBook":
        """Return a book in which ``prices`` come first."""
        return PriceBook({**self.prices, **prices})


def _both(
    provider: str, model: str, usd: Mapping[str, str], source: str, mark: Mark
) -> Iterable[tuple[PriceKey, Price]]:
    """No source names another price with references, and for these models Google's own price has none."""
    for resolution, amount in usd.items():
        whole, _, cents = amount.partition(".")
        price = Price(int(whole) * 1_000_000 + int(cents.ljust(6, "0")), source, _READ, mark)
        for references in (False, True):
            yield (provider, model, resolution, references), price


DEFAULT_BOOK = PriceBook(
    dict(
        (
            *_both("apertis", "nano-banana-2", {"1K": "0.055", "2K": "0.085", "4K": "0.125"}, _ARTICLE, "reported"),
            *_both("apipass", "nano-banana-2", {"1K": "0.0455", "2K": "0.0682", "4K": "0.1"}, _ARTICLE, "reported"),
            *_both("byteplus", "seedream-4", {"1K": "0.215", "2K": "0.215", "4K": "0.215"}, _LIGHT_PLAN, "reported"),
            *_both("byteplus", "seedream-4.5", {"2K": "0.215", "4K": "0.215"}, _LIGHT_PLAN, "reported"),
            *_both("byteplus", "seedream-5", {"2K": "0.215"}, _LIGHT_PLAN, "reported"),
            *_both("byteplus", "seedream-5-pro", {"2K": "0.215"}, _LIGHT_PLAN, "reported"),
            *_both(
                "google",
                "nano-banana-2",
                {"0.5K": "0.045", "1K": "0.067", "2K": "0.101", "4K": "0.151"},
                _GOOGLE,
                "reported",
            ),
            *_both("google", "nano-banana-pro", {"1K": "0.134", "2K": "0.134", "4K": "0.24"}, _GOOGLE, "reported"),
            *_both("google", "nano-banana", {"1K": "0.039"}, _GOOGLE, "reported"),
            *_both(
                "google-batch",
                "nano-banana-2",
                {"0.5K": "0.0224", "1K": "0.0336", "2K": "0.0504", "4K": "0.0756"},
                _GOOGLE,
                "reported",
            ),
            *_both(
                "google-batch", "nano-banana-pro", {"1K": "0.067", "2K": "0.067", "4K": "0.12"}, _GOOGLE, "reported"
            ),
            *_both("google-batch", "nano-banana", {"1K": "0.0195"}, _GOOGLE, "reported"),
            *_both("kie", "nano-banana-2", {"1K": "0.06", "2K": "0.09", "4K": "0.13"}, _ARTICLE, "reported"),
            *_both(
                "kie",
                "nano-banana-pro",
                {"1K": "0.09", "2K": "0.09", "4K": "0.12"},
                "github.com/felores/kie-ai-mcp-server@dfdd661 docs/kie/google_nano-banana*.md (18/18/24 credits)",
                "reported",
            ),
            *_both("kie", "nano-banana-2-lite", {"1K": "0.02"}, "public clients of Kie (4 credits)", "reported"),
            *_both(
                "newportai",
                "nano-banana-2",
                {"0.5K": "0.045", "1K": "0.0675", "2K": "0.105", "4K": "0.1575"},
                _CREDITS,
                "assumed",
            ),
            *_both("newportai", "nano-banana-pro", {"1K": "0.135", "2K": "0.135", "4K": "0.24"}, _CREDITS, "assumed"),
            *_both("replicate", "nano-banana-2", {"1K": "0.067", "2K": "0.101", "4K": "0.151"}, _ARTICLE, "reported"),
            *_both(
                "replicate",
                "nano-banana-pro",
                {"1K": "0.15", "2K": "0.15", "4K": "0.30"},
                "https://lumenfall.ai/models/google/gemini-3-pro-image-preview",
                "reported",
            ),
            *_both("segmind", "nano-banana-2", {"1K": "0.084", "2K": "0.126", "4K": "0.168"}, _ARTICLE, "reported"),
            *_both(
                "segmind", "nano-banana", {"1K": "0.04"}, "https://www.segmind.com/models/nano-banana/api", "confirmed"
            ),
            *_both("together", "nano-banana-2", {"1K": "0.10", "2K": "0.15", "4K": "0.20"}, _ARTICLE, "reported"),
            *_both("together", "nano-banana", {"1K": "0.039"}, _TOGETHER, "confirmed"),
            *_both("together", "nano-banana-2-lite", {"1K": "0.069"}, _TOGETHER, "confirmed"),
            *_both("together", "nano-banana-pro", {"1K": "0.134", "2K": "0.134", "4K": "0.24"}, _TOGETHER, "confirmed"),
            *_both("toapis", "nano-banana-2", {"1K": "0.065", "2K": "0.098", "4K": "0.145"}, _ARTICLE, "reported"),
            *_both(
                "wavespeed",
                "nano-banana-2",
                {"0.5K": "0.045", "1K": "0.07", "2K": "0.105", "4K": "0.14"},
                _ARTICLE,
                "reported",
            ),
            *_both(
                "wavespeed",
                "google/nano-banana-2/text-to-image-fast",
                {"2K": "0.045", "4K": "0.05"},
                _WAVESPEED_QUOTES,
                "reported",
            ),
            *_both("wavespeed", "nano-banana-pro", {"1K": "0.14", "4K": "0.24"}, _WAVESPEED_QUOTES, "reported"),
        )
    )
)
