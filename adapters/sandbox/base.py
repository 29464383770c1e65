"""What an emulated provider is: a plain object over a job table.

``handle(call, now_us)`` answers a request as the provider would; the ASGI app and the in-process wire of the
simulator are thin skins over it.  A job's state is computed from its row and the time, so an emulator keeps
nothing in memory and may be killed like everything else.
"""

from collections.abc import Mapping
from typing import Protocol

import msgspec


class Call(msgspec.Struct, frozen=True):
    """A request as it reached the emulator.  ``path`` starts after the provider's prefix, without the query.

    ``origin`` is how the caller reached us (``http://127.0.0.1:8700/kie``): replies that carry absolute URLs use it.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # lower-case names
    body: bytes
    origin: str


class Reply(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes


class Job(msgspec.Struct, frozen=True):
    """One accepted job.  The bill counts these by itself and knows nothing of bydawn's ids.

    ``fate`` is decided when the job is accepted, from the chaos profile: "ok", "fail", "policy", "blank",
    "truncated", "wrong_bytes".
    """

    id: str
    provider: str
    account: str  # digest of the key it was made with
    model: str
    wire: str  # the request body as it came, JSON text
    prompt: str
    references: tuple[str, ...]
    aspect: str
    resolution: str
    output_format: str  # "jpg" or "png"
    created_us: int
    started_us: int
    done_us: int
    charge_microusd: int  # what the provider charges if the job ends well
    fate: str = "ok"
    cancelled_us: int = 0
    callback_url: str = ""


class JobTable(Protocol):
    """Where an emulator keeps its jobs and its bill; durable before it returns."""

    def add(self, job: Job) -> None: ...
    def get(self, provider: str, job: str) -> Job | None: ...
    def list(
        self,
        provider: str,
        account: str,
        *,
        since_us: int,
        until_us: int,
        limit: int,
        before_us: int | None = None,
    ) -> list[Job]:
        """Newest first; ``before_us`` continues a page."""
        ...

    def cancel(self, provider: str, job: str, now_us: int) -> None: ...
    def running(self, provider: str, account: str, now_us: int) -> int: ...


class Limits(Protocol):
    """Rate limits as the provider enforces them, per account and bucket name."""

    def take(self, bucket: str, *, count: int, per_s: float, now_us: int) -> float:
        """Take one token; returns 0.0, or the seconds until there is one."""
        ...


class Emulator(Protocol):
    """One provider.  ``name`` is the path prefix it is served under."""

    @property
    def name(self) -> str: ...

    def handle(self, call: Call, now_us: int) -> Reply:
        """Answer as the provider would: auth first, then fields, then limits, then the job table."""
        ...
