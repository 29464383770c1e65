"""Toapis: asynchronous tasks of many models under one account, found again by a reference of ours.

Documentation followed (and, where marked *reported*, code that calls the live API):

- flash: https://docs.toapis.com/docs/en/api-reference/images/gemini-3.1-flash/generation (fields, references)
- pro: https://docs.toapis.com/docs/en/api-reference/images/gemini-3-pro-image/generation
- first: https://docs.toapis.com/docs/cn/api-reference/images/gemini-2.5-flash/generation
- task: https://docs.toapis.com/docs/cn/api-reference/tasks/image-status (states, lookup, errors, 24 hours)
- files: https://docs.toapis.com/docs/en/api-reference/uploads/images
- rates: https://docs.toapis.com/docs/cn/api-reference/rate-limits/async-tasks
- hooks: https://docs.toapis.com/docs/cn/api-reference/webhooks/task-webhooks (headers; signed bytes *reported*)
- money: https://docs.toapis.com/docs/en/api-reference/account/user-balance

The models and limits are in ``adapters.toapis_record``.

What matters here:

- ``client_business_id`` is ours, and ``GET /v1/images/generations/{id}`` takes it in the place of the task's id.  So a
  lost answer is cleared up by asking.  Whether a second task under the same reference would be refused is not
  stated: every attempt has its own.
- A 404 counts as "no such task" only in Toapis' own words; a proxy's 404 page would make us buy twice.
- ``size`` is the aspect, and the resolution hides in ``metadata``: the other way round than for the GPT models of the
  same endpoint.  There is no seed, no format and no version to ask for.
- The address of a result has been in three places; all are read, in the order of a client in production.
- ``error.code`` is a number in the samples and a word in the table: the HTTP status decides first.
- The status of many tasks can be asked for at once (documented), but under which path is not known: the one here is
  assumed, and what does not answer is polled task by task.
"""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import msgspec

from adapters.base import (
    Accepted,
    Context,
    Failed,
    FileBytes,
    Finished,
    HttpCall,
    HttpReply,
    ImageRequest,
    LookupOutcome,
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
from adapters.calling import address
from adapters.capabilities import Capabilities
from adapters.fitting import misfit, model_of
from adapters.multipart import form
from adapters.reading import (
    credit_standing,
    credits_of,
    decode,
    decode_or_none,
    is_job_id,
    is_web_address,
    throttled,
    upload_refused,
    words,
)
from adapters.signing import is_recent, is_signed
from adapters.toapis_record import CAPABILITIES, RESULT_LIFE_S, UPLOAD_LIFE_S
from adapters.wording import is_policy

_GENERATIONS = "/v1/images/generations"
_SWEEP = 100  # "up to 100 task ids" in one status query
_MAX_LIFE_S = 30 * 86_400.0  # an ``expires_at`` beyond this is a broken clock
_HOOK_TOLERANCE_S = 300.0
CREDIT_MICROUSD = 5_000  # 1 USD = 200 credits, whatever currency the console shows

_REFUSALS: dict[int, RefusedReason] = {
    400: "invalid",
    401: "unauthorized",
    402: "no_credit",
    403: "forbidden",
    422: "policy",
}
_MAC = re.compile(r"\bv1=([0-9a-f]{64})\b")
_BAD_KEY = re.compile(r"not found|invalid|expired|disabled|不存在|无效|过期|禁用", re.IGNORECASE)
# A failed task wraps what the model's own provider said; these words blame the request.
_BAD_INPUT = re.compile(
    r"\bstatus (?:400|413|415|422)\b|invalid (?:request|param|argument|image|prompt)|image_url|reference image",
    re.IGNORECASE,
)


# --- what they send -----------------------------------------------------------------------------------------


class _Error(msgspec.Struct, frozen=True):
    code: str | int | None = None
    message: str | None = None
    type: str | None = None

    @property
    def text(self) -> str:
        return words(self.message or str(self.code or ""))

    @property
    def unknown_task(self) -> bool:
        """Toapis' own words, of the samples or of the table.  A path that is not there has code 404 too."""
        return self.type == "not_found_error" or "task_not_found" in (self.code, self.type)


class _Problem(msgspec.Struct, frozen=True):
    """An answer that is no task; uploads and balances have a bare ``message``."""

    error: _Error | None = None
    message: str | None = None

    @property
    def text(self) -> str:
        return self.error.text if self.error is not None else words(self.message or "")


class _Created(msgspec.Struct, frozen=True):
    id: object = None
    task_id: object = None  # instead of ``id`` in one sample

    @property
    def job(self) -> str:
        for value in (self.id, self.task_id):
            if isinstance(value, str) and is_job_id(value):
                return value
        return ""


class _Task(_Created, frozen=True, kw_only=True):
    status: str
    completed_at: object = None
    expires_at: object = None
    url: msgspec.Raw = msgspec.Raw(b"null")
    result: msgspec.Raw = msgspec.Raw(b"null")
    data: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")
    fail_reason: object = None


class _Image(msgspec.Struct, frozen=True):
    url: str


class _Images(msgspec.Struct, frozen=True):
    data: tuple[_Image, ...]


class _Swept(msgspec.Struct, frozen=True):
    data: tuple[msgspec.Raw, ...]


class _Balance(msgspec.Struct, frozen=True):
    success: bool
    message: str | None = None
    remain_credits: object = None
    unlimited_quota: bool = False


class _File(msgspec.Struct, frozen=True):
    url: str


class _Stored(msgspec.Struct, frozen=True):
    success: bool
    data: _File


class _EventData(msgspec.Struct, frozen=True):
    task_id: str


class _Event(msgspec.Struct, frozen=True):
    data: _EventData


# --- the codec ----------------------------------------------------------------------------------------------


class Toapis:
    """Toapis' dialect."""

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def problem(self, request: ImageRequest) -> str | None:
        return misfit(CAPABILITIES, request)

    def lane(self, request: ImageRequest) -> str:
        """One lane: the documented limits are of the user, whatever the model."""
        return "default"

    # --- buying

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        body = _wire_request(request)
        if ctx.reference:
            body["client_business_id"] = ctx.reference
        if ctx.callback_url:
            body["callback_url"] = ctx.callback_url
        return _post(ctx, _GENERATIONS, body, timeout_s=CAPABILITIES.submit_timeout_s.value)

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        created = decode_or_none(reply.body, _Created)
        job = created.job if created is not None else ""
        if 200 <= reply.status < 300:
            return Accepted(job) if job else Unclear("a success without a readable task id", likely_paid=True)
        if job:
            return Unclear(f"HTTP {reply.status} beside a task id", likely_paid=True)
        if reply.status == 429:
            return throttled(reply)
        problem = decode_or_none(reply.body, _Problem) or _Problem()
        reason = _refusal(reply.status, problem)
        if reason is None:
            return Unclear(words(f"HTTP {reply.status} {problem.text}"))
        return Refused(reason, problem.text or f"HTTP {reply.status}")

    # --- asking

    def build_poll(self, job: str, ctx: Context) -> HttpCall:
        return _get(ctx, f"{_GENERATIONS}/{quote(job, safe='')}")

    def read_poll(self, reply: HttpReply) -> PollOutcome:
        if 200 <= reply.status < 300:
            return _outcome(decode(reply.body, _Task, "task"))
        return _no_answer(reply)

    @property
    def sweep_size(self) -> int:
        return _SWEEP

    def build_sweep(self, jobs: Sequence[str], ctx: Context, *, since_us: int, until_us: int) -> HttpCall:
        if not 0 < len(jobs) <= _SWEEP:
            raise ValueError(f"a sweep of {len(jobs)} jobs")
        return _post(ctx, _GENERATIONS + "/batch", {"task_ids": list(jobs)}, timeout_s=30.0)

    def read_sweep(self, reply: HttpReply) -> Mapping[str, PollOutcome]:
        """Read many tasks.  One that cannot be read is left out, and asked for by itself."""
        if not 200 <= reply.status < 300:
            raise MalformedReply(f"tasks: HTTP {reply.status}")
        outcomes: dict[str, PollOutcome] = {}
        for item in decode(reply.body, _Swept, "tasks").data:
            try:
                task = decode(item, _Task, "tasks: one of them")
                if task.job:
                    outcomes[task.job] = _outcome(task)
            except MalformedReply:
                continue
        return outcomes

    def build_check(self, ctx: Context) -> HttpCall:
        return _get(ctx, "/v1/user/balance")

    def read_check(self, reply: HttpReply) -> Standing:
        problem = decode_or_none(reply.body, _Problem) or _Problem()
        if reply.status in (401, 403):
            return Standing("rejected", problem.text or f"HTTP {reply.status}")
        if reply.status == 402:
            return Standing("no_credit", problem.text)
        if not 200 <= reply.status < 300:
            return Standing("unreadable", words(f"HTTP {reply.status} {problem.text}"))
        return _standing(decode(reply.body, _Balance, "balance"))

    # --- finding again

    def build_lookup(self, reference: str, ctx: Context) -> HttpCall:
        if not reference:
            raise ValueError("a lookup needs a reference")
        return self.build_poll(reference, ctx)

    def read_lookup(self, reply: HttpReply) -> LookupOutcome:
        if 200 <= reply.status < 300:
            job = decode(reply.body, _Created, "task").job
            if not job:
                raise MalformedReply("task: no readable id")
            return Accepted(job)
        return _no_answer(reply)

    # --- files

    def upload(self, file: FileBytes, ctx: Context) -> UploadSteps:
        content_type, body = form(file, {"purpose": "generation"})
        headers = _headers(ctx) | {"content-type": content_type}
        reply = yield HttpCall(
            "POST", address(ctx, CAPABILITIES.base_url, "/v1/uploads/images"), headers, body, timeout_s=120.0
        )
        if not 200 <= reply.status < 300:
            raise upload_refused("Toapis", reply.status, (decode_or_none(reply.body, _Problem) or _Problem()).text)
        stored = decode_or_none(reply.body, _Stored)
        if stored is None or not stored.success:
            refusal = decode(reply.body, _Problem, "upload")
            if not refusal.text:
                raise MalformedReply("upload: neither an address nor a reason")
            raise upload_refused("Toapis", reply.status, refusal.text)
        if not is_web_address(stored.data.url, plain=True):
            raise MalformedReply("upload: no address")
        return Uploaded(stored.data.url, UPLOAD_LIFE_S)

    # --- callbacks

    def verify_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: Sequence[Secret], now_s: float
    ) -> bool:
        """Signed are event id, time and body.  For 24 hours after a rotation the header holds two signatures."""
        event = headers.get("x-toapis-webhook-id", "")
        stamp = headers.get("x-toapis-webhook-timestamp", "")
        if not event or not is_recent(stamp, now_s, tolerance_s=_HOOK_TOLERANCE_S):
            return False
        given = [bytes.fromhex(mac) for mac in _MAC.findall(headers.get("x-toapis-webhook-signature", ""))]
        keys = (secret.reveal().encode() for secret in secrets)
        return is_signed(f"{event}.{stamp}.".encode(errors="replace") + body, given, keys)

    def read_callback(self, body: bytes) -> str:
        job = decode(body, _Event, "callback").data.task_id
        if not is_job_id(job):
            raise MalformedReply("callback: no usable task id")
        return job


TOAPIS = Toapis()


# --- building -----------------------------------------------------------------------------------------------


def _wire_request(request: ImageRequest) -> dict[str, object]:
    model = model_of(CAPABILITIES, request)
    metadata: dict[str, object] = {"resolution": request.resolution}
    if model.grounding:
        metadata["google_search"] = request.grounding
    body: dict[str, object] = {
        "model": model.provider_id,
        "prompt": request.prompt,
        "size": request.aspect,
        "n": 1,
        "response_format": "url",
        "metadata": metadata,
    }
    if request.references:
        body["image_urls"] = [{"url": url} for url in request.references]
    return body


def _headers(ctx: Context) -> dict[str, str]:
    return {"authorization": f"Bearer {ctx.key.reveal()}", "accept": "application/json"}


def _get(ctx: Context, path: str) -> HttpCall:
    return HttpCall("GET", address(ctx, CAPABILITIES.base_url, path), _headers(ctx))


def _post(ctx: Context, path: str, body: Mapping[str, object], *, timeout_s: float) -> HttpCall:
    headers = _headers(ctx) | {"content-type": "application/json"}
    return HttpCall(
        "POST", address(ctx, CAPABILITIES.base_url, path), headers, msgspec.json.encode(body), timeout_s=timeout_s
    )


# --- reading ------------------------------------------------------------------------------------------------


def _refusal(status: int, problem: _Problem) -> RefusedReason | None:
    """Say what a refusal means; None = no proof that nothing was made."""
    reason = _REFUSALS.get(status)
    if reason == "forbidden" and problem.error is None:
        return None  # somebody on the way said no, and perhaps not to the create alone
    if reason == "invalid" and "callback_url" in problem.text:
        return "forbidden"  # of another origin than the key's default callback: every request of ours would have it
    if reason == "invalid" and is_policy(problem.text):
        return "policy"
    return reason


def _outcome(task: _Task) -> PollOutcome:
    match task.status:
        case "pending" | "queued" | "submitted" | "in_progress":
            return Pending()
        case "completed":
            return Finished(url=_result_url(task), expires_s=_life_s(task), job=task.job)
        case "failed":
            return _failed(task)
        case _:
            raise MalformedReply("task: an unknown status")


def _result_url(task: _Task) -> str:
    result = decode_or_none(task.result, _Images)
    images = (result.data if result is not None else ()) or decode_or_none(task.data, tuple[_Image, ...]) or ()
    for url in (decode_or_none(task.url, str), *(image.url for image in images)):
        if url and is_web_address(url, plain=True):
            return url
    raise MalformedReply("task: completed without a result URL")


def _life_s(task: _Task) -> float:
    """Take what the task says of itself, where it makes sense."""
    done, gone = task.completed_at, task.expires_at
    if isinstance(done, int) and isinstance(gone, int) and 0 < gone - done <= _MAX_LIFE_S:
        return float(gone - done)
    return RESULT_LIFE_S


def _failed(task: _Task) -> Failed:
    """A task fails only after Toapis' own tries, and its price is given back (*assumed*)."""
    error = decode_or_none(task.error, _Error)
    told = decode_or_none(task.error, str) or task.fail_reason
    text = error.text if error is not None and error.text else words(told) if isinstance(told, str) else ""
    if is_policy(text) or (error is not None and error.code == "content_policy_violation"):
        return Failed("policy", text, retryable=False)
    return Failed("provider", text, retryable=_BAD_INPUT.search(text) is None)


def _no_answer(reply: HttpReply) -> NotVisible | Throttled | Unreadable:
    problem = decode_or_none(reply.body, _Problem) or _Problem()
    if reply.status == 404 and problem.error is not None and problem.error.unknown_task:
        return NotVisible()
    if reply.status == 429:
        return throttled(reply)
    return Unreadable(words(f"HTTP {reply.status} {problem.text}"), unauthorized=reply.status in (401, 403))


def _standing(balance: _Balance) -> Standing:
    """Credits are told in one unit; ``remain_balance`` is in whatever currency the console shows."""
    if not balance.success:
        text = words(balance.message or "")
        return Standing("rejected" if _BAD_KEY.search(text) else "unreadable", text)
    if balance.unlimited_quota:
        return Standing("ok", "unlimited")
    left = credits_of(balance.remain_credits)
    if left is None:
        raise MalformedReply("balance: no credits")
    return credit_standing(left, credit_microusd=CREDIT_MICROUSD)
