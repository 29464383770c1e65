"""WaveSpeed: asynchronous predictions, signed callbacks, a price quote, a listing of seven days that shows no inputs.

Documentation followed:

- submit and poll: https://wavespeed.ai/docs/submit-task, /docs/get-result and the pages of the models below
  https://wavespeed.ai/docs/docs-api/google (nano-banana-2, nano-banana-2.1, nano-banana-pro, gemini-2.5-flash-image)
- list, delete: https://wavespeed.ai/docs/docs-common-api/predictions and https://wavespeed.ai/docs/delete-task
- callbacks: https://wavespeed.ai/docs/how-to-use-webhooks and https://wavespeed.ai/docs/verify-webhooks
- limits, life, refunds: https://wavespeed.ai/docs/account-levels, /docs/what-are-predictions,
  /docs/troubleshooting-guide, /docs/upload-files
- quote and balance: https://github.com/WaveSpeedAI/mcp-server and https://wavespeed.ai/docs/check-balance
- SDK: the official ``wavespeed`` 2.0.5, which the tests run against our emulator

The models and limits are in ``adapters.wavespeed_record``.

What matters here:

- There is no idempotency key and no field of our own, and the listing does not show the input.  So a listed job
  that we do not know may be anybody's: the listing proves that nothing was taken, never what was.
- A task that fails does so under HTTP 200 and code 200; an error may come under HTTP 200 with another code.
- The model is the path, and a request with references has a path of its own (``.../edit``).
- The callback URL goes into the query (``?webhook=``); one page shows a body field, all clients use the query.
- A callback is flat where every other answer has an envelope, and its signature only looks like Standard Webhooks:
  ``v3``, hexadecimal, the secret's text itself as the key.
- Cancelling deletes: the record is gone, the work may go on, and the refund may be a part of the price.
"""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

import msgspec

from adapters.base import (
    Accepted,
    Context,
    Failed,
    FileBytes,
    Finished,
    Gone,
    HttpCall,
    HttpReply,
    ImageRequest,
    JobPage,
    ListedJob,
    MalformedReply,
    NotVisible,
    Pending,
    PollOutcome,
    Refused,
    RefusedReason,
    Secret,
    Standing,
    SubmitOutcome,
    Unclear,
    Unreadable,
    Uploaded,
    UploadSteps,
)
from adapters.calling import address, bearer, is_elsewhere
from adapters.capabilities import Capabilities, Model
from adapters.fitting import misfit, model_of
from adapters.reading import (
    canonical_digest,
    decode,
    decode_or_none,
    from_us,
    is_job_id,
    is_web_address,
    microusd,
    result_of,
    storage_refused,
    throttled,
    to_us,
    upload_refused,
    words,
)
from adapters.signing import is_recent, is_signed
from adapters.wavespeed_record import CAPABILITIES, FAST, PAGE_SIZE, SUCCESSOR, WEEK_S
from adapters.wording import is_policy, lacks_credit

_SIGNATURE = re.compile(r"v3,([0-9a-f]{64})")
_TOLERANCE_S = 300.0
_UPLOAD_TIMEOUT_S = 120.0

# The path that takes references, by the one that takes none.
_EDIT = {
    "google/gemini-2.5-flash-image/text-to-image": "google/gemini-2.5-flash-image/edit",
    "google/nano-banana-2/text-to-image": "google/nano-banana-2/edit",
    "google/nano-banana-pro/text-to-image": "google/nano-banana-pro/edit",
    FAST: "google/nano-banana-2/edit-fast",
    SUCCESSOR: "google/nano-banana-2.1/edit",
}
# What only some models take, and always with the same value.
_SWITCHES: dict[str, dict[str, object]] = {
    "nano-banana": {"enable_base64_output": False},
    "nano-banana-2": {"enable_web_search": False, "enable_image_search": False},
    FAST: {"enable_web_search": False},
    SUCCESSOR: {"enable_web_search": False, "enable_image_search": False},
}
_FORMATS = {"jpg": "jpeg", "png": "png"}

_UPSTREAM = re.compile(r"HTTP 5|HTTP 429")  # the SDK's own rule for a failure that may pass

_REFUSALS: dict[int, RefusedReason] = {
    400: "invalid",
    401: "unauthorized",
    402: "no_credit",
    403: "forbidden",
    404: "forbidden",  # no such model: asking again would be told the same
}
# Part of how a call is sent at all, and not theirs to tell.
_WIRE_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect"})


# --- what they send -----------------------------------------------------------------------------------------


class _Envelope(msgspec.Struct, frozen=True):
    """What all answers but callbacks come in."""

    code: int
    message: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Named(msgspec.Struct, frozen=True):
    id: str


class _Prediction(msgspec.Struct, frozen=True):
    id: str
    status: str
    outputs: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


class _Listed(_Prediction, frozen=True, kw_only=True):
    created_at: Annotated[datetime, msgspec.Meta(tz=True)]
    model: msgspec.Raw = msgspec.Raw(b"null")


class _Page(msgspec.Struct, frozen=True):
    page: Annotated[int, msgspec.Meta(ge=1)]
    items: list[_Listed]
    total: int | None = None


class _Price(msgspec.Struct, frozen=True):
    price: float | None = None
    discounted_price: float | None = None


class _Balance(msgspec.Struct, frozen=True):
    balance: float


class _Instruction(msgspec.Struct, frozen=True):
    method: str
    url: str
    headers: dict[str, str] = {}


class _Ticket(msgspec.Struct, frozen=True):
    upload: _Instruction
    download_url: str


# --- the codec ----------------------------------------------------------------------------------------------


class WaveSpeedCodec:
    """WaveSpeed's dialect."""

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def problem(self, request: ImageRequest) -> str | None:
        if request.grounding:
            # Measured with their quotes by github.com/Wujidadi/image-generation-with-wavespeed-api, 2026-09-23.
            return "WaveSpeed charges $0.014 more for a grounded image, and the price book has no price for that"
        return misfit(CAPABILITIES, request)

    def lane(self, request: ImageRequest) -> str:
        return "default"

    # --- buying

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        model = model_of(CAPABILITIES, request)
        path = _path(request, model) + (f"?webhook={quote(ctx.callback_url, safe='')}" if ctx.callback_url else "")
        return _post(ctx, path, _fields(request, model), timeout_s=CAPABILITIES.submit_timeout_s.value)

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        envelope = decode_or_none(reply.body, _Envelope)
        text = _text(envelope)
        if 200 <= reply.status < 300:
            created = decode_or_none(envelope.data, _Named) if envelope else None
            if created is not None and is_job_id(created.id):
                return Accepted(created.id)
            if envelope is not None and envelope.code != 200:
                return Unclear(words(f"code {envelope.code} under status {reply.status}: {text}"))
            return Unclear("submitted, but without a readable id", likely_paid=True)
        if reply.status == 429:
            return throttled(reply)
        reason = _REFUSALS.get(reply.status)
        if reason is None or (reason == "forbidden" and envelope is None):
            # A 403 or 404 in other words is said by somebody on the way, and perhaps not of the submission alone.
            return Unclear(words(f"status {reply.status} {text}"))
        if reply.status in (400, 403) and lacks_credit(text):
            reason = "no_credit"
        elif reason == "invalid" and is_policy(text):
            reason = "policy"
        return Refused(reason, text or f"status {reply.status}")

    # --- asking

    def build_poll(self, job: str, ctx: Context) -> HttpCall:
        return HttpCall("GET", _url(ctx, _job_path(job) + "/result"), bearer(ctx))

    def read_poll(self, reply: HttpReply) -> PollOutcome:
        envelope = decode_or_none(reply.body, _Envelope)
        if 200 <= reply.status < 300:
            if envelope is None:
                raise MalformedReply("prediction: not the documented JSON")
            if envelope.code == 200:
                return _outcome(decode(envelope.data, _Prediction, "prediction"))
        return _no_answer(reply, envelope)

    def build_cancel(self, job: str, ctx: Context) -> HttpCall:
        return HttpCall("DELETE", _url(ctx, _job_path(job)), bearer(ctx))

    def read_cancel(self, reply: HttpReply) -> PollOutcome:
        return self.read_poll(reply)

    def build_check(self, ctx: Context) -> HttpCall:
        return HttpCall("GET", _url(ctx, "balance"), bearer(ctx))

    def read_check(self, reply: HttpReply) -> Standing:
        envelope = decode_or_none(reply.body, _Envelope)
        status = _status(reply, envelope)
        if status == 200 and envelope is not None:
            left = microusd(max(0.0, decode(envelope.data, _Balance, "balance").balance))
            return Standing("ok" if left != 0 else "no_credit", balance_microusd=left)
        text = _text(envelope)
        match status:
            case 401:
                return Standing("rejected", text)
            case 402:
                return Standing("no_credit", text)
            case 403:
                return Standing("no_credit" if lacks_credit(text) else "rejected", text)
            case _:
                return Standing("unreadable", words(f"status {reply.status} {text}"))

    def build_quote(self, request: ImageRequest, ctx: Context) -> HttpCall:
        model = model_of(CAPABILITIES, request)
        return _post(ctx, "model/price", {"model_id": _path(request, model), "inputs": _fields(request, model)})

    def read_quote(self, reply: HttpReply) -> int | None:
        envelope = decode_or_none(reply.body, _Envelope)
        if _status(reply, envelope) != 200 or envelope is None:
            raise MalformedReply(f"price: status {reply.status}")
        price = decode(envelope.data, _Price, "price")
        return microusd(price.price if price.discounted_price is None else price.discounted_price)

    # --- finding again

    def fingerprint(self, request: ImageRequest, ctx: Context) -> str:
        """Digest path and fields.  No item of a listing shows them, so that no item is ever taken for ours."""
        model = model_of(CAPABILITIES, request)
        return canonical_digest({"model": _path(request, model), "input": _fields(request, model)})

    def build_list(self, ctx: Context, *, since_us: int, until_us: int, cursor: str | None) -> HttpCall:
        """Ask for one page; ``cursor`` is its number.  A second more on both sides: the bounds may be exclusive."""
        if not 0 <= since_us <= until_us:
            raise ValueError(f"a listing from {since_us} until {until_us}")
        body = {
            "page": int(cursor or "1"),
            "page_size": PAGE_SIZE,
            "created_after": _iso(math.floor(since_us / 1e6) - 1),
            "created_before": _iso(math.ceil(until_us / 1e6) + 1),
        }
        return _post(ctx, "predictions", body)

    def read_list(self, reply: HttpReply) -> JobPage:
        page = _read_page(reply)
        # Whether ``page_size`` is honoured is not known, and ``total`` is optional: only an empty page is surely the
        # last one.  A page taken for the last would hide jobs, and a job that is not shown is bought again.
        last = not page.items
        return JobPage(tuple(_listed(item) for item in page.items), None if last else str(page.page + 1))

    # --- many at once

    @property
    def sweep_size(self) -> int:
        return PAGE_SIZE

    def build_sweep(self, jobs: Sequence[str], ctx: Context, *, since_us: int, until_us: int) -> HttpCall:
        """Ask for the newest page of the window.  Jobs of others may push ours off it; those are polled."""
        return self.build_list(ctx, since_us=since_us, until_us=until_us, cursor=None)

    def read_sweep(self, reply: HttpReply) -> Mapping[str, PollOutcome]:
        told = {item.id: _told(item) for item in _read_page(reply).items}
        return {job: outcome for job, outcome in told.items() if outcome is not None}

    # --- references

    def upload(self, file: FileBytes, ctx: Context) -> UploadSteps:
        """Ask for a ticket, then put the bytes where it says; the key stays out of the second call."""
        wanted = {"filename": file.name, "size": len(file.data), "content_type": file.media_type}
        reply = yield _post(ctx, "media/uploads", wanted, timeout_s=_UPLOAD_TIMEOUT_S)
        envelope = decode_or_none(reply.body, _Envelope)
        status = _status(reply, envelope)
        if status != 200:
            raise upload_refused("WaveSpeed", status, _text(envelope))
        if envelope is None:
            raise MalformedReply("upload: not the documented JSON")
        ticket = decode(envelope.data, _Ticket, "upload")
        url = _put_url(ticket.upload, ctx)
        reply = yield HttpCall(
            "PUT",
            url,
            _put_headers(ticket.upload),
            file.data,
            timeout_s=_UPLOAD_TIMEOUT_S,
            told=is_elsewhere(url, ctx, CAPABILITIES.base_url),
        )
        if not 200 <= reply.status < 300:
            raise storage_refused("WaveSpeed's storage", reply.status)
        if not is_web_address(ticket.download_url, plain=bool(ctx.base_url)):
            raise MalformedReply("upload: no usable address")
        return Uploaded(ticket.download_url, CAPABILITIES.references.value.upload_life_s)

    # --- callbacks

    def verify_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: Sequence[Secret], now_s: float
    ) -> bool:
        message, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        given = _SIGNATURE.fullmatch(headers.get("webhook-signature", ""))
        if not message or given is None or not is_recent(stamp, now_s, tolerance_s=_TOLERANCE_S):
            return False
        signed = f"{message}.{stamp}.".encode(errors="replace") + body
        keys = (secret.reveal().removeprefix("whsec_").encode() for secret in secrets)
        return is_signed(signed, [bytes.fromhex(given[1])], keys)

    def read_callback(self, body: bytes) -> str:
        job = decode(body, _Named, "callback").id
        if not is_job_id(job):
            raise MalformedReply("callback: no usable id")
        return job


WAVESPEED = WaveSpeedCodec()


# --- building -----------------------------------------------------------------------------------------------


def _path(request: ImageRequest, model: Model) -> str:
    return _EDIT[model.provider_id] if request.references else model.provider_id


def _fields(request: ImageRequest, model: Model) -> dict[str, object]:
    """Name every field of the model's page: the defaults of format and size differ between them."""
    fields: dict[str, object] = {
        "prompt": request.prompt,
        "output_format": _FORMATS[request.output_format or model.default_format],
        "enable_sync_mode": False,
        **_SWITCHES.get(model.name, {}),
    }
    if request.references:
        fields["images"] = list(request.references)
    if request.aspect != "auto":  # left out, the image follows its references
        fields["aspect_ratio"] = request.aspect
    if model.name != "nano-banana":
        fields["resolution"] = request.resolution.lower()
    return fields


def _url(ctx: Context, path: str) -> str:
    return address(ctx, CAPABILITIES.base_url, "/api/v3/" + path)


def _post(ctx: Context, path: str, body: Mapping[str, object], timeout_s: float = 60.0) -> HttpCall:
    headers = bearer(ctx) | {"Content-Type": "application/json"}
    return HttpCall("POST", _url(ctx, path), headers, msgspec.json.encode(body), timeout_s=timeout_s)


def _job_path(job: str) -> str:
    if not job:
        raise ValueError("a poll needs a job id")
    return "predictions/" + quote(job, safe="")


def _iso(at_s: int) -> str:
    return from_us(max(0, at_s) * 1_000_000).strftime("%Y-%m-%dT%H:%M:%SZ")


def _put_url(told: _Instruction, ctx: Context) -> str:
    """Take the storage's address.  It may be plain HTTP where the base URL is, which is on this machine then."""
    if told.method.upper() != "PUT" or not is_web_address(told.url, plain=ctx.base_url.startswith("http://")):
        raise MalformedReply("upload: no usable instruction")
    return told.url


def _put_headers(told: _Instruction) -> dict[str, str]:
    """Take the headers that the storage wants, as far as they can be sent at all."""
    for name, value in told.headers.items():
        if re.fullmatch(r"[A-Za-z0-9-]{1,64}", name) is None or re.fullmatch(r"[ -~]{0,2000}", value) is None:
            raise MalformedReply("upload: an impossible header")
    return {name: value for name, value in told.headers.items() if name.lower() not in _WIRE_HEADERS}


# --- reading ------------------------------------------------------------------------------------------------


def _text(envelope: _Envelope | None) -> str:
    return words((envelope.message or "") if envelope else "")


def _status(reply: HttpReply, envelope: _Envelope | None) -> int:
    """What the answer really is: an error may come under a successful status with its code in the envelope."""
    if 200 <= reply.status < 300 and envelope is not None:
        return envelope.code
    return reply.status


def _outcome(prediction: _Prediction) -> PollOutcome:
    match prediction.status:
        case "completed":
            url, data = result_of(prediction.outputs)
            if not url and not data:
                return _without_image(prediction)
            return Finished(url=url, data=data, expires_s=WEEK_S, job=prediction.id)
        case "failed":
            return _failed(words(decode_or_none(prediction.error, str) or ""))
        case "timeout":
            return Failed("expired", "timed out at WaveSpeed", retryable=False)
        case "cancelled" | "deleted":
            return Failed("cancelled", f"{prediction.status} at WaveSpeed", retryable=False, charged=True)
        case "created" | "processing":
            return Pending()
        case state:
            # Three of the final states are in no document, only in their clients: there may be others.
            return Pending(words(state) or "?")


def _without_image(prediction: _Prediction) -> Gone:
    """Nothing at all is a lost image.  Something in a form that we cannot read may yet be one: it is not given up."""
    if decode_or_none(prediction.outputs, object):
        raise MalformedReply("prediction: completed with an output of an unknown form")
    return Gone("completed without an output")


def _failed(text: str) -> Failed:
    if is_policy(text):
        return Failed("policy", text, retryable=False)
    return Failed("provider", text, retryable=_UPSTREAM.search(text) is not None)


def _no_answer(reply: HttpReply, envelope: _Envelope | None) -> PollOutcome:
    match _status(reply, envelope):
        case 404 if envelope is not None:
            return NotVisible()  # in WaveSpeed's own words; another server's 404 page says nothing
        case 429:
            return throttled(reply)
        case status:
            return Unreadable(words(f"status {status} {_text(envelope)}"), unauthorized=status in (401, 403))


def _read_page(reply: HttpReply) -> _Page:
    envelope = decode_or_none(reply.body, _Envelope)
    if _status(reply, envelope) != 200 or envelope is None:
        raise MalformedReply(f"listing: status {reply.status}")
    page = decode(envelope.data, _Page, "listing")
    if page.total is not None and not page.items and page.total > (page.page - 1) * PAGE_SIZE:
        raise MalformedReply("listing: an empty page before the end")
    return page


def _listed(item: _Listed) -> ListedJob:
    if not is_job_id(item.id):
        raise MalformedReply("listing: an item without a usable id")
    model = words(decode_or_none(item.model, str) or "")
    return ListedJob(item.id, to_us(item.created_at), None, _told(item) or Pending(), model=model)


def _told(item: _Listed) -> PollOutcome | None:
    """What a list tells of a job.  That an image is missing is believed of the job's own answer only: a list may leave
    outputs out."""
    try:
        outcome = _outcome(item)
    except MalformedReply:
        return None
    return None if isinstance(outcome, Gone) else outcome
