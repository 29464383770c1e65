"""The price book: never lends a price, and says where each comes from."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.prices import DEFAULT_BOOK, Price, PriceBook, PriceKey
from adapters.registry import PROVIDERS, codec

prices = st.builds(Price, st.integers(0, 10**9), st.just("invoice"), st.just("2026-11-22"), st.just("confirmed"))
keys = st.tuples(
    st.sampled_from(["kie", "segmind"]), st.sampled_from(["a", "b"]), st.sampled_from(["1K", "2K"]), st.booleans()
)


@given(st.dictionaries(keys, prices), keys)
def test_a_price_is_for_its_own_key_only(book: dict[PriceKey, Price], key: PriceKey) -> None:
    provider, model, resolution, references = key
    quote = PriceBook(book).quote(provider, model, resolution, references=references)
    assert quote == book.get(key)


@given(st.dictionaries(keys, prices), st.dictionaries(keys, prices))
def test_prices_of_the_user_come_first_and_hide_no_other(
    book: dict[PriceKey, Price], own: dict[PriceKey, Price]
) -> None:
    assert PriceBook(book).with_prices(own).prices == book | own


@given(prices)
def test_the_ceiling_is_never_below_the_price(price: Price) -> None:
    assert price.ceiling_microusd >= price.microusd
    assert price.ceiling_microusd * 4 - price.microusd * 5 in range(4)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_price_is_for_something_the_provider_has(provider: str) -> None:
    record = codec(provider).capabilities
    for (owner, model, resolution, _), price in DEFAULT_BOOK.prices.items():
        if owner == provider:
            known = record.model(model)
            assert known is not None
            assert known.name == model
            assert resolution in known.resolutions
            assert price.source
            assert re.fullmatch(r"\d{4}-\d\d-\d\d", price.date)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("references", [False, True])
def test_more_pixels_never_cost_less(provider: str, references: bool) -> None:
    for model in ("nano-banana-2", "nano-banana-pro"):
        quotes = [DEFAULT_BOOK.quote(provider, model, size, references=references) for size in ("1K", "2K", "4K")]
        costs = [quote.microusd for quote in quotes if quote]
        assert all(small <= large for small, large in pairwise(costs))


def test_the_figures_of_the_article_are_the_default() -> None:
    article = {
        "kie": (60_000, 90_000, 130_000),
        "replicate": (67_000, 101_000, 151_000),
        "segmind": (84_000, 126_000, 168_000),
        "toapis": (65_000, 98_000, 145_000),
    }
    for provider, costs in article.items():
        for resolution, cost in zip(("1K", "2K", "4K"), costs, strict=True):
            quote = DEFAULT_BOOK.quote(provider, "nano-banana-2", resolution, references=True)
            assert quote is not None
            assert quote.microusd == cost
            assert DEFAULT_BOOK.ceiling(provider, "nano-banana-2", resolution, True) == cost * 5 // 4


def test_what_no_source_names_has_no_price() -> None:
    assert DEFAULT_BOOK.quote("kie", "nano-banana", "1K", references=False) is None
    assert DEFAULT_BOOK.ceiling("segmind", "nano-banana-pro", "1K", False) is None
    assert DEFAULT_BOOK.quote("kie", "nano-banana-2", "0.5K", references=False) is None
