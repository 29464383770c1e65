"""The vocabulary that every provider codec shares: requests, calls, replies, outcomes, the codec protocol.

A codec is pure (sans-I/O): it turns a request into an :class:`HttpCall` and an :class:`HttpReply` into an
outcome.  It opens no socket, sleeps never, retries nothing, reads no clock.  ``MalformedReply`` is the only
exception a reader may raise (they broke the protocol); misuse by us is a ``ValueError`` at the call;
throttled, refused and unclear are values.

The rule that guards the money: only answers that the capability record names as proof of *no job and no
charge* may become :class:`Refused` or :class:`Throttled`.  Everything else that is not a clear success is
:class:`Unclear`, and what is unclear is never bought again silently.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

from adapters.capabilities import Capabilities

# --- errors -----------------------------------------------------------------------------------------------


class AdapterError(Exception):
    """Base of what a codec may raise."""


class MalformedReply(AdapterError):
    """The provider answered something its documentation does not allow.  The text names no content."""


# --- what is wanted ---------------------------------------------------------------------------------------

ModelName: TypeAlias = str  # "nano-banana", "nano-banana-2", "nano-banana-pro", or a provider's own id


class ImageRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One wanted image, in bydawn's words.  Two equal requests are interchangeable."""

    prompt: str
    model: ModelName = "nano-banana-2"
    aspect: str = "1:1"  # "W:H" or "auto"
    resolution: str = "1K"  # "0.5K", "1K", "2K", "4K"
    references: tuple[str, ...] = ()  # in order: URLs, and local files in the form of adapters.references
    output_format: str = ""  # "jpg", "png"; "" = the codec's default (always sent explicitly)
    seed: int | None = None
    model_version: str = ""  # pin, where the provider has one
    grounding: bool = False


class Secret:
    """A key that cannot be printed or stored by accident; ``reveal`` is for building a header."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__


class Context(msgspec.Struct, frozen=True):
    """What a codec needs besides the request.

    ``base_url`` replaces scheme, host and port of the provider's base URL and may carry a path prefix; empty
    means the provider's own.  ``marker`` is derived from the attempt and is the same when the call is built
    again: a codec puts it where the provider shows it back (Segmind: the seed).  ``reference`` is the same in words,
    for providers that take a reference of ours (Toapis: ``client_business_id``).
    """

    key: Secret
    base_url: str = ""
    marker: int = 0  # 1 .. 2**31-1; 0 = none
    reference: str = ""  # [a-z0-9-], at most 40 characters; "" = none
    callback_url: str = ""


# --- HTTP as values ---------------------------------------------------------------------------------------


class HttpCall(msgspec.Struct, frozen=True):
    """One request.  ``timeout_s`` bounds the wait for the whole reply, ``max_reply_bytes`` its body (SEC-4).

    ``told``: the provider named the host, so it must be at a public address, or on this machine where the provider
    itself is (SEC-3).  Such a call carries no key.
    """

    method: Literal["GET", "POST", "DELETE", "PUT"]
    url: str
    headers: dict[str, str]
    body: bytes = b""
    timeout_s: float = 60.0
    max_reply_bytes: int = 8 << 20
    told: bool = False

    def __repr__(self) -> str:
        return f"HttpCall({self.method} {self.url.partition('?')[0]}, {len(self.body)} bytes)"


class HttpReply(msgspec.Struct, frozen=True):
    """One reply; header names are lower case, the body is bounded by the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes


# --- outcomes ---------------------------------------------------------------------------------------------

RefusedReason = Literal["invalid", "policy", "unauthorized", "no_credit", "forbidden", "unavailable"]


class Accepted(msgspec.Struct, frozen=True):
    """The provider has a job and will charge for it."""

    job: str


class Refused(msgspec.Struct, frozen=True):
    """Proof of no job and no charge.  ``unauthorized``, ``no_credit``, ``forbidden`` and ``unavailable`` concern the
    account or the lane, ``invalid`` and ``policy`` this request alone."""

    reason: RefusedReason
    detail: str = ""


class Throttled(msgspec.Struct, frozen=True):
    """Proof of no job and no charge: too fast.  ``retry_after_s`` is None when the provider did not say."""

    retry_after_s: float | None = None


class Unclear(msgspec.Struct, frozen=True):
    """A job may exist and may be charged."""

    detail: str = ""
    likely_paid: bool = False  # a success without a readable job id


class Finished(msgspec.Struct, frozen=True):
    """The result is there.  Exactly one of ``url`` and ``data`` is set.

    ``cost_microusd`` is what the provider says it charged, None when it does not say.
    ``expires_s`` is the lifetime of the result as documented, counted from the job's end; 0 = unknown.
    """

    url: str = ""
    data: bytes = b""
    cost_microusd: int | None = None
    model_version: str = ""
    expires_s: float = 0.0
    job: str = ""


FailedReason = Literal["policy", "provider", "cancelled", "expired", "contract"]


class Failed(msgspec.Struct, frozen=True):
    """The job ended without a result.  ``retryable``: another attempt may succeed.

    Charged all the same: ``cost_microusd`` when the provider says how much, ``charged`` when it only says that.
    """

    reason: FailedReason
    detail: str = ""
    retryable: bool = True
    cost_microusd: int = 0
    charged: bool = False


class Pending(msgspec.Struct, frozen=True, omit_defaults=True):
    """Still running.  ``unnamed`` is a state that the codec does not know: for a while it is taken for a new way of
    running, but it may as well be one of having ended."""

    unnamed: str = ""


class NotVisible(msgspec.Struct, frozen=True):
    """The provider does not show this job (yet): ask again, and after ``Capabilities.visible_after_s`` it is gone."""


class Gone(msgspec.Struct, frozen=True):
    """The job is known and ended, its result is no longer there: paid and lost."""

    detail: str = ""


class Unreadable(msgspec.Struct, frozen=True):
    """The question could not be answered now (a 5xx, a rejected key): ask again later, conclude nothing.

    ``garbled``: an answer came, and it is none that the documentation allows; said by the runtime, for a reader raises
    :class:`MalformedReply` then.
    """

    detail: str = ""
    unauthorized: bool = False
    garbled: bool = False


SubmitOutcome: TypeAlias = Accepted | Finished | Failed | Refused | Throttled | Unclear
PollOutcome: TypeAlias = Pending | Finished | Failed | NotVisible | Gone | Throttled | Unreadable


class ListedJob(msgspec.Struct, frozen=True):
    """One job of a provider's listing.

    ``fingerprint`` is what :meth:`Codec.fingerprint` gives for the request that made it, None when the listing
    no longer shows the input.  ``model`` is the provider's name of it, empty when that is not shown.
    """

    job: str
    created_us: int
    fingerprint: str | None
    outcome: PollOutcome
    cost_microusd: int | None = None
    model: str = ""


class JobPage(msgspec.Struct, frozen=True):
    """One page of a listing, newest first; ``next_cursor`` None = this was the last page."""

    jobs: tuple[ListedJob, ...]
    next_cursor: str | None


class Standing(msgspec.Struct, frozen=True):
    """What the cheap authenticated call tells of an account.

    ``state``: ``ok``, ``rejected`` (key), ``no_credit``, or ``unreadable`` (conclude nothing).  ``models`` are those of
    the record, by bydawn's names, that the answer lists for this key; None = it lists none, and only a purchase tells.
    """

    state: Literal["ok", "rejected", "no_credit", "unreadable"]
    detail: str = ""
    balance: float | None = None  # in the unit that the record's ``balance`` names, where that is not dollars
    balance_microusd: int | None = None  # the same in dollars
    models: tuple[str, ...] | None = None
    identity: str = ""  # who the provider says we are (REC-9), where it says so


# --- the codec --------------------------------------------------------------------------------------------


class Codec(Protocol):
    """What every provider's dialect has.  Methods are pure.

    What only some providers can do is a protocol of its own below, and the runtime asks ``isinstance(codec, Part)``.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    def problem(self, request: ImageRequest) -> str | None:
        """Say why this provider cannot take the request, in words for the user; None when it can."""
        ...

    def lane(self, request: ImageRequest) -> str:
        """Name the lane (queue) of the account that the request belongs to."""
        ...

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        """Build the one call that can cost money.  Same request and context, same bytes.

        Local references are resolved before: to URLs where the codec is :class:`Uploads`, to ``data:`` URIs where
        the record says ``inline``.
        """
        ...

    def read_submit(self, reply: HttpReply) -> SubmitOutcome: ...

    def build_check(self, ctx: Context) -> HttpCall:
        """Build a cheap authenticated call that costs nothing."""
        ...

    def read_check(self, reply: HttpReply) -> Standing: ...


@runtime_checkable
class Polls(Protocol):
    """Asynchronous providers: an accepted job is asked for until it has ended."""

    def build_poll(self, job: str, ctx: Context) -> HttpCall: ...

    def read_poll(self, reply: HttpReply) -> PollOutcome: ...


@runtime_checkable
class Sweeps(Protocol):
    """One call tells the states of many jobs."""

    @property
    def sweep_size(self) -> int:
        """How many jobs one call may ask for."""
        ...

    def build_sweep(self, jobs: Sequence[str], ctx: Context, *, since_us: int, until_us: int) -> HttpCall:
        """Ask for jobs that were accepted between the two times (UTC, with a margin for clocks that differ)."""
        ...

    def read_sweep(self, reply: HttpReply) -> Mapping[str, PollOutcome]:
        """Give what it tells, by job; a job that is not in it is polled by itself.  Raises MalformedReply."""
        ...


@runtime_checkable
class Lists(Protocol):
    """A complete listing of an account's jobs (the record's ``listing``)."""

    def fingerprint(self, request: ImageRequest, ctx: Context) -> str:
        """Digest of what a listing shows of the request (hex); equal fingerprints are interchangeable."""
        ...

    def build_list(self, ctx: Context, *, since_us: int, until_us: int, cursor: str | None) -> HttpCall: ...

    def read_list(self, reply: HttpReply) -> JobPage:
        """Read one page; raises MalformedReply when anything on it cannot be read (REC-4)."""
        ...


@runtime_checkable
class LooksUp(Protocol):
    """A job can be found by the reference of ours that it was made with (the record's ``lookup``)."""

    def build_lookup(self, reference: str, ctx: Context) -> HttpCall: ...

    def read_lookup(self, reply: HttpReply) -> "LookupOutcome": ...


@runtime_checkable
class Cancels(Protocol):
    """A job can be stopped (the record's ``cancel`` says whether it is charged then)."""

    def build_cancel(self, job: str, ctx: Context) -> HttpCall: ...

    def read_cancel(self, reply: HttpReply) -> PollOutcome: ...


@runtime_checkable
class Recall(Protocol):
    """A slower question that some providers still answer when polls have forgotten the job.

    To be asked once before a job that became ``NotVisible`` counts as paid and lost.
    """

    def build_recall(self, job: str, ctx: Context) -> HttpCall: ...

    def read_recall(self, reply: HttpReply) -> PollOutcome: ...


@runtime_checkable
class Uploads(Protocol):
    """Local reference files are uploaded first; that is free and may be repeated."""

    def upload(self, file: "FileBytes", ctx: Context) -> "UploadSteps":
        """Yield each call and take its reply, then return where the file is.

        Raises:
            UploadRefused: the provider will not take this file, or not now.
            MalformedReply: an answer outside the documentation.
        """
        ...


@runtime_checkable
class Callbacks(Protocol):
    """The provider calls back when a job has ended (the record's ``callback`` says what it signs).

    A callback is a hint: what it says is only believed after an authenticated read of the job (REC-7).
    """

    def verify_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: Sequence[Secret], now_s: float
    ) -> bool:
        """Check the signature over the raw body with any of the secrets (after a rotation there are two), in constant
        time, and that its time lies within the tolerance.  Header names are lower case."""
        ...

    def read_callback(self, body: bytes) -> str:
        """Give the id of the job that it speaks of.  Raises MalformedReply."""
        ...


@runtime_checkable
class Quotes(Protocol):
    """The provider says beforehand what a request will cost; asking is free."""

    def build_quote(self, request: ImageRequest, ctx: Context) -> HttpCall: ...

    def read_quote(self, reply: HttpReply) -> int | None:
        """Give micro-dollars; None when it did not say.  Raises MalformedReply."""
        ...


LookupOutcome: TypeAlias = Accepted | NotVisible | Throttled | Unreadable


class FileBytes(msgspec.Struct, frozen=True):
    """A local file that is about to be uploaded.  ``name`` is made of its digest: the user's file name stays home."""

    name: str
    media_type: str
    data: bytes

    def __repr__(self) -> str:
        return f"FileBytes({self.name}, {len(self.data)} bytes)"


class Uploaded(msgspec.Struct, frozen=True):
    """Where an uploaded file can be referred to, and for how long from now (0 = not known: used at once)."""

    url: str
    life_s: float = 0.0


class UploadRefused(AdapterError):
    """The provider did not take a file.  ``retryable``: it may do so later.

    ``account``: this is about the account (its key, credit or permission) and would meet every other file too.
    """

    def __init__(self, message: str, *, retryable: bool, account: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.account = account


UploadSteps: TypeAlias = Generator[HttpCall, HttpReply, Uploaded]
