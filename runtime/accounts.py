"""An account: a provider's name, our key for it, and the limits the user set."""

import msgspec

from adapters.base import Callbacks, Codec, Context, Secret
from adapters.capabilities import Rate


class Account(msgspec.Struct, frozen=True):
    """One set of credentials.  Without an ``[accounts]`` table it is named like its provider.

    ``base_url`` is the override of ``BYDAWN_<PROVIDER>_BASE_URL``, empty = the provider's own.  ``loopback`` is
    true only while that override is a loopback address: then plain http results are allowed.  ``rate`` and
    ``max_inflight`` replace the capability record's.  ``quarantine_s`` and ``latency_s`` come from the sandbox
    alone, whose listings do not lag and whose jobs are quick.
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
    budget_day_microusd: int | None = None
    models: tuple[str, ...] = ()
    quarantine_s: float | None = None
    latency_s: float | None = None

    @property
    def identity(self) -> str:
        """What tells this account from another one of the same name: its key, and where the key is used.

        Behind another base URL there may be another provider's books, in which *not found* proves nothing about ours
        (REC-9).  A server on this machine is known by its key alone: its port changes.
        """
        return f"{self.key.reveal()} {self.place}" if self.place else self.key.reveal()

    @property
    def place(self) -> str:
        """Where the key is used, when that is not the provider's own base URL."""
        return self.base_url if self.base_url and not self.loopback else ""

    @property
    def submit_rate(self) -> Rate:
        return self.rate or self.codec.capabilities.submit_rate.value

    @property
    def query_rate(self) -> Rate:
        return self.poll_rate or self.codec.capabilities.poll_rate.value

    @property
    def quarantine(self) -> float:
        """Seconds after which a request that was sent can no longer turn up unseen (REC-4)."""
        if self.quarantine_s is not None:
            return self.quarantine_s
        caps = self.codec.capabilities
        record = caps.lookup or caps.listing
        lag_s = record.value.lag_s if record else 0.0
        return caps.submit_timeout_s.value + caps.ingress_hold_s + 2 * lag_s

    @property
    def latency(self) -> float:
        """The provider's typical seconds from an accepted job to its end."""
        return self.latency_s or self.codec.capabilities.typical_latency_s.value

    @property
    def calls_back(self) -> bool:
        """Whether the provider can be given an address to call when a job has ended."""
        return isinstance(self.codec, Callbacks) and self.codec.capabilities.callback is not None

    @property
    def callback_wait(self) -> float:
        """Seconds after which a doubtful attempt is no longer expected to be called about: the request may arrive as
        late as the quarantine says, and its job may take ten times as long as usual."""
        return self.quarantine + 10 * self.latency

    def context(self, *, marker: int = 0, reference: str = "", callback_url: str = "") -> Context:
        return Context(
            key=self.key, base_url=self.base_url, marker=marker, reference=reference, callback_url=callback_url
        )
