"""Which providers there are, where the codec of each lives, and which emulator serves it.

Modules are imported when they are first asked for: a batch over one provider loads one dialect, and the names of
the sandbox classes are kept here as text, so that reading them imports nothing of the sandbox.

``PROVIDERS`` are those that bydawn brings along.  A package adds one of its own by an entry point of the group
``bydawn.providers`` whose object is an :class:`Entry` (``docs/how-to/add-a-provider.md``).  Looking for such packages
costs some 40 ms, 90 when the disk is cold, so it is done once and only when somebody asks for :func:`entries`, for
:func:`price_book` or for a provider that is not our own.
"""

import functools
import importlib
import re
from collections.abc import Mapping
from typing import cast

import msgspec

from adapters.base import Codec
from adapters.capabilities import Capabilities
from adapters.prices import DEFAULT_BOOK, Price, PriceBook, PriceKey

GROUP = "bydawn.providers"

_NAME = re.compile(r"[a-z][a-z0-9-]{1,31}")
_TAKEN = frozenset(("files", "sandbox"))  # what the sandbox serves besides providers
_METHODS = ("problem", "lane", "build_submit", "read_submit", "build_check", "read_check")


class Entry(msgspec.Struct, frozen=True):
    """``module:object`` of a provider's codec instance and of its emulator class.

    ``named_only``: it joins a batch only when the user names it.  ``prices``: ``module:object`` of what a package adds
    to the price book, for its own provider; empty = its users set them.
    """

    codec: str
    emulator: str
    named_only: bool = False
    prices: str = ""


class Added(msgspec.Struct, frozen=True):
    """What packages add.  ``left_out`` tells of each entry point that cannot be used the reason, in words."""

    entries: Mapping[str, Entry]
    prices: Mapping[PriceKey, Price]
    left_out: Mapping[str, str]


PROVIDERS: dict[str, Entry] = {
    "apertis": Entry("adapters.apertis:APERTIS", "adapters.sandbox.apertis:ApertisEmulator"),
    "apipass": Entry("adapters.apipass:APIPASS", "adapters.sandbox.apipass:ApiPassEmulator"),
    "byteplus": Entry("adapters.byteplus:BYTEPLUS", "adapters.sandbox.byteplus:BytePlusEmulator", named_only=True),
    "google": Entry("adapters.google:GOOGLE", "adapters.sandbox.google:GoogleEmulator"),
    "google-batch": Entry(
        "adapters.googlebatch:GOOGLE_BATCH", "adapters.sandbox.google:GoogleBatchEmulator", named_only=True
    ),
    "kie": Entry("adapters.kie:KIE", "adapters.sandbox.kie:KieEmulator"),
    "newportai": Entry("adapters.newportai:NEWPORTAI", "adapters.sandbox.newportai:NewportAiEmulator"),
    "replicate": Entry("adapters.replicate:REPLICATE", "adapters.sandbox.replicate:ReplicateEmulator"),
    "segmind": Entry("adapters.segmind:SEGMIND", "adapters.sandbox.segmind:SegmindEmulator"),
    "toapis": Entry("adapters.toapis:TOAPIS", "adapters.sandbox.toapis:ToapisEmulator"),
    "together": Entry("adapters.together:TOGETHER", "adapters.sandbox.together:TogetherEmulator"),
    "wavespeed": Entry("adapters.wavespeed:WAVESPEED", "adapters.sandbox.wavespeed:WaveSpeedEmulator"),
}


def entries() -> Mapping[str, Entry]:
    """Give all providers by name: our own, and those of packages that can be used."""
    return {**PROVIDERS, **added().entries}


def price_book() -> PriceBook:
    """Give the prices that apply where the user sets none."""
    return DEFAULT_BOOK.with_prices(added().prices)


@functools.cache
def added() -> Added:
    """Look once for what packages add.  One that is broken is left out and never disturbs the others."""
    from importlib.metadata import entry_points

    points = sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))
    names = [point.name for point in points]
    found: dict[str, Entry] = {}
    prices: dict[PriceKey, Price] = {}
    left_out: dict[str, str] = {}
    for point in points:
        try:
            if names.count(point.name) > 1:
                raise ValueError("more than one package adds a provider of this name")
            entry, own = _checked(point.name, point.load())
        except Exception as exc:  # whatever the code of strangers does
            left_out[f"{point.name} = {point.value}"] = f"{type(exc).__name__}: {exc}"
        else:
            found[point.name] = entry
            prices |= own
    return Added(found, prices, left_out)


def _checked(name: str, entry: object) -> tuple[Entry, Mapping[PriceKey, Price]]:
    """Refuse what would fail later, in the middle of a batch: everything that can be seen without buying.

    The emulator is not loaded: only a sandbox needs it.
    """
    if name in PROVIDERS:
        raise ValueError("bydawn has a provider of this name itself")
    if _NAME.fullmatch(name) is None or name in _TAKEN:
        raise ValueError("a provider's name is 2 to 32 of a-z, 0-9 and -, and neither files nor sandbox")
    if not isinstance(entry, Entry):
        raise TypeError("the object is no adapters.registry.Entry")
    speaker = load(entry.codec)
    record = getattr(speaker, "capabilities", None)
    missing = [method for method in _METHODS if not callable(getattr(speaker, method, None))]
    if missing or not isinstance(record, Capabilities):
        raise TypeError(f"{entry.codec} is no codec: it has no {', '.join(missing) or 'capability record'}")
    if record.provider != name:
        raise ValueError(f"its capability record speaks of {record.provider!r}")
    prices = load(entry.prices) if entry.prices else {}
    if not isinstance(prices, Mapping) or not all(isinstance(price, Price) for price in prices.values()):
        raise TypeError(f"{entry.prices} is no mapping to adapters.prices.Price")
    if not all(isinstance(price.microusd, int) and price.microusd > 0 for price in prices.values()):
        raise ValueError("a price is a whole number of micro-dollars above zero")
    foreign = sorted({str(key[0]) for key in prices if key[0] != name})
    if foreign:
        raise ValueError(f"it sets prices of {', '.join(foreign)}")
    return entry, prices


def codec(provider: str) -> Codec:
    """Give a provider's codec.

    Raises:
        ValueError: there is no such provider; the text names those there are.
    """
    entry = PROVIDERS.get(provider) or added().entries.get(provider)
    if entry is None:
        raise ValueError(f"no provider {provider!r}; there are {', '.join(entries())}")
    return cast(Codec, load(entry.codec))


def find(provider: str) -> Codec | None:
    """Give a provider's codec; None where there is none of this name, such as one whose package is no longer here."""
    return codec(provider) if provider in PROVIDERS or provider in added().entries else None


def load(path: str) -> object:
    """Import what a ``module:object`` text of this registry names."""
    module, _, name = path.partition(":")
    found: object = getattr(importlib.import_module(module), name)
    return found
