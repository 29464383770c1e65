"""Segmind: a queue per request (v2), a request history that shows inputs, a lane per aspect ratio.

Documentation followed:

- async: https://docs.segmind.com/api-reference/async-inference (submit, poll, result expiry)
- errors, limits: https://docs.segmind.com/serverless-api and https://docs.segmind.com/api-reference/rate-limits
- models: https://www.segmind.com/models/nano-banana/api, /nano-banana-2/api, /nano-banana-pro/api
- SDK: the official ``segmind`` 1.3.0 (the only document of the request history), which the tests run against
  our emulator

The models and limits are in ``adapters.segmind_record``.

What matters here:

- A failed job is served under HTTP 422: the body is read before the code.
- Every POST makes a new billable request; there is no key of ours.  The history echoes the inputs, so each
  attempt gets its own ``seed`` (the marker) unless the user fixed one.
- Status and result are kept for one hour after the submission, then every poll answers 404.  The file itself
  lives seven days and the history still names it.
- The history filters by whole days of an unnamed time zone: we ask for a day more on both sides, and the
  reader of a listing compares times itself.  It also knows single requests of any age (``build_recall``).
- Lanes by aspect ratio are our policy (fair shares between the formats of a batch), not Segmind's protocol;
  all of them share one account's rate.
- Local references go to yet another host, as text inside JSON, and come back as addresses.
- Its answers name URLs on its own hosts.  They are never followed with the key; every URL is built from ids.
"""

import base64
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urlencode

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
    Standing,
    SubmitOutcome,
    Throttled,
    Unclear,
    Unreadable,
    Uploaded,
    UploadSteps,
)
from adapters.calling import address
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
    to_us,
    upload_refused,
    words,
)
from adapters.segmind_record import CAPABILITIES, FILE_LIFE_S, PAGE_SIZE

_HISTORY_HOST = "https://api.spotprod.segmind.com"
_HISTORY = "/inference-request/request-history"
_UPLOAD_HOST = "https://workflows-api.segmind.com"
_UPLOAD_TIMEOUT_S = 120.0
_WINDOW = timedelta(days=31)  # the history refuses a wider one
_ZONES_US = 12 * 3_600_000_000  # a time without a zone may be this much later than it reads as UTC
_MAX_SEED = 2**31 - 1
_RANDOM_SEED = -1

_POLICY = re.compile(
    r"flagged|sensitive|\bsafety\b|content polic|policy violation|prohibited|nsfw|moderation|blocked", re.IGNORECASE
)
_BAD_INPUT = re.compile(
    r"invalid|validation|unsupported|missing (field|parameter)|must be|bad parameter", re.IGNORECASE
)
_MONEY = re.compile(r"credit|balance|spend|team limit|payment", re.IGNORECASE)


# --- what they send -----------------------------------------------------------------------------------------


class _Error(msgspec.Struct, frozen=True):
    """``{"error"}``, and from the authentication surface ``{"error", "error_description"}``."""

    error: str
    error_description: str = ""

    @property
    def text(self) -> str:
        return words(f"{self.error} {self.error_description}")


class _Submitted(msgspec.Struct, frozen=True):
    request_id: str


class _Metrics(msgspec.Struct, frozen=True):
    cost: float | None = None


class _Job(msgspec.Struct, frozen=True):
    status: str = ""
    request_id: str = ""
    output: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")
    metrics: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def cost_microusd(self) -> int | None:
        return microusd((decode_or_none(self.metrics, _Metrics) or _Metrics()).cost)


class _Row(msgspec.Struct, frozen=True):
    """One row of the request history."""

    request_id: str
    model_name: str
    model_status: str
    created_at: datetime
    request_body: msgspec.Raw = msgspec.Raw(b"null")
    generation_url: msgspec.Raw = msgspec.Raw(b"null")
    credits_deduction: float | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


class _History(msgspec.Struct, frozen=True):
    """One page.  The envelope's names are assumed: the SDK calls it a "paginated dictionary" and no more.

    Should they differ, no page can be read, and what is doubtful stays held instead of being bought again.
    """

    data: list[_Row]
    page: int
    per_page: int
    total: int


class _Credits(msgspec.Struct, frozen=True):
    credits: float


class _Assets(msgspec.Struct, frozen=True):
    file_urls: list[str]


# --- the codec ----------------------------------------------------------------------------------------------


class SegmindCodec:
    """Segmind's dialect."""

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def problem(self, request: ImageRequest) -> str | None:
        if request.seed is not None and not 1 <= request.seed <= _MAX_SEED:
            return f"a Segmind seed is between 1 and {_MAX_SEED}"
        return misfit(CAPABILITIES, request)

    def lane(self, request: ImageRequest) -> str:
        return request.aspect

    # --- buying

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        model = model_of(CAPABILITIES, request)
        return HttpCall(
            "POST",
            address(ctx, CAPABILITIES.base_url, "/v2/" + model.provider_id),
            _headers(ctx) | {"Content-Type": "application/json"},
            msgspec.json.encode(_fields(request, model, ctx.marker)),
            timeout_s=CAPABILITIES.submit_timeout_s.value,
        )

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        if 200 <= reply.status < 300:
            submitted = decode_or_none(reply.body, _Submitted)
            if submitted is None or not is_job_id(submitted.request_id):
                return Unclear("submitted, but without a readable request id", likely_paid=True)
            return Accepted(submitted.request_id)
        text = _text(reply)
        match reply.status:
            case 400:
                return Refused("policy" if _POLICY.search(text) else "invalid", text)
            case 401:
                return Refused("unauthorized", text)
            case 403:
                return Refused("forbidden", text)
            case 404 | 405 | 410:
                return Refused("unavailable", text)
            case 406 if text:
                return _not_acceptable(text)
            case 429:
                return Throttled(_reset_s(reply))
            case _:
                return Unclear(words(f"status {reply.status} {text}"))

    # --- asking

    def build_poll(self, job: str, ctx: Context) -> HttpCall:
        """Ask for the full record: it says what the light status says and needs no second call for the URL."""
        if not job:
            raise ValueError("a poll needs a request id")
        return HttpCall(
            "GET", address(ctx, CAPABILITIES.base_url, "/v2/requests/" + quote(job, safe="")), _headers(ctx)
        )

    def read_poll(self, reply: HttpReply) -> PollOutcome:
        if 200 <= reply.status < 300:
            return _outcome(decode(reply.body, _Job, "request"))
        if reply.status == 422:
            job = decode_or_none(reply.body, _Job)
            if job is not None and job.status == "FAILED":
                return _failed(job)
        return _no_answer(reply)

    def build_recall(self, job: str, ctx: Context) -> HttpCall:
        """Ask the history for one request, of any age: its file outlives the record that polls read."""
        if not job:
            raise ValueError("a recall needs a request id")
        return HttpCall("GET", address(ctx, _HISTORY_HOST, _HISTORY + "/" + quote(job, safe="")), _headers(ctx))

    def read_recall(self, reply: HttpReply) -> PollOutcome:
        if 200 <= reply.status < 300:
            return _row_outcome(decode(reply.body, _Row, "history"))
        return _no_answer(reply)

    def build_check(self, ctx: Context) -> HttpCall:
        return HttpCall("GET", address(ctx, CAPABILITIES.base_url, "/v1/get-user-credits"), _headers(ctx))

    def read_check(self, reply: HttpReply) -> Standing:
        if 200 <= reply.status < 300:
            left = microusd(max(0.0, decode(reply.body, _Credits, "credits").credits))
            return Standing("ok" if left != 0 else "no_credit", balance_microusd=left)
        text = _text(reply)
        match reply.status:
            case 401 | 403:
                return Standing("rejected", text)
            case 404 if "no credits" in text.lower():
                return Standing("no_credit", text, balance_microusd=0)
            case _:
                return Standing("unreadable", words(f"status {reply.status} {text}"))

    # --- finding again

    def fingerprint(self, request: ImageRequest, ctx: Context) -> str:
        model = model_of(CAPABILITIES, request)
        return _fingerprint(model, _fields(request, model, ctx.marker))

    def build_list(self, ctx: Context, *, since_us: int, until_us: int, cursor: str | None) -> HttpCall:
        """Ask for one page of the days around the window; ``cursor`` is the page number.

        Raises:
            ValueError: the window with its margins is wider than the history serves.
        """
        first, last = from_us(since_us) - timedelta(days=1), from_us(until_us) + timedelta(days=1)
        if not timedelta(0) <= last - first < _WINDOW:
            raise ValueError(f"a listing from {since_us} until {until_us}")
        query = {
            "page": cursor or "1",
            "per_page": str(PAGE_SIZE),
            "from_date": first.date().isoformat(),
            "to_date": last.date().isoformat(),
            "sort_by": "model_created",
            "sort_order": "desc",
        }
        return HttpCall("GET", address(ctx, _HISTORY_HOST, _HISTORY + "?" + urlencode(query)), _headers(ctx))

    def read_list(self, reply: HttpReply) -> JobPage:
        if not 200 <= reply.status < 300:
            raise MalformedReply(f"history: status {reply.status}")
        page = decode(reply.body, _History, "history")
        if page.page < 1 or not 1 <= page.per_page <= PAGE_SIZE or page.total < 0:
            raise MalformedReply("history: impossible page numbers")
        # A page cut short would hide jobs, and a job that is not shown is bought again.
        if len(page.data) != max(0, min(page.per_page, page.total - (page.page - 1) * page.per_page)):
            raise MalformedReply("history: a page without all its rows")
        jobs: dict[str, ListedJob] = {}
        for row in page.data:  # a request with several outputs has several rows, each with its whole cost
            jobs.setdefault(row.request_id, _listed(row))
        more = page.page * page.per_page < page.total
        return JobPage(tuple(jobs.values()), str(page.page + 1) if more else None)

    # --- references

    def upload(self, file: FileBytes, ctx: Context) -> UploadSteps:
        """Send the file as text to the host that keeps assets, which has the same key."""
        encoded = base64.b64encode(file.data).decode()
        reply = yield HttpCall(
            "POST",
            address(ctx, _UPLOAD_HOST, "/upload-asset"),
            _headers(ctx) | {"Content-Type": "application/json"},
            msgspec.json.encode({"data_urls": [f"data:{file.media_type};base64,{encoded}"]}),
            timeout_s=_UPLOAD_TIMEOUT_S,
        )
        if not 200 <= reply.status < 300:
            raise upload_refused("Segmind", reply.status, _text(reply))
        told = decode(reply.body, _Assets, "upload")
        if len(told.file_urls) != 1 or not is_web_address(told.file_urls[0], plain=bool(ctx.base_url)):
            raise MalformedReply("upload: no usable address")
        return Uploaded(told.file_urls[0], CAPABILITIES.references.value.upload_life_s)


SEGMIND = SegmindCodec()


# --- building -----------------------------------------------------------------------------------------------


def _fields(request: ImageRequest, model: Model, marker: int) -> dict[str, object]:
    """Name every field of the model's page: the shown defaults are samples more than promises."""
    fields: dict[str, object] = {
        "prompt": request.prompt,
        "image_urls": list(request.references),
        "aspect_ratio": request.aspect,
        "response_modalities": "IMAGE",
    }
    if model.name != "nano-banana":
        fields |= {
            "output_resolution": request.resolution,
            "output_format": request.output_format or model.default_format,
            "seed": request.seed if request.seed is not None else marker or _RANDOM_SEED,
            "web_search": request.grounding,
            "thinking_level": "minimal",
            "safety_tolerance": 4,
        }
    return fields


def _headers(ctx: Context) -> dict[str, str]:
    return {"x-api-key": ctx.key.reveal(), "Accept": "application/json"}


# --- reading ------------------------------------------------------------------------------------------------


def _text(reply: HttpReply) -> str:
    """Give the error in Segmind's words; empty when it is not an error body of theirs."""
    error = decode_or_none(reply.body, _Error)
    return error.text if error else ""


def _not_acceptable(text: str) -> Refused:
    """Split 406, which means four things, by its words."""
    if _MONEY.search(text):
        return Refused("no_credit", text)
    return Refused("policy" if _POLICY.search(text) else "invalid", text)


def _no_answer(reply: HttpReply) -> PollOutcome:
    text = _text(reply)
    match reply.status:
        case 404 if text:
            return NotVisible()  # in Segmind's own words; another server's 404 page says nothing
        case 429:
            return Throttled(_reset_s(reply))
        case _:
            return Unreadable(words(f"status {reply.status} {text}"), unauthorized=reply.status in (401, 403))


def _reset_s(reply: HttpReply) -> float | None:
    """Give the seconds until the rate resets: an absolute time, so it needs the reply's own date."""
    try:
        reset = datetime.fromisoformat(reply.headers.get("x-rate-limit-reset-at-utc", ""))
        now = parsedate_to_datetime(reply.headers.get("date", ""))
        return min(max(0.0, (_utc(reset) - _utc(now)).total_seconds()), 3600.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _outcome(job: _Job) -> PollOutcome:
    url, data = result_of(job.output)
    match job.status:
        case "QUEUED" | "PROCESSING":
            return Pending()
        case "FAILED":
            return _failed(job)
        case "COMPLETED" | "" if url or data:  # some completed records carry no status
            return Finished(
                url=url, data=data, cost_microusd=job.cost_microusd, expires_s=FILE_LIFE_S, job=job.request_id
            )
        case "COMPLETED":
            return Gone("completed without a usable output")
        case _:
            raise MalformedReply("request: an unknown status")


def _failed(job: _Job) -> Failed:
    return _failure(decode_or_none(job.error, str) or "", job.cost_microusd or 0)


def _failure(text: str, cost_microusd: int) -> Failed:
    if _POLICY.search(text):
        return Failed("policy", words(text), retryable=False, cost_microusd=cost_microusd)
    return Failed("provider", words(text), retryable=_BAD_INPUT.search(text) is None, cost_microusd=cost_microusd)


def _listed(row: _Row) -> ListedJob:
    if not is_job_id(row.request_id):
        raise MalformedReply("history: a row without a usable id")
    # Too early a time would rule a job out, and what is ruled out is bought again: when in doubt, the latest one.
    zone_us = _ZONES_US if row.created_at.tzinfo is None else 0
    return ListedJob(
        row.request_id,
        to_us(row.created_at) + zone_us,
        _shown_fingerprint(row),
        _row_outcome(row),
        microusd(row.credits_deduction),
        words(row.model_name),
    )


def _row_outcome(row: _Row) -> PollOutcome:
    cost = microusd(row.credits_deduction)
    match row.model_status:
        case "PENDING" | "QUEUED" | "PROCESSING":
            return Pending()
        case "COMPLETED":
            url, data = result_of(row.generation_url)
            if not url and not data:
                return Pending()  # the row lands before its URL does; the poll knows more
            return Finished(url=url, data=data, cost_microusd=cost, expires_s=FILE_LIFE_S, job=row.request_id)
        case "FAILED":
            return _failure(decode_or_none(row.error, str) or "", cost or 0)
        case _:
            raise MalformedReply("history: an unknown status")


def _shown_fingerprint(row: _Row) -> str | None:
    """Give the fingerprint of the inputs shown; None when they cannot be compared with ours.

    Fields that we never send make a row incomparable: were they filled in by Segmind, the job could be ours all
    the same, and calling it a stranger would buy the image twice.
    """
    shown = decode_or_none(row.request_body, object)
    if isinstance(shown, str):  # whether the echo is an object or its text is not documented
        shown = decode_or_none(shown.encode(errors="replace"), object)
    if not isinstance(shown, dict) or not shown:
        return None
    model = CAPABILITIES.model(row.model_name)
    if model is None:
        return canonical_digest({"model": row.model_name, "input": shown})
    if not shown.keys() <= _fields(ImageRequest("", model=model.name), model, 0).keys():
        return None
    return _fingerprint(model, shown)


def _fingerprint(model: Model, fields: dict[str, object]) -> str:
    return canonical_digest({"model": model.provider_id, "input": fields})
