"""The job API that Kie and ApiPass speak: tasks that are created and asked for, inside an envelope with a code.

Both take ``POST /jobs/createTask`` and ``GET /jobs/recordInfo``, and answer ``{"code": ..., "msg"|"message": ...,
"data": ...}``.  What one reader must know of that answer is here once; models, fields, limits and the list of
refusals are each provider's own and stay in its file.  NewportAI has the same envelope around other calls, with 0 for
success: it takes the envelope, the reading of a creation and the words from here.

- HTTP 200 carries failures: the envelope's ``code`` decides.
- recordInfo lags behind the creation: 404 and 422 mean "not shown (yet)".
- ``resultJson`` is JSON in a string, or an object.  A failure is spelled in several ways.
- Requests without a browser-like User-Agent are turned away by the network in front of Kie (*reported*), and so is
  whoever reads ApiPass' site without a browser.
"""

import re
from collections.abc import Callable, Collection
from typing import Literal, TypeAlias
from urllib.parse import quote

import msgspec

from adapters.base import (
    Accepted,
    Context,
    Failed,
    Finished,
    HttpCall,
    HttpReply,
    MalformedReply,
    NotVisible,
    Pending,
    PollOutcome,
    Refused,
    RefusedReason,
    Standing,
    SubmitOutcome,
    Unclear,
    Unreadable,
)
from adapters.calling import address
from adapters.reading import credit_standing, credits_of, decode, decode_or_none, is_job_id, throttled, words
from adapters.wording import is_policy

Refusals: TypeAlias = Callable[[int, str], RefusedReason | None]  # of code and text; None = proves nothing

_USER_AGENT = "Mozilla/5.0 (compatible; bydawn/0.1)"
_FAILED_STATES = ("fail", "failed", "error", "timeout", "cancelled", "canceled")  # Kie: fail; the rest of ApiPass
_RUNNING_STATES = ("waiting", "queuing", "generating", "pending", "queued", "processing", "running")
_EDGE_BLOCK = b"error code: 1010"
_NO_MODEL = re.compile(r"\bmodel name\b.{0,40}\bnot supported", re.IGNORECASE)


class Envelope(msgspec.Struct):
    """What surrounds every answer; Kie says ``msg`` on some pages and ``message`` on others, ApiPass ``message``."""

    code: int | None = None
    msg: str | None = None
    message: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def text(self) -> str:
        return words(self.msg or self.message or "")


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


class _Results(msgspec.Struct):
    resultUrls: tuple[str, ...] = ()  # noqa: N815


class _Called(msgspec.Struct):
    """A callback, or what it holds: both shapes and both spellings are handled by receivers in production."""

    taskId: object = None  # noqa: N815
    task_id: object = None
    data: msgspec.Raw = msgspec.Raw(b"null")


def build_creation(model: str, fields: dict[str, object], ctx: Context, *, base_url: str) -> HttpCall:
    """Build a createTask: parameters inside ``input``, the callback beside it."""
    body: dict[str, object] = {"model": model}
    if ctx.callback_url:
        body["callBackUrl"] = ctx.callback_url
    body["input"] = fields
    return build_call("POST", "/api/v1/jobs/createTask", ctx, base_url=base_url, body=msgspec.json.encode(body))


def build_task_query(job: str, ctx: Context, *, base_url: str) -> HttpCall:
    """Build a recordInfo call."""
    return build_call("GET", f"/api/v1/jobs/recordInfo?taskId={quote(job, safe='')}", ctx, base_url=base_url)


def build_call(
    method: Literal["GET", "POST"], path: str, ctx: Context, *, base_url: str, body: bytes = b""
) -> HttpCall:
    """Build any call of the API; ``base_url`` is the provider's own."""
    headers = {
        "authorization": f"Bearer {ctx.key.reveal()}",
        "user-agent": _USER_AGENT,
        "accept": "application/json",
    }
    if body:
        headers["content-type"] = "application/json"
    return HttpCall(method, address(ctx, base_url, path), headers, body, timeout_s=60.0 if body else 30.0)


def opened(reply: HttpReply) -> tuple[int, Envelope | None]:
    """Open the envelope, and give the code that decides: the envelope's, or the status of an answer without one."""
    envelope = decode_or_none(reply.body, Envelope)
    return (reply.status if envelope is None or envelope.code is None else envelope.code), envelope


def read_creation(reply: HttpReply, refusal: Refusals, *, title: str, success_code: int = 200) -> SubmitOutcome:
    """Read the answer to a creation.

    It is believed to be a refusal only when its code is known as one, and an HTTP 5xx only when the code says the
    same number: a gateway may have failed behind a task that exists.
    """
    code, envelope = opened(reply)
    success = 200 <= reply.status < 300
    job = _job_of(envelope)
    if code == success_code or (success and code == reply.status):
        if job and success:
            return Accepted(job)
        return Unclear("a success without a readable task id", likely_paid=success or bool(job))
    if job:
        return Unclear(f"code {code} beside a task id", likely_paid=True)
    if reply.status >= 500 and (envelope is None or envelope.code != reply.status):
        return Unclear(f"HTTP {reply.status}")
    if code == 429:
        return throttled(reply)
    detail = envelope.text if envelope is not None else ""
    if (reason := refusal(code, detail)) is not None:
        return Refused(reason, detail or f"code {code}")
    if reply.status == 403 and _EDGE_BLOCK in reply.body:
        return Refused("forbidden", f"turned away by the network in front of {title} (error code 1010)")
    return Unclear(f"HTTP {reply.status}, code {code}")


def read_task(
    reply: HttpReply, *, life_s: float, failed_codes: Collection[int], credit_microusd: int = 0
) -> PollOutcome:
    """Read a recordInfo answer.  An ended task is believed whatever the code beside it; else the code decides.

    Args:
        life_s: How long a result is kept.
        failed_codes: The codes that say that the task failed.  They are documented of answers under HTTP 200; the same
            number as a status is a gateway's, which gave up waiting for the answer and knows nothing of the task.
        credit_microusd: What a consumed credit costs; 0 = the provider's credits tell nothing about dollars.
    """
    envelope = decode_or_none(reply.body, Envelope)
    if envelope is None or envelope.code is None:
        return _read_bare(reply)
    record = decode_or_none(envelope.data, _Record)
    state = record.state if record is not None else None
    if record is not None and state == "success":
        return _finished(record, life_s, credit_microusd)
    if record is not None and state in _FAILED_STATES:
        return _failed(record, envelope, credit_microusd)
    match envelope.code:
        case 200:
            if not state:
                raise MalformedReply("task: a success without a state")
            return Pending("" if state in _RUNNING_STATES else words(state) or "?")
        case 404 | 422:
            return NotVisible()
        case code if code in failed_codes and 200 <= reply.status < 300:
            return _failed(record or _Record(), envelope, credit_microusd)
        case 429:
            return throttled(reply)
        case code:
            return Unreadable(f"code {code}: {envelope.text}", unauthorized=code == 401)


def read_credits(reply: HttpReply, credits_left: float | None, *, credit_microusd: int) -> Standing:
    """Read the answer to the question for the credits, of which the provider's own codec has found how many."""
    code, envelope = opened(reply)
    if code == 401:
        return Standing("rejected", (envelope.text if envelope is not None else "") or "the key was refused")
    if credits_left is None:
        return Standing("unreadable", f"HTTP {reply.status}, code {code}")
    return credit_standing(credits_left, credit_microusd=credit_microusd)


def called_back(body: bytes) -> str:
    """Give the id of the task that a callback speaks of: in its ``data``, or bare.  Two ids are none: a signature would
    cover one of them only."""
    outer = decode(body, _Called, "callback")
    parts = [part for part in (decode_or_none(outer.data, _Called), outer) if part is not None]
    named = {job for part in parts for job in (part.taskId, part.task_id) if isinstance(job, str) and is_job_id(job)}
    if len(named) != 1:
        raise MalformedReply("callback: no task id, or several")
    return named.pop()


def names_no_model(text: str) -> bool:
    """Whether a refusal says that there is no such model: every other request for it would be told the same."""
    return _NO_MODEL.search(text) is not None


def _job_of(envelope: Envelope | None) -> str:
    created = decode_or_none(envelope.data, _Created) if envelope is not None else None
    job = created.taskId if created is not None else None
    return job if isinstance(job, str) and is_job_id(job) else ""


def _read_bare(reply: HttpReply) -> PollOutcome:
    """Read an answer without an envelope: it comes from a gateway and tells nothing about the task."""
    if reply.status == 429:
        return throttled(reply)
    if 200 <= reply.status < 300:
        raise MalformedReply(f"task: HTTP {reply.status} without the documented envelope")
    return Unreadable(f"HTTP {reply.status}", unauthorized=reply.status == 401)


def _finished(record: _Record, life_s: float, credit_microusd: int) -> Finished:
    text = decode_or_none(record.resultJson, str)
    results = decode(record.resultJson if text is None else text.encode(), _Results, "task: resultJson")
    urls = [url for url in results.resultUrls if url.startswith(("https://", "http://"))]
    if not urls:
        raise MalformedReply("task: a success without a result URL")
    return Finished(
        url=urls[0],  # these models make one image per task
        cost_microusd=_cost(record, credit_microusd),
        expires_s=life_s,
        job=record.taskId or "",
    )


def _failed(record: _Record, envelope: Envelope, credit_microusd: int) -> Failed:
    """A policy failure is final, and so are a cancel and one of validation; another may go better next time."""
    detail = words(record.failMsg) if isinstance(record.failMsg, str) else ""
    detail = detail or envelope.text or f"code {envelope.code}"
    cost = _cost(record, credit_microusd) or 0
    if record.state in ("cancelled", "canceled"):  # by whoever has the key: buying again is for the user to say
        return Failed("cancelled", detail, retryable=False, cost_microusd=cost)
    if is_policy(detail):
        return Failed("policy", detail, retryable=False, cost_microusd=cost)
    retryable = str(record.failCode) not in ("400", "422")
    return Failed("provider", detail, retryable=retryable, cost_microusd=cost)


def _cost(record: _Record, credit_microusd: int) -> int | None:
    consumed = credits_of(record.creditsConsumed)
    if not credit_microusd or consumed is None or consumed < 0:
        return None
    return round(consumed * credit_microusd)
