"""Replicate: asynchronous predictions, a complete listing that also polls, files, signed webhooks, cancel.

Documentation followed:

- OA: Replicate's OpenAPI document "Replicate HTTP API" 1.0.0-a1, https://api.replicate.com/openapi.json
- limits: https://replicate.com/docs/topics/predictions/rate-limits
- life: https://replicate.com/docs/topics/predictions/lifecycle and .../data-retention
- deadlines: https://replicate.com/changelog/2025-10-16-prediction-deadlines
- fallback: https://replicate.com/changelog/2026-03-02-fallback-model-for-nano-banana-pro
- hooks: https://replicate.com/docs/topics/webhooks/receive-webhook, .../verify-webhook
- models: https://replicate.com/google/nano-banana, /nano-banana-2, /nano-banana-pro (input schemas)
- SDK: the official ``replicate`` 1.0.7, which the tests run against our emulator

What matters here:

- What its limits and models are, and how sure that is, stands in ``adapters.replicate_record``.
- There is no idempotency key and no field of our own that a listing shows.  A lost answer is found again by
  its input: equal inputs of one model are interchangeable.  The input is shown for one hour only.
- The webhook URL is not shown by a listing; a callback is a hint and no proof.  Its last try comes about a minute
  after the end: what was missed then is found by the list alone.
- One listing call tells the states of 100 predictions, so that is how they are polled.
- Uploaded files live for an hour in the documented sample: they are uploaded when they are needed.
- A canceled prediction of a public model is charged, an aborted one (deadline before start) is not.
- Capacity trouble at Google arrives as a *failed prediction* with free text, not as an HTTP error.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated
from urllib.parse import parse_qs, quote, urlencode, urlsplit

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
    Throttled,
    Unclear,
    Unreadable,
    Uploaded,
    UploadSteps,
)
from adapters.calling import address, bearer
from adapters.capabilities import Capabilities, Model
from adapters.fitting import misfit, model_of
from adapters.multipart import form
from adapters.reading import (
    canonical_digest,
    decode,
    decode_or_none,
    from_base64,
    from_us,
    is_job_id,
    result_of,
    seconds,
    to_us,
    upload_refused,
    words,
)
from adapters.replicate_record import CAPABILITIES, PAGE_SIZE, RESULT_LIFE_S, UPLOAD_LIFE_S
from adapters.signing import is_recent, is_signed

_HOOK_TOLERANCE_S = 300.0  # Replicate names none; five minutes is what Standard Webhooks practises
_CANCEL_AFTER = "20m"  # no job of ours may run, and be charged, long after the batch gave it up

# Words of a failed prediction that mean: this prompt or this picture, not this moment.
_POLICY = re.compile(
    r"flagged|sensitive|\bsafety\b|content polic|prohibited|nsfw|moderation|blocked by|\bE005\b", re.IGNORECASE
)
_CAPACITY = re.compile(
    r"high demand|rate.?limit|unavailable|overloaded|capacity|resource.?exhausted|quota|\bE003\b|\b(429|503)\b",
    re.IGNORECASE,
)
_BAD_INPUT = re.compile(
    r"input validation|invalid input|must be one of|is required|(failed to|could not|cannot) (download|fetch)",
    re.IGNORECASE,
)
_RESETS_IN = re.compile(r"resets in ~?\s*([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*s", re.IGNORECASE)
_VERSION = re.compile(r"[0-9a-f]{64}")

_REFUSALS: dict[int, RefusedReason] = {
    400: "invalid",
    401: "unauthorized",
    402: "no_credit",
    403: "forbidden",
    404: "unavailable",
    413: "invalid",
    422: "invalid",
}


# --- what they send -----------------------------------------------------------------------------------------


class _Prediction(msgspec.Struct, frozen=True):
    """The parts of a prediction object that we read."""

    id: str
    status: str
    model: str = ""
    version: str | None = None
    output: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")
    data_removed: bool = False
    started_at: msgspec.Raw = msgspec.Raw(b"null")
    metrics: msgspec.Raw = msgspec.Raw(b"null")


class _Listed(_Prediction, frozen=True, kw_only=True):
    created_at: Annotated[datetime, msgspec.Meta(tz=True)]
    input: dict[str, msgspec.Raw] | None = None


class _Page(msgspec.Struct, frozen=True):
    results: list[_Listed]
    next: str | None


class _Sweep(msgspec.Struct, frozen=True):
    results: list[msgspec.Raw]


class _Created(msgspec.Struct, frozen=True):
    id: str


class _Urls(msgspec.Struct, frozen=True):
    get: str


class _File(msgspec.Struct, frozen=True):
    urls: _Urls
    created_at: msgspec.Raw = msgspec.Raw(b"null")
    expires_at: msgspec.Raw = msgspec.Raw(b"null")


class _Problem(msgspec.Struct, frozen=True):
    title: str | None = None
    detail: str | None = None
    retry_after: float | None = None

    @property
    def text(self) -> str:
        return words(": ".join(part for part in (self.title, self.detail) if part))


class _Account(msgspec.Struct, frozen=True):
    type: str
    username: str


# --- the codec ----------------------------------------------------------------------------------------------


class ReplicateCodec:
    """Replicate's dialect."""

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def problem(self, request: ImageRequest) -> str | None:
        if request.model_version and _VERSION.fullmatch(request.model_version) is None:
            return "a Replicate version is 64 hexadecimal digits"
        return misfit(CAPABILITIES, request)

    def lane(self, request: ImageRequest) -> str:
        return "default"

    # --- buying

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        """Build the create call: by model name, or by version when the request pins one."""
        model = model_of(CAPABILITIES, request)
        body: dict[str, object] = {"input": _input(request, model)}
        if request.model_version:
            path = "/v1/predictions"
            body["version"] = f"{model.provider_id}:{request.model_version}"
        else:
            path = f"/v1/models/{model.provider_id}/predictions"
        if ctx.callback_url:
            body["webhook"] = ctx.callback_url
            body["webhook_events_filter"] = ["completed"]
        return HttpCall(
            "POST",
            address(ctx, CAPABILITIES.base_url, path),
            bearer(ctx) | {"Content-Type": "application/json", "Cancel-After": _CANCEL_AFTER},
            msgspec.json.encode(body),
            timeout_s=CAPABILITIES.submit_timeout_s.value,
        )

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        if 200 <= reply.status < 300:
            created = decode_or_none(reply.body, _Created)
            if created is None or not is_job_id(created.id):
                return Unclear("created, but without a readable id", likely_paid=True)
            return Accepted(created.id)
        problem = decode_or_none(reply.body, _Problem) or _Problem()
        if reply.status == 429:
            return Throttled(_wait(reply, problem))
        reason = _REFUSALS.get(reply.status)
        if reason is None:
            return Unclear(words(f"status {reply.status} {problem.text}"))
        if reason == "invalid" and _POLICY.search(problem.text):
            reason = "policy"
        return Refused(reason, problem.text)

    # --- asking

    def build_poll(self, job: str, ctx: Context) -> HttpCall:
        return HttpCall("GET", address(ctx, CAPABILITIES.base_url, _job_path(job)), bearer(ctx))

    def read_poll(self, reply: HttpReply) -> PollOutcome:
        if 200 <= reply.status < 300:
            return _outcome(decode(reply.body, _Prediction, "prediction"))
        return _no_answer(reply)

    def build_cancel(self, job: str, ctx: Context) -> HttpCall:
        return HttpCall("POST", address(ctx, CAPABILITIES.base_url, _job_path(job) + "/cancel"), bearer(ctx))

    def read_cancel(self, reply: HttpReply) -> PollOutcome:
        return self.read_poll(reply)

    def build_check(self, ctx: Context) -> HttpCall:
        return HttpCall("GET", address(ctx, CAPABILITIES.base_url, "/v1/account"), bearer(ctx))

    def read_check(self, reply: HttpReply) -> Standing:
        if 200 <= reply.status < 300:
            account = decode(reply.body, _Account, "account")
            return Standing("ok", identity=words(f"{account.type}/{account.username}"))
        detail = (decode_or_none(reply.body, _Problem) or _Problem()).text
        match reply.status:
            case 401 | 403:
                return Standing("rejected", detail)
            case 402:
                return Standing("no_credit", detail)
            case _:
                return Standing("unreadable", words(f"status {reply.status} {detail}"))

    # --- finding again

    def fingerprint(self, request: ImageRequest, ctx: Context) -> str:
        """Digest model and input.  A version pin is not part of it: official models list as ``hidden``."""
        model = model_of(CAPABILITIES, request)
        return _fingerprint(model, _input(request, model))

    def build_list(self, ctx: Context, *, since_us: int, until_us: int, cursor: str | None) -> HttpCall:
        if not 0 <= since_us <= until_us:
            raise ValueError(f"a listing from {since_us} until {until_us}")
        # Whether the bounds are inclusive is not documented: one millisecond more on either side.
        query = {"created_after": _iso(since_us - 1_000), "created_before": _iso(until_us + 1_000)}
        if cursor is not None:
            query["cursor"] = cursor
        return HttpCall("GET", address(ctx, CAPABILITIES.base_url, "/v1/predictions?" + urlencode(query)), bearer(ctx))

    def read_list(self, reply: HttpReply) -> JobPage:
        if not 200 <= reply.status < 300:
            raise MalformedReply(f"listing: status {reply.status}")
        page = decode(reply.body, _Page, "listing")
        return JobPage(tuple(_listed(item) for item in page.results), _cursor(page.next))

    # --- asking for many

    @property
    def sweep_size(self) -> int:
        return PAGE_SIZE

    def build_sweep(self, jobs: Sequence[str], ctx: Context, *, since_us: int, until_us: int) -> HttpCall:
        """Read the newest page of the listing; what is not on it is polled by itself."""
        return self.build_list(ctx, since_us=since_us, until_us=until_us, cursor=None)

    def read_sweep(self, reply: HttpReply) -> Mapping[str, PollOutcome]:
        if not 200 <= reply.status < 300:
            raise MalformedReply(f"listing: status {reply.status}")
        found: dict[str, PollOutcome] = {}
        for raw in decode(reply.body, _Sweep, "listing").results:
            try:
                prediction = decode(raw, _Prediction, "prediction")
                found[prediction.id] = _outcome(prediction)
            except MalformedReply:
                continue  # a stranger among our jobs: his oddities are no trouble of ours
        return found

    # --- references

    def upload(self, file: FileBytes, ctx: Context) -> UploadSteps:
        content_type, body = form(file, {}, field="content")
        reply = yield HttpCall(
            "POST",
            address(ctx, CAPABILITIES.base_url, "/v1/files"),
            bearer(ctx) | {"Content-Type": content_type},
            body,
            timeout_s=120.0,
        )
        if not 200 <= reply.status < 300:
            problem = decode_or_none(reply.body, _Problem) or _Problem()
            raise upload_refused("Replicate", reply.status, problem.text)
        stored = decode(reply.body, _File, "file")
        if not stored.urls.get.startswith(("https://", "http://")):
            raise MalformedReply("file: no usable address")
        return Uploaded(stored.urls.get, _life_s(stored))

    # --- callbacks

    def verify_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: Sequence[Secret], now_s: float
    ) -> bool:
        """Check as Standard Webhooks does: id, time and body are signed, the header may hold several signatures."""
        message, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not message or not is_recent(stamp, now_s, tolerance_s=_HOOK_TOLERANCE_S):
            return False
        given = [from_base64(entry[3:]) for entry in headers.get("webhook-signature", "").split() if entry[:3] == "v1,"]
        keys = [from_base64(secret.reveal().removeprefix("whsec_")) for secret in secrets]
        return is_signed(f"{message}.{stamp}.".encode(errors="replace") + body, given, keys)

    def read_callback(self, body: bytes) -> str:
        job = decode(body, _Created, "callback").id
        if not is_job_id(job):
            raise MalformedReply("callback: no usable id")
        return job


REPLICATE = ReplicateCodec()


# --- building -----------------------------------------------------------------------------------------------


def _input(request: ImageRequest, model: Model) -> dict[str, object]:
    """Name every field of the model's schema: its defaults differ by model and change under the same name."""
    fields: dict[str, object] = {
        "prompt": request.prompt,
        "image_input": list(request.references),
        "aspect_ratio": "match_input_image" if request.aspect == "auto" else request.aspect,
        "output_format": request.output_format or model.default_format,
    }
    match model.name:
        case "nano-banana-2":
            fields |= {
                "resolution": request.resolution,
                "google_search": request.grounding,
                "image_search": False,
            }
        case "nano-banana-pro":
            # The fallback would answer with another maker's model, marked only in the metrics.
            fields |= {
                "resolution": request.resolution,
                "safety_filter_level": "block_only_high",
                "allow_fallback_model": False,
            }
    return fields


def _job_path(job: str) -> str:
    if not job:
        raise ValueError("a poll needs a job id")
    return "/v1/predictions/" + quote(job, safe="")


def _iso(at_us: int) -> str:
    return from_us(max(0, at_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# --- reading ------------------------------------------------------------------------------------------------


def _outcome(prediction: _Prediction) -> PollOutcome:
    match prediction.status:
        case "starting" | "processing":
            return Pending()
        case "succeeded":
            return _succeeded(prediction)
        case "failed":
            return _failed(decode_or_none(prediction.error, str) or "")
        case "canceled":
            # Charged once it ran: buying again is the user's decision, not ours.
            started = decode_or_none(prediction.started_at, str) is not None
            return Failed("cancelled", "canceled at Replicate", retryable=False, charged=started)
        case "aborted":
            return Failed("expired", "the deadline passed before it started; not charged")
        case _:
            raise MalformedReply("prediction: an unknown status")


def _succeeded(prediction: _Prediction) -> PollOutcome:
    if prediction.data_removed:
        return Gone("Replicate removed the output one hour after it was made")
    metrics = decode_or_none(prediction.metrics, dict[str, msgspec.Raw]) or {}
    if "resolution" in metrics and decode_or_none(metrics["resolution"], str) == "fallback":
        text = "made by the fallback model, which was not asked for"
        return Failed("contract", text, retryable=False, charged=True)
    url, data = result_of(prediction.output)
    if not url and not data:
        return Gone("succeeded without a usable output")
    return Finished(
        url=url,
        data=data,
        model_version=prediction.version if prediction.version and prediction.version != "hidden" else "",
        expires_s=RESULT_LIFE_S,
        job=prediction.id,
    )


def _failed(text: str) -> Failed:
    if _POLICY.search(text):
        return Failed("policy", words(text), retryable=False)
    permanent = _BAD_INPUT.search(text) is not None and _CAPACITY.search(text) is None
    return Failed("provider", words(text), retryable=not permanent)


def _no_answer(reply: HttpReply) -> PollOutcome:
    problem = decode_or_none(reply.body, _Problem)
    match reply.status:
        case 404 if problem is not None:
            return NotVisible()  # in Replicate's own words; another server's 404 page says nothing
        case 429:
            return Throttled(_wait(reply, problem or _Problem()))
        case _:
            text = problem.text if problem else ""
            return Unreadable(words(f"status {reply.status} {text}"), unauthorized=reply.status in (401, 403))


def _wait(reply: HttpReply, problem: _Problem) -> float | None:
    """Find how long to wait: the header where there is one, else the body, else the number in its words."""
    told = seconds(reply.headers.get("retry-after", ""))
    if told is None and problem.retry_after is not None:
        told = seconds(str(problem.retry_after))
    if told is None:
        found = _RESETS_IN.search(problem.detail or "")
        told = seconds(found[1]) if found else None
    return told


def _listed(item: _Listed) -> ListedJob:
    if not is_job_id(item.id):
        raise MalformedReply("listing: an item without a usable id")
    shown = _shown_fingerprint(item)
    return ListedJob(item.id, to_us(item.created_at), shown, _outcome(item), model=words(item.model))


def _life_s(stored: _File) -> float:
    """How long the file lasts, by the reply's own two times."""
    made, gone = (decode_or_none(raw, datetime) for raw in (stored.created_at, stored.expires_at))
    if made is None or gone is None:
        return UPLOAD_LIFE_S
    return max(0.0, (to_us(gone) - to_us(made)) / 1e6)


def _shown_fingerprint(item: _Listed) -> str | None:
    """Give the fingerprint of what the item shows; None when it cannot be compared with ours.

    Fields that we never send make it incomparable: were they filled in by Replicate, the job could be ours all
    the same, and calling it a stranger would buy the image twice.
    """
    if item.data_removed or not item.input:
        return None
    shown: dict[str, object] = {}
    for name, raw in item.input.items():
        shown[name] = decode(raw, object, "listing: an input")
    model = CAPABILITIES.model(item.model)
    if model is None:
        return canonical_digest({"model": item.model, "input": shown})
    if not shown.keys() <= _input(ImageRequest("", model=model.name), model).keys():
        return None
    return _fingerprint(model, shown)


def _fingerprint(model: Model, fields: dict[str, object]) -> str:
    return canonical_digest({"model": model.provider_id, "input": fields})


def _cursor(next_url: str | None) -> str | None:
    """Take the cursor and nothing else: the key never follows a host that a reply names."""
    if next_url is None:
        return None
    try:
        values = parse_qs(urlsplit(next_url).query).get("cursor", [])
    except ValueError as exc:
        raise MalformedReply("listing: an unreadable next page") from exc
    if len(values) != 1:
        raise MalformedReply("listing: a next page without a cursor")
    return values[0]
