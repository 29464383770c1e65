"""Kie: asynchronous tasks behind envelope codes, no listing, callbacks whose signature covers the id only.

Documentation followed (and, where marked *reported*, clients that call the live API):

- start: https://docs.kie.ai (keys, 20 creations per 10 s per account, 429 is not queued)
- create: https://docs.kie.ai/market/google/nano-banana-2, .../pro-image-to-image, .../nano-banana, .../nano-banana-edit
- task: https://docs.kie.ai/market/common/get-task-detail (recordInfo, states, envelope codes)
- credit: https://docs.kie.ai/common-api
- hook: https://docs.kie.ai/common-api/webhook-verification
- client: https://github.com/alfman99/kie-ai-mcp ``src/task-status.ts``, ``src/http.ts`` (reported)

What matters here:

- HTTP 200 carries failures: the envelope's ``code`` decides, and on a poll 501 and 408 mean that the task failed.
- There is no idempotency key, no listing, no cancel.  A lost answer to a creation can only be cleared up by a
  callback that carries our reference in its URL, so everything that is not a documented refusal is ``Unclear``.
- recordInfo lags behind the creation: 404 and 422 ("recordInfo is null") prove nothing for 90 s.
- ``resultJson`` is JSON in a string; a reseller of the same engine sends an object.  Both are read.
- The two newer models differ in their defaults (``jpg``/``png``, ``auto``/``1:1``): every field is always sent.
- Requests without a browser-like User-Agent are turned away by the network in front of Kie (*reported*).
"""

import math
import re
from typing import Literal
from urllib.parse import quote

import msgspec

from adapters.base import (
    Accepted,
    Context,
    Failed,
    Finished,
    HttpCall,
    HttpReply,
    ImageRequest,
    JobPage,
    MalformedReply,
    NotVisible,
    Pending,
    PollOutcome,
    Refused,
    RefusedReason,
    Standing,
    SubmitOutcome,
    Throttled,
    Unclear,
    Unreadable,
)
from adapters.capabilities import Capabilities, Known, Model, Rate, References
from adapters.fitting import misfit, model_of
from adapters.reading import decode, decode_or_none, is_job_id, seconds, words

_START = "https://docs.kie.ai"
_CREATE = "https://docs.kie.ai/market/google/nano-banana-2"
_TASK = "https://docs.kie.ai/market/common/get-task-detail"
_HOOK = "https://docs.kie.ai/common-api/webhook-verification"
_CLIENT = "https://github.com/alfman99/kie-ai-mcp"
_READ = "2026-11-22"

_USER_AGENT = "Mozilla/5.0 (compatible; bydawn/0.1)"
_EDIT_MODEL = "google/nano-banana-edit"  # the 2.5 model has one name for text and one for references
_RESULT_LIFE_S = 86_400.0
CREDIT_MICROUSD = 5_000  # 8 credits are sold as $0.04: inferred from the model pages, nowhere stated

_ASPECTS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9", "auto")

CAPABILITIES = Capabilities(
    provider="kie",
    title="Kie",
    key_env="KIE_API_KEY",
    base_url="https://api.kie.ai",
    shape=Known("async", _START, _READ, "confirmed"),
    models=Known(
        (
            Model(
                "nano-banana",
                "google/nano-banana",
                max_references=10,
                aspects=_ASPECTS,
                resolutions=("1K",),
                max_prompt_chars=5_000,
            ),
            Model(
                "nano-banana-2",
                "nano-banana-2",
                max_references=14,
                aspects=(*_ASPECTS, "1:4", "1:8", "4:1", "8:1"),
                resolutions=("1K", "2K", "4K"),
                max_prompt_chars=20_000,
                grounding=True,
            ),
            Model(
                "nano-banana-pro",
                "nano-banana-pro",
                max_references=8,
                aspects=_ASPECTS,
                resolutions=("1K", "2K", "4K"),
                max_prompt_chars=10_000,
            ),
        ),
        _CREATE,
        _READ,
        "confirmed",
    ),
    # Documented are 20 per 10 s and no queue behind it: two are left for whoever else uses the account.
    submit_rate=Known(Rate(18, 10.0), _START, _READ, "confirmed"),
    poll_rate=Known(Rate(10, 1.0), _CLIENT, _READ, "reported"),
    polls_share_submit_rate=Known(False, _CLIENT, _READ, "assumed"),
    concurrency=Known(40, _START, _READ, "assumed"),
    max_concurrency=Known(100, _START, _READ, "confirmed"),  # "typically enough for 100+ running tasks"
    submit_timeout_s=Known(60.0, _START, _READ, "assumed"),
    typical_latency_s=Known(30.0, _TASK, _READ, "assumed"),
    visible_after_s=Known(90.0, _CLIENT, _READ, "reported"),
    result_life_s=Known(_RESULT_LIFE_S, _TASK, _READ, "confirmed"),
    result_hosts=Known((".aiquickdraw.com",), _CREATE, _READ, "reported"),
    charged_on=Known("success", _START, _READ, "assumed"),  # whether a failed task is refunded is documented nowhere
    references=Known(References(), _CREATE, _READ, "confirmed"),
    no_job_answers=Known(
        (
            "code 401: key missing or wrong",
            "code 402: not enough credits",
            "code 422: the request did not pass validation",
            "code 429: too fast; rejected and not queued",
            "code 433: the key's own usage cap is reached",
            "code 455: maintenance",
            "code 505: the feature is disabled",
            'HTTP 403 with "error code: 1010": turned away by the network in front of Kie',
        ),
        _CREATE,
        _READ,
        "confirmed",
    ),
    callback=Known("id-signed", _HOOK, _READ, "confirmed"),
    best_for="lean bulk, credits",
)

_REFUSALS: dict[int, RefusedReason] = {
    401: "unauthorized",
    402: "no_credit",
    422: "invalid",
    433: "no_credit",
    455: "unavailable",
    505: "unavailable",
}
_RUNNING = ("waiting", "queuing", "generating")
_EDGE_BLOCK = b"error code: 1010"
_POLICY = re.compile(
    r"polic|safety|prohibited|sensitive|nsfw|moderation|violat|content filter|flagged|inappropriate", re.IGNORECASE
)


class _Created(msgspec.Struct):
    taskId: object = None  # noqa: N815  # the field's name on the wire


class _Record(msgspec.Struct):
    """``data`` of recordInfo; everything optional, since failures arrive with less."""

    taskId: str | None = None  # noqa: N815
    state: str | None = None
    resultJson: msgspec.Raw = msgspec.Raw()  # noqa: N815
    failCode: object = None  # noqa: N815  # a string by the page, a number in clients
    failMsg: object = None  # noqa: N815
    creditsConsumed: object = None  # noqa: N815  # never worth losing a result over


class _Envelope(msgspec.Struct):
    """What surrounds every answer; model pages say ``msg``, the task page ``message``."""

    code: int | None = None
    msg: str | None = None
    message: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def text(self) -> str:
        return words(self.msg or self.message or "")


class _Results(msgspec.Struct):
    resultUrls: tuple[str, ...] = ()  # noqa: N815


class Kie:
    """The codec; it has no state."""

    capabilities = CAPABILITIES

    def problem(self, request: ImageRequest) -> str | None:
        if request.model_version:
            return "Kie has no model versions to pin"
        return misfit(CAPABILITIES, request)

    def lane(self, request: ImageRequest) -> str:
        """One lane: the documented limits are per account, whatever the model."""
        return "default"

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        if (problem := self.problem(request)) is not None:
            raise ValueError(problem)
        body: dict[str, object] = {"model": _wire_model(request)}
        if ctx.callback_url:
            body["callBackUrl"] = ctx.callback_url
        body["input"] = _wire_input(request)
        return _call("POST", "/api/v1/jobs/createTask", ctx, body=msgspec.json.encode(body))

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        """Read a creation.  A reply is believed to be a refusal only when its code is documented as one, and an HTTP
        5xx only when the code says the same number: a gateway may have failed behind a task that exists."""
        envelope = decode_or_none(reply.body, _Envelope)
        success = 200 <= reply.status < 300
        code = reply.status if envelope is None or envelope.code is None else envelope.code
        job = _job_of(envelope)
        if code == 200 or (success and code == reply.status):
            if job and success:
                return Accepted(job)
            return Unclear("a success without a readable task id", likely_paid=success or bool(job))
        if job:
            return Unclear(f"code {code} beside a task id", likely_paid=True)
        detail = envelope.text if envelope is not None else ""
        if reply.status >= 500 and (code != reply.status or envelope is None or envelope.code is None):
            return Unclear(f"HTTP {reply.status}")
        if code == 429:
            return Throttled(seconds(reply.headers.get("retry-after", "")))
        if code in _REFUSALS:
            return Refused(_REFUSALS[code], detail or f"code {code}")
        if reply.status == 403 and _EDGE_BLOCK in reply.body:
            return Refused("forbidden", "turned away by the network in front of Kie (error code 1010)")
        return Unclear(f"HTTP {reply.status}, code {code}")

    def build_poll(self, job: str, ctx: Context) -> HttpCall:
        return _call("GET", f"/api/v1/jobs/recordInfo?taskId={quote(job, safe='')}", ctx)

    def read_poll(self, reply: HttpReply) -> PollOutcome:
        """Read a task.  An ended task is believed whatever the code beside it; else the code decides."""
        envelope = decode_or_none(reply.body, _Envelope)
        if envelope is None or envelope.code is None:
            return _read_bare(reply)
        record = decode_or_none(envelope.data, _Record)
        match record.state if record is not None else None:
            case "success" if record is not None:
                return _finished(record)
            case "fail" if record is not None:
                return _failed(record, envelope)
        match envelope.code:
            case 200:
                if record is None or not record.state:
                    raise MalformedReply("task: a success without a state")
                return Pending()  # any state the page does not name is taken for a new way of running
            case 404 | 422:
                return NotVisible()
            case 408 | 501:
                return _failed(record or _Record(), envelope)
            case 429:
                return Throttled(seconds(reply.headers.get("retry-after", "")))
            case code:
                return Unreadable(f"code {code}: {envelope.text}", unauthorized=code == 401)

    def build_check(self, ctx: Context) -> HttpCall:
        return _call("GET", "/api/v1/chat/credit", ctx)

    def read_check(self, reply: HttpReply) -> Standing:
        envelope = decode_or_none(reply.body, _Envelope)
        code = reply.status if envelope is None or envelope.code is None else envelope.code
        if code == 401:
            return Standing("rejected", (envelope.text if envelope is not None else "") or "the key was refused")
        if code == 402:
            return Standing("no_credit", "no credits left")
        balance = _credits(decode_or_none(envelope.data, object)) if envelope is not None and code == 200 else None
        if balance is None:
            return Standing("unreadable", f"HTTP {reply.status}, code {code}")
        if balance <= 0:
            return Standing("no_credit", "no credits left", balance_microusd=0)
        return Standing("ok", f"{balance:,.12g} credits", balance_microusd=round(balance * CREDIT_MICROUSD))

    # Kie has neither a listing nor a cancel, and the capability record says so.

    def fingerprint(self, request: ImageRequest, ctx: Context) -> str:
        raise _absent("listing")

    def build_list(self, ctx: Context, *, since_us: int, until_us: int, cursor: str | None) -> HttpCall:
        raise _absent("listing")

    def read_list(self, reply: HttpReply) -> JobPage:
        raise _absent("listing")

    def build_cancel(self, job: str, ctx: Context) -> HttpCall:
        raise _absent("cancel")

    def read_cancel(self, reply: HttpReply) -> PollOutcome:
        raise _absent("cancel")


KIE = Kie()


def _absent(what: str) -> ValueError:
    return ValueError(f"Kie has no {what}")


def _call(method: Literal["GET", "POST"], path: str, ctx: Context, body: bytes = b"") -> HttpCall:
    headers = {
        "authorization": f"Bearer {ctx.key.reveal()}",
        "user-agent": _USER_AGENT,
        "accept": "application/json",
    }
    if body:
        headers["content-type"] = "application/json"
    base = (ctx.base_url or CAPABILITIES.base_url).rstrip("/")
    return HttpCall(method, base + path, headers, body, timeout_s=60.0 if body else 30.0)


def _wire_model(request: ImageRequest) -> str:
    model = model_of(CAPABILITIES, request)
    return _EDIT_MODEL if model.name == "nano-banana" and request.references else model.provider_id


def _wire_input(request: ImageRequest) -> dict[str, object]:
    model = model_of(CAPABILITIES, request)
    image_format = request.output_format or model.default_format
    fields: dict[str, object] = {"prompt": request.prompt}
    if model.name == "nano-banana":
        if request.references:
            fields["image_urls"] = request.references
        fields["aspect_ratio"] = request.aspect
        fields["output_format"] = "jpeg" if image_format == "jpg" else image_format
        return fields
    fields["image_input"] = request.references
    fields["aspect_ratio"] = request.aspect
    fields["resolution"] = request.resolution
    fields["output_format"] = image_format
    if request.grounding:
        fields["google_search"] = True  # gone from the newest schema, so only on demand
    return fields


def _job_of(envelope: _Envelope | None) -> str:
    created = decode_or_none(envelope.data, _Created) if envelope is not None else None
    job = created.taskId if created is not None else None
    return job if isinstance(job, str) and is_job_id(job) else ""


def _read_bare(reply: HttpReply) -> PollOutcome:
    """Read an answer without an envelope: it comes from a gateway and tells nothing about the task."""
    if reply.status == 429:
        return Throttled(seconds(reply.headers.get("retry-after", "")))
    if 200 <= reply.status < 300:
        raise MalformedReply(f"task: HTTP {reply.status} without the documented envelope")
    return Unreadable(f"HTTP {reply.status}", unauthorized=reply.status == 401)


def _finished(record: _Record) -> Finished:
    text = decode_or_none(record.resultJson, str)
    results = decode(record.resultJson if text is None else text.encode(), _Results, "task: resultJson")
    urls = [url for url in results.resultUrls if url.startswith(("https://", "http://"))]
    if not urls:
        raise MalformedReply("task: a success without a result URL")
    return Finished(
        url=urls[0],  # these models make one image per task
        cost_microusd=_cost(record),
        expires_s=_RESULT_LIFE_S,
        job=record.taskId or "",
    )


def _failed(record: _Record, envelope: _Envelope) -> Failed:
    """A policy failure is final, and so is one of validation; another may go better next time."""
    detail = words(record.failMsg) if isinstance(record.failMsg, str) else ""
    detail = detail or envelope.text or f"code {envelope.code}"
    cost = _cost(record) or 0
    if _POLICY.search(detail):
        return Failed("policy", detail, retryable=False, cost_microusd=cost)
    retryable = str(record.failCode) not in ("400", "422")
    return Failed("provider", detail, retryable=retryable, cost_microusd=cost)


def _credits(value: object) -> float | None:
    """Read a number of credits; an impossible one says nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) < 1e12 else None


def _cost(record: _Record) -> int | None:
    consumed = _credits(record.creditsConsumed)
    return None if consumed is None or consumed < 0 else round(consumed * CREDIT_MICROUSD)
