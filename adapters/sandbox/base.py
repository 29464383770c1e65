"""What an emulated provider is: a plain object over a job table.

``handle(call, now_us)`` answers a request as the provider would; the ASGI app and the in-process wire of the
simulator are thin skins over it.  A job's state is computed from its row and the time, so an emulator keeps
nothing in memory and may be killed like everything else.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

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
    """An answer, and what happens to it on its way: the skins perform ``transport``, emulators never set it.

    ``reset``: the connection is reset instead of an answer; ``cut``: the head and half of the body arrive, then
    the connection closes.  ``delay_s`` is waited before anything is sent.

    ``draws`` names the job whose picture the body lacks: the house draws it, in a thread, and the emulator puts it in
    (:class:`Embeds`).  ``late`` makes the whole body, in a thread too: it must not touch the job table.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    transport: Literal["", "reset", "cut"] = ""
    delay_s: float = 0.0
    draws: str = ""
    late: Callable[[], bytes] | None = None


class Job(msgspec.Struct, frozen=True):
    """One accepted job.  The bill counts these by itself and knows nothing of bydawn's ids.

    ``fate`` is decided when the job is accepted, from the chaos profile: "ok", "fail", "policy", "blank",
    "truncated", "wrong_bytes"; or from the request: "unreachable", when a reference cannot be fetched.
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


JobState = Literal["running", "succeeded", "failed", "cancelled"]


class JobTable(Protocol):
    """Where an emulator keeps its jobs and its bill; durable before it returns."""

    def add(self, job: Job) -> None: ...

    def add_all(self, jobs: Sequence[Job]) -> None:
        """Add all of them or none: they were accepted in one request."""
        ...

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

    def cancel(self, provider: str, job: str, now_us: int) -> None:
        """Mark a job that has not ended yet as cancelled; later marks change nothing."""
        ...

    def running(self, provider: str, account: str, now_us: int) -> int: ...

    def count(self) -> int:
        """Count every job ever added, of all providers: a number that grows exactly when a job is accepted."""
        ...

    def fresh_us(self, now_us: int) -> int:
        """Return ``now_us``, or more when a job has that time already: creation times are distinct, so that a
        page that continues ``before_us`` loses nothing."""
        ...

    def since(self, after: int, limit: int) -> Sequence[tuple[int, Job]]:
        """Jobs of all providers in the order of acceptance, numbered from 1, behind number ``after``."""
        ...

    def due_callbacks(self, provider: str, now_us: int, limit: int) -> Sequence[Job]:
        """Ended jobs whose callback is still owed and due."""
        ...

    def called_back(self, provider: str, job: str, *, retry_at_us: int | None) -> int:
        """Note one delivery: done with (None) or due again; returns how many there have been."""
        ...

    def keep(self, provider: str, name: str, data: bytes) -> None:
        """Keep a small file of the emulator's own (an upload), over what had the name before."""
        ...

    def kept(self, provider: str, name: str) -> bytes | None:
        """What was kept under the name, None when nothing was."""
        ...


class Limits(Protocol):
    """Rate limits as the provider enforces them, per account and bucket name."""

    def take(self, bucket: str, *, count: int, per_s: float, now_us: int) -> float:
        """Take one token; returns 0.0, or the seconds until there is one."""
        ...


class Webhook(msgspec.Struct, frozen=True):
    """One callback to deliver by POST; the driver in the server sends it and retries.

    ``extra``: one more beside it (a repetition, a forgery), whose delivery counts for nothing.
    """

    provider: str
    job: str
    url: str
    headers: dict[str, str]
    body: bytes
    extra: bool = False


class Emulator(Protocol):
    """One provider.  ``name`` is the path prefix it is served under."""

    @property
    def name(self) -> str: ...

    @property
    def result_life_s(self) -> float:
        """How long a result file may be fetched, from the job's end."""
        ...

    def is_submit(self, call: Call) -> bool:
        """Tell whether this is the one call that can cost money."""
        ...

    def refusal(self, kind: Literal["throttled", "broken"]) -> Reply:
        """What the provider says when it is asked too fast, or is out of order (a 5xx); for the chaos wrapper."""
        ...

    def state(self, job: Job, now_us: int) -> JobState:
        """Where the job stands, from its row and the time alone."""
        ...

    def charged(self, job: Job, now_us: int) -> int:
        """What the provider has charged for the job by now, in micro-dollars."""
        ...

    def handle(self, call: Call, now_us: int) -> Reply:
        """Answer as the provider would: auth first, then fields, then limits, then the job table."""
        ...


@runtime_checkable
class Embeds(Protocol):
    """An emulator whose replies carry the image itself."""

    def embed(self, reply: Reply, picture: bytes) -> Reply:
        """Complete the body of a reply that names a job to draw."""
        ...


@runtime_checkable
class CallsBack(Protocol):
    """An emulator that tells of the end of a job that asked for it."""

    def webhook(self, job: Job, now_us: int) -> Webhook:
        """The callback for an ended job that asked for one."""
        ...


@runtime_checkable
class SignsForAccount(Protocol):
    """An emulator that signs callbacks with a secret of each account, instead of the one of the sandbox."""

    def webhook_secret(self, account: str) -> str:
        """Give the secret as the provider shows it to its user."""
        ...
