"""An account: a provider's name, our key for it, and the limits the user set."""

import msgspec

from adapters.base import Codec, Context, Secret
from adapters.capabilities import Rate


class Account(msgspec.Struct, frozen=True):
    """One set of credentials.  Without an ``[accounts]`` table it is named like its provider.

    ``base_url`` is the override of ``BYDAWN_<PROVIDER>_BASE_URL``, empty = the provider's own.  ``loopback`` is
    true only while that override is a loopback address: then plain http results are allowed.  ``rate`` and
    ``max_inflight`` replace the capability record's; ``quarantine_s`` is set by the sandbox alone, whose
    listings do not lag.
    """

    name: str
    provider: str
    codec: Codec
    key: Secret
    base_url: str = ""
    loopback: bool = False
    max_inflight: int | None = None
    rate: Rate | None = None
    poll_rate: Rate | None = None
    budget_microusd: int | None = None
    models: tuple[str, ...] = ()
    quarantine_s: float | None = None

    def context(self, *, marker: int = 0, callback_url: str = "") -> Context:
        return Context(key=self.key, base_url=self.base_url, marker=marker, callback_url=callback_url)
