"""Which providers there are, where the codec of each lives, and which emulator serves it.

Modules are imported when they are first asked for: a batch over one provider loads one dialect, and the names of
the sandbox classes are kept here as text, so that reading them imports nothing of the sandbox.
"""

import importlib
from typing import cast

import msgspec

from adapters.base import Codec


class Entry(msgspec.Struct, frozen=True):
    """``module:object`` of a provider's codec instance and of its emulator class.

    ``named_only``: it joins a batch only when the user names it.
    """

    codec: str
    emulator: str
    named_only: bool = False


PROVIDERS: dict[str, Entry] = {
    "apipass": Entry("adapters.apipass:APIPASS", "adapters.sandbox.apipass:ApiPassEmulator"),
    "kie": Entry("adapters.kie:KIE", "adapters.sandbox.kie:KieEmulator"),
    "replicate": Entry("adapters.replicate:REPLICATE", "adapters.sandbox.replicate:ReplicateEmulator"),
    "segmind": Entry("adapters.segmind:SEGMIND", "adapters.sandbox.segmind:SegmindEmulator"),
    "toapis": Entry("adapters.toapis:TOAPIS", "adapters.sandbox.toapis:ToapisEmulator"),
    "together": Entry("adapters.together:TOGETHER", "adapters.sandbox.together:TogetherEmulator"),
    "wavespeed": Entry("adapters.wavespeed:WAVESPEED", "adapters.sandbox.wavespeed:WaveSpeedEmulator"),
}


def codec(provider: str) -> Codec:
    """Give a provider's codec.

    Raises:
        ValueError: there is no such provider; the text names those there are.
    """
    entry = PROVIDERS.get(provider)
    if entry is None:
        raise ValueError(f"no provider {provider!r}; there are {', '.join(PROVIDERS)}")
    return cast(Codec, load(entry.codec))


def load(path: str) -> object:
    """Import what a ``module:object`` text of this registry names."""
    module, _, name = path.partition(":")
    found: object = getattr(importlib.import_module(module), name)
    return found
