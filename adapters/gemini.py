"""What the two ways to Google have in common: the request, the answer, the errors, as ``generateContent`` has them.

A line of a batch file holds the same request and the same answer as the plain call.  This module says what they look
like and what they mean; :mod:`adapters.google` and :mod:`adapters.googlebatch` say how they travel.

Documentation followed: https://ai.google.dev/api/generate-content, and for the names of reasons the official Python
client, google-genai 3.4.0.  Prices per token: https://ai.google.dev/gemini-api/docs/pricing.
"""

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from adapters.base import (
    Context,
    Failed,
    Finished,
    HttpCall,
    HttpReply,
    ImageRequest,
    MalformedReply,
    Refused,
    RefusedReason,
    Standing,
    Throttled,
    Unclear,
)
from adapters.calling import address
from adapters.capabilities import Capabilities, Model
from adapters.fitting import misfit
from adapters.reading import decode, decode_or_none, is_job_id, seconds, words
from adapters.references import is_inline, local_file

BASE_URL = "https://generativelanguage.googleapis.com"
FIRST = "nano-banana"  # has one size, and no field for it

_MAX_SEED = 2**31 - 1
_MAX_REQUEST = 20_000_000  # bytes of a whole request with its references
_REFERENCE = re.compile(r"data:(image/[a-z0-9.+-]+);base64,([A-Za-z0-9+/]+=*)")
_SIZES = {"0.5K": "512", "1K": "1K", "2K": "2K", "4K": "4K"}

_POLICY = frozenset(
    {
        "SAFETY",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "RECITATION",
        "SPII",
    }
)
_FORBIDDEN_REASONS = frozenset({"PUP_LIMITED_DISABLED"})
_CAP = re.compile(r"spend(ing)?[ -](cap|limit)|prepa(y|id)|credits?\b", re.IGNORECASE)
_BAD_KEY = "API_KEY_INVALID"


class _Price(msgspec.Struct, frozen=True):
    """Thousandths of a micro-dollar per token."""

    told: int  # prompt and references
    words: int  # thoughts and text
    image: int


_TOKEN_PRICES: Mapping[str, _Price] = {
    "gemini-2.5-flash-image": _Price(300, 2_500, 30_000),
    "gemini-3.1-flash-image": _Price(500, 3_000, 60_000),
    "gemini-3-pro-image": _Price(2_000, 12_000, 120_000),
}


# --- what they send -----------------------------------------------------------------------------------------


class _Blob(msgspec.Struct, frozen=True):
    data: bytes  # base64 on the wire


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    inline_data: _Blob | None = None
    thought: bool = False


class _Content(msgspec.Struct, frozen=True):
    parts: list[_Part] = []


class _Candidate(msgspec.Struct, frozen=True, rename="camel"):
    content: _Content | None = None
    finish_reason: str = ""


class _Feedback(msgspec.Struct, frozen=True, rename="camel"):
    block_reason: str = ""


class _Counted(msgspec.Struct, frozen=True, rename="camel"):
    modality: str
    token_count: int = 0


class _Usage(msgspec.Struct, frozen=True, rename="camel"):
    prompt_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0
    candidates_tokens_details: list[_Counted] = []


class _Response(msgspec.Struct, frozen=True, rename="camel"):
    """What a call answers, and what a line of a batch holds.  Everything in it may be missing."""

    candidates: list[_Candidate] = []
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None
    model_version: str = ""
    response_id: str = ""


class _Detail(msgspec.Struct, frozen=True, rename="camel"):
    reason: str = ""
    retry_delay: str = ""


class Status(msgspec.Struct, frozen=True):
    """An error in Google's words, of a call or of one line of a batch."""

    code: int = 0
    message: str = ""
    status: str = ""
    details: list[msgspec.Raw] = []

    @property
    def text(self) -> str:
        return words(f"{self.status} {self.message}")

    @property
    def reasons(self) -> frozenset[str]:
        return frozenset(detail.reason for detail in self._read_details())

    @property
    def retry_after_s(self) -> float | None:
        waits = (seconds(detail.retry_delay.removesuffix("s")) for detail in self._read_details())
        return next((wait for wait in waits if wait is not None), None)

    def _read_details(self) -> list[_Detail]:
        return [detail for raw in self.details if (detail := decode_or_none(raw, _Detail)) is not None]


class _Envelope(msgspec.Struct, frozen=True):
    error: Status


# --- building ----------------------------------------------------------------


def problem_of(record: Capabilities, request: ImageRequest) -> str | None:
    """Say why a request does not fit either of the two ways to Google; None when it does."""
    title = record.title
    if request.output_format:
        return f"{title} chooses the file format itself: leave the format out"
    if request.seed is not None and not 0 <= request.seed <= _MAX_SEED:
        return f"a seed of {title} is between 0 and {_MAX_SEED}"
    if any(reference.startswith(("http://", "https://")) for reference in request.references):
        return f"{title} fetches no URLs: give the references as files"
    why = misfit(record, request)
    if why is not None:
        return why
    size = sum(_size_inside(reference) for reference in request.references) + len(request.prompt.encode())
    if size > _MAX_REQUEST:
        return f"the references have {size:,} bytes in base64, {title} takes {_MAX_REQUEST:,} in one request"
    return None


def _size_inside(reference: str) -> int:
    file = local_file(reference)
    return len(reference) if file is None else 4 * -(-file.size // 3)


def body_of(request: ImageRequest, model: Model) -> dict[str, object]:
    """Spell a request, each field of it by name; the references stand behind the text, in their order.

    Raises:
        ValueError: a reference was not resolved to a ``data:`` URI: our own mistake.
    """
    image: dict[str, object] = {}
    if request.aspect != "auto":  # left out, the picture follows the first reference
        image["aspectRatio"] = request.aspect
    if model.name != FIRST:
        image["imageSize"] = _SIZES[request.resolution]
    config: dict[str, object] = {"candidateCount": 1, "responseModalities": ["IMAGE"], "imageConfig": image}
    if request.seed is not None:
        config["seed"] = request.seed
    parts: list[dict[str, object]] = [{"text": request.prompt}, *map(_inlined, request.references)]
    body: dict[str, object] = {"contents": [{"role": "user", "parts": parts}], "generationConfig": config}
    if request.grounding:
        body["tools"] = [{"googleSearch": {}}]
    return body


def _inlined(reference: str) -> dict[str, object]:
    found = _REFERENCE.fullmatch(reference) if is_inline(reference) else None
    if found is None:
        raise ValueError("a reference that does not carry its bytes")
    return {"inlineData": {"mimeType": found[1], "data": found[2]}}


def api_url(ctx: Context, path: str, *, root: str = "") -> str:
    """Build an address of the API; ``root`` is ``upload`` or ``download`` where files are concerned."""
    return address(ctx, BASE_URL, f"/{root + '/' if root else ''}v1beta/{path}")


def headers(ctx: Context) -> dict[str, str]:
    return {"x-goog-api-key": ctx.key.reveal(), "Accept": "application/json"}


def check_call(ctx: Context) -> HttpCall:
    """One page of one model: it needs a good key and costs nothing."""
    return HttpCall("GET", api_url(ctx, "models?pageSize=1"), headers(ctx))


# --- reading ------------------------------------------------------------------


def answer_of(body: bytes | msgspec.Raw, *, half_price: bool = False) -> Finished | Failed:
    """Read what ``generateContent`` answers, or what a line of a batch holds.

    Raises:
        MalformedReply: it is not such an answer.
    """
    response = decode(body, _Response, "answer")
    cost = _cost(response, half_price=half_price)
    candidate = response.candidates[0] if response.candidates else _Candidate()
    parts = candidate.content.parts if candidate.content else []
    images = [part.inline_data.data for part in parts if part.inline_data is not None and not part.thought]
    if images and images[-1]:
        job = response.response_id if is_job_id(response.response_id) else ""
        return Finished(data=images[-1], cost_microusd=cost, model_version=words(response.model_version), job=job)
    blocked = response.prompt_feedback.block_reason if response.prompt_feedback else ""
    if not blocked and not candidate.finish_reason:
        raise MalformedReply("answer: neither an image nor a reason")
    return _without_image(blocked, candidate.finish_reason, cost or 0)


def _without_image(blocked: str, finish_reason: str, cost: int) -> Failed:
    if blocked:  # every reason of a blocked prompt is the prompt's own fault, "OTHER" as well
        return Failed("policy", words(f"the prompt was blocked: {blocked}"), retryable=False, cost_microusd=cost)
    if finish_reason in _POLICY:
        return Failed("policy", words(f"no image: {finish_reason}"), retryable=False, cost_microusd=cost)
    retryable = finish_reason not in _FORBIDDEN_REASONS
    return Failed("provider", words(f"no image: {finish_reason}"), retryable=retryable, cost_microusd=cost)


def _cost(response: _Response, *, half_price: bool) -> int | None:
    """Give what the tokens cost by the published prices; None when it cannot be told."""
    usage, version = response.usage_metadata, response.model_version
    price = next((price for name, price in _TOKEN_PRICES.items() if version.startswith(name)), None)
    if usage is None or price is None:
        return None
    drawn = sum(counted.token_count for counted in usage.candidates_tokens_details if counted.modality == "IMAGE")
    said = usage.candidates_token_count - drawn + usage.thoughts_token_count
    if min(usage.prompt_token_count, drawn, said) < 0 or (usage.candidates_token_count and not drawn):
        return None
    nanousd = usage.prompt_token_count * price.told + said * price.words + drawn * price.image
    return -(-nanousd // (2_000 if half_price else 1_000))


def status_of(reply: HttpReply) -> Status:
    """Give the error of a reply; an empty one when it is no error of theirs."""
    envelope = decode_or_none(reply.body, _Envelope)
    return envelope.error if envelope else Status()


def refusal_of(reply: HttpReply) -> Refused | Throttled | Unclear:
    """Read an answer to a paid call that is no success."""
    error = status_of(reply)
    if not error.status:  # a proxy's page proves nothing
        return Unclear(words(f"status {reply.status}"))
    match reply.status:
        case 400:
            return Refused(_reason_of_400(error), error.text)
        case 401:
            return Refused("unauthorized", error.text)
        case 403:
            return Refused("forbidden", error.text)
        case 404:
            return Refused("unavailable", error.text)
        case 413:
            return Refused("invalid", error.text)
        case 429 if _CAP.search(error.message):
            return Refused("no_credit", error.text)
        case 429:
            return Throttled(error.retry_after_s)
        case _:
            return Unclear(words(f"status {reply.status} {error.text}"))


def _reason_of_400(error: Status) -> RefusedReason:
    if _BAD_KEY in error.reasons:
        return "unauthorized"
    return "forbidden" if error.status == "FAILED_PRECONDITION" else "invalid"  # billing, or the country


def is_unauthorized(reply: HttpReply) -> bool:
    """Tell whether a free call was refused for its key."""
    return reply.status in (401, 403) or (reply.status == 400 and _BAD_KEY in status_of(reply).reasons)


def standing_of(reply: HttpReply) -> Standing:
    """Read the answer to :func:`check_call`; Google tells no balance."""
    if 200 <= reply.status < 300:
        decode(reply.body, dict[str, object], "models")
        return Standing("ok")
    error = status_of(reply)
    state: Literal["rejected", "no_credit", "unreadable"] = "unreadable"
    if is_unauthorized(reply):
        state = "rejected"
    elif reply.status == 429 and _CAP.search(error.message):
        state = "no_credit"
    return Standing(state, words(f"status {reply.status} {error.text}"))
