"""NewportAI (DreamAPI, by DreamFace): asynchronous tasks paid in credits, polled by POST, found again by nobody.

Documentation followed (and, where marked *reported*, code that calls the live API):

- polling: https://api.newportai.com/docs/polling.html (states, result, ``reason``)
- sdk: the official Python client, dream-api 0.0.3 (envelope, upload in three steps; it has no image tools)
- studio: DreamFace's Local Studio, github.com/dreamfaceapp/dreamapi-local-studio (models, ``imageSize``, credits,
  upload, keys ``sk-...``, two tasks at a time; its table of paths is not public)
- skill: the reference pages of the DreamAPI skill package ``dreamapi/DreamAPI`` (error codes, storage)
- clients: four independent public clients (``busy``, state 0, uploads live a day)

What matters here:

- HTTP 200 carries failures: any ``code`` but 0 is one.
- **The paths of the two models and the names of their fields are assumed** (``_TOOLS``): the documentation of these
  tools was not found.  A wrong path costs nothing: there is no such tool, and the buying ends there.
- There is no listing, no lookup, no cancel, no callback and no reference of ours.  A lost answer to a creation can be
  cleared up by nobody; only the balance would show that something ran.
- What a task took is told in credits.  They are counted at the dearest pack's rate, so that a reservation suffices
  for whoever bought any pack.
- A local file goes to a storage of another company: the form that is sent there carries no key, and only known hosts
  are believed.
"""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from adapters.base import (
    Context,
    Failed,
    FileBytes,
    Finished,
    HttpCall,
    HttpReply,
    ImageRequest,
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
    Uploaded,
    UploadRefused,
    UploadSteps,
)
from adapters.calling import address, is_elsewhere
from adapters.capabilities import Capabilities, Known, Model, Rate, References
from adapters.fitting import misfit, model_of
from adapters.jobapi import build_call, opened, read_creation, read_credits
from adapters.multipart import form
from adapters.reading import (
    T,
    credits_of,
    decode,
    decode_or_none,
    is_job_id,
    is_web_address,
    storage_refused,
    throttled,
    words,
)
from adapters.wording import is_policy, lacks_credit

_POLLING = "https://api.newportai.com/docs/polling.html"
_STUDIO = "DreamFace's Local Studio, github.com/dreamfaceapp/dreamapi-local-studio"
_SKILL = "the DreamAPI skill package, dreamapi/DreamAPI"
_CLIENTS = "public clients of DreamAPI"
_NOWHERE = "documented nowhere"
_READ = "2026-11-22"

# Assumed, all of it: model by bydawn's name -> the tool's name at the end of /api/async/.
_TOOLS = {"nano-banana-2": "nano_banana_2", "nano-banana-pro": "nano_banana_pro"}

PACKS = {8_000: 60_000_000, 83_000: 500_000_000, 222_000: 1_000_000_000}  # credits -> micro-dollars
CREDIT_MICROUSD = max(price // size for size, price in PACKS.items())  # 7,500

_RESULT_LIFE_S = 86_400.0
_UPLOAD_LIFE_S = 86_400.0
_SIZES = {"0.5K": "512", "1K": "1K", "2K": "2K", "4K": "4K"}
_ASPECTS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
_STORAGE_HOSTS = (".aliyuncs.com", ".newportai.com")

CAPABILITIES = Capabilities(
    provider="newportai",
    title="NewportAI",
    key_env="NEWPORTAI_API_KEY",
    base_url="https://api.newportai.com",
    shape=Known("async", _POLLING, _READ, "confirmed"),
    # That there are these two, and 512 and 1K as their least sizes, is the studio's; paths, aspects and the numbers of
    # references are assumed.
    models=Known(
        (
            Model(
                "nano-banana-2",
                _TOOLS["nano-banana-2"],
                max_references=14,
                aspects=(*_ASPECTS, "1:4", "1:8", "4:1", "8:1"),
                resolutions=("0.5K", "1K", "2K", "4K"),
                max_prompt_chars=4_000,
                formats=("jpg",),
            ),
            Model(
                "nano-banana-pro",
                _TOOLS["nano-banana-pro"],
                max_references=8,
                aspects=_ASPECTS,
                resolutions=("1K", "2K", "4K"),
                max_prompt_chars=4_000,
                formats=("jpg",),
            ),
        ),
        _STUDIO,
        _READ,
        "assumed",
    ),
    submit_rate=Known(Rate(60, 60.0), _NOWHERE, _READ, "assumed"),
    poll_rate=Known(Rate(60, 60.0), _NOWHERE, _READ, "assumed"),
    polls_share_submit_rate=Known(True, _NOWHERE, _READ, "assumed"),
    concurrency=Known(2, _STUDIO, _READ, "reported"),
    max_concurrency=Known(10, _STUDIO, _READ, "assumed"),
    submit_timeout_s=Known(60.0, _STUDIO, _READ, "assumed"),  # its own is 30 s
    typical_latency_s=Known(30.0, _NOWHERE, _READ, "assumed"),
    visible_after_s=Known(60.0, _NOWHERE, _READ, "assumed"),
    result_life_s=Known(_RESULT_LIFE_S, _NOWHERE, _READ, "assumed"),
    result_hosts=Known((".s3.amazonaws.com", ".aliyuncs.com", ".newportai.com"), _POLLING, _READ, "reported"),
    charged_on=Known("success", _NOWHERE, _READ, "assumed"),
    references=Known(
        References(files="upload", max_file_bytes=25 << 20, upload_life_s=_UPLOAD_LIFE_S), _SKILL, _READ, "reported"
    ),
    no_job_answers=Known(
        (
            "code 10192: an illegal parameter",
            "code 401: key missing or wrong",
            "code 403 in NewportAI's own words: no permission",
            "code 404: there is no such tool (the paths are assumed)",
            "code 429, or words about a busy server or a full queue beside a code that is no server error: too fast",
            "words about missing credit, balance or quota beside a code that is no server error: not enough credit",
        ),
        _SKILL,
        _READ,
        "reported",
    ),
    balance=Known("credits", _STUDIO, _READ, "reported"),
    best_for="budgets in credit packs",
)

_NO_TOOL = 404
_REFUSALS: dict[int, RefusedReason] = {401: "unauthorized", 403: "forbidden", _NO_TOOL: "forbidden", 10192: "invalid"}
_BUSY = re.compile(r"\bbusy\b|queue (is )?full|too many (requests|tasks)", re.IGNORECASE)
_UNKNOWN = re.compile(r"not (exist|found)|no such|unknown", re.IGNORECASE)
_OUR_FAULT = re.compile(r"format|parameter|unsupported|invalid|download|fetch|too (large|big|small)", re.IGNORECASE)
_FIELD = re.compile(r"[\x20-\x7e]{1,8192}")


class _Task(msgspec.Struct):
    status: int
    taskId: object = None  # noqa: N815  # the field's name on the wire
    reason: object = None
    creditsConsumed: object = None  # noqa: N815


class _Image(msgspec.Struct):
    imageUrl: str = ""  # noqa: N815


class _Result(msgspec.Struct):
    task: _Task
    images: tuple[_Image, ...] | None = None


class _Balance(msgspec.Struct):
    available_credits: object = None


class _Policy(msgspec.Struct):
    """What permits one upload.  Newer answers give the whole ``key``, older ones the ``dir`` it is in."""

    host: str = ""
    key: str = ""
    dir: str = ""
    accessId: str = ""  # noqa: N815
    OSSAccessKeyId: str = ""
    policy: str = ""
    signature: str = ""
    callback: str = ""
    reqId: str = ""  # noqa: N815


class _Stored(msgspec.Struct):
    reqId: str = ""  # noqa: N815


class _Address(msgspec.Struct):
    url: str = ""


class NewportAi:
    """The codec; it has no state."""

    capabilities = CAPABILITIES

    def problem(self, request: ImageRequest) -> str | None:
        return misfit(CAPABILITIES, request)

    def lane(self, request: ImageRequest) -> str:
        """One lane: no limit is known that would be per model."""
        return "default"

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        if (problem := self.problem(request)) is not None:
            raise ValueError(problem)
        fields: dict[str, object] = {
            "prompt": request.prompt,
            "aspectRatio": request.aspect,
            "imageSize": _SIZES[request.resolution],
        }
        if request.references:
            fields["images"] = request.references
        return _post(f"/api/async/{model_of(CAPABILITIES, request).provider_id}", ctx, fields)

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        outcome = read_creation(reply, _refusal, title="NewportAI", success_code=0)
        code, envelope = opened(reply)
        match outcome:
            case Unclear(likely_paid=False) if _is_busy(reply):
                return Throttled()  # the queue is full at peak: a question of minutes
            case Refused() if code == _NO_TOOL:
                return Refused("forbidden", "NewportAI has no such tool; the paths of its tools are assumed")
            case Refused(reason="forbidden") if envelope is None or envelope.code is None:
                return Unclear("HTTP 403")  # somebody on the way said no, and perhaps not to the creation alone
        return outcome

    def build_poll(self, job: str, ctx: Context) -> HttpCall:
        return _post("/api/getAsyncResult", ctx, {"taskId": job})

    def read_poll(self, reply: HttpReply) -> PollOutcome:
        code, envelope = opened(reply)
        success = 200 <= reply.status < 300
        if envelope is None or envelope.code is None:
            if success:
                raise MalformedReply(f"task: HTTP {reply.status} without the documented envelope")
            return _unanswered(reply, code, "")
        if code != 0 or not success:
            return _unanswered(reply, code, envelope.text)
        result = decode(envelope.data, _Result, "task")
        match result.task.status:
            case 3:
                return _finished(result)
            case 4:
                return _failed(result.task)
            case state if state in (1, 2) or result.task.taskId:
                # 1 submitted, 2 running, and 0 has been seen; what else there may be runs too, as far as is known.
                return Pending("" if state in (0, 1, 2) else str(state))
            case _:
                # Zeroes throughout may stand for a task that the key does not see: it must not count as seen.
                raise MalformedReply("task: neither a state nor a name")

    def build_check(self, ctx: Context) -> HttpCall:
        """Ask for the credits, with an empty form as the studio does."""
        call = build_call("POST", "/api/remaining_credits", ctx, base_url=CAPABILITIES.base_url)
        headers = {**call.headers, "content-type": "application/x-www-form-urlencoded"}
        return msgspec.structs.replace(call, headers=headers)

    def read_check(self, reply: HttpReply) -> Standing:
        envelope = opened(reply)[1]
        told = decode_or_none(envelope.data, _Balance) if envelope is not None and envelope.code == 0 else None
        balance = credits_of(told.available_credits) if told is not None else None
        return read_credits(reply, balance, credit_microusd=CREDIT_MICROUSD)

    def upload(self, file: FileBytes, ctx: Context) -> UploadSteps:
        """Three steps: get a permit, send the file to the storage it names, ask for its address."""
        permit = _granted(
            (yield _post("/api/file/v1/get_policy", ctx, {"scene": "Dream-CN"})), _Policy, "upload permit"
        )
        content_type, body = form(file, _form_fields(permit, file))
        host = _storage(permit.host, ctx)
        told = is_elsewhere(host, ctx, CAPABILITIES.base_url)
        reply = yield HttpCall("POST", host, {"content-type": content_type}, body, timeout_s=300.0, told=told)
        if not 200 <= reply.status < 300:
            raise storage_refused("the storage", reply.status)
        envelope = opened(reply)[1]
        stored = decode_or_none(envelope.data, _Stored) if envelope is not None else None
        done = {"reqId": (stored.reqId if stored is not None else "") or permit.reqId}
        address = _granted((yield _post("/api/file/v1/policy_upload_finish", ctx, done)), _Address, "upload")
        if not is_web_address(address.url, plain=True):
            raise MalformedReply("upload: no address")
        return Uploaded(address.url, _UPLOAD_LIFE_S)


NEWPORTAI = NewportAi()


def _post(path: str, ctx: Context, fields: Mapping[str, object]) -> HttpCall:
    return build_call("POST", path, ctx, base_url=CAPABILITIES.base_url, body=msgspec.json.encode(fields))


def _refusal(code: int, text: str) -> RefusedReason | None:
    if code in _REFUSALS:
        return _REFUSALS[code]
    return "no_credit" if lacks_credit(text) and not 500 <= code < 600 else None


def _is_busy(reply: HttpReply) -> bool:
    """Whether it says so itself: the same words from a gateway, or beside a server error, prove nothing."""
    code, envelope = opened(reply)
    broken = reply.status >= 500 or 500 <= code < 600
    return envelope is not None and not broken and _BUSY.search(envelope.text) is not None


def _unanswered(reply: HttpReply, code: int, text: str) -> PollOutcome:
    if code == 429 or _BUSY.search(text):
        return throttled(reply)
    # Assumed: what it says of a task that it does not know.  An illegal parameter may be another fault of the question.
    if text and (code == 404 or (code == 10192 and _UNKNOWN.search(text))):
        return NotVisible()
    return Unreadable(f"HTTP {reply.status}, code {code}: {text}", unauthorized=code == 401)


def _finished(result: _Result) -> Finished | Failed:
    cost = _cost(result.task)
    if not result.images:
        return Failed("contract", "a success without an image", cost_microusd=cost or 0, charged=cost is None)
    url = result.images[0].imageUrl  # these models make one image per task
    if not url.startswith(("https://", "http://")):
        raise MalformedReply("task: a success without a result URL")
    job = result.task.taskId
    return Finished(
        url=url,
        cost_microusd=cost,
        expires_s=_RESULT_LIFE_S,
        job=job if isinstance(job, str) and is_job_id(job) else "",
    )


def _failed(task: _Task) -> Failed:
    """Read a failure by its words, the only thing that tells one cause from another."""
    detail = words(task.reason) if isinstance(task.reason, str) else ""
    cost = _cost(task) or 0
    if is_policy(detail):
        return Failed("policy", detail, retryable=False, cost_microusd=cost)
    return Failed("provider", detail or "no reason given", retryable=not _OUR_FAULT.search(detail), cost_microusd=cost)


def _cost(task: _Task) -> int | None:
    consumed = credits_of(task.creditsConsumed)
    return None if consumed is None or consumed < 0 else round(consumed * CREDIT_MICROUSD)


# --- uploads ------------------------------------------------------------------------------------------------


def _granted(reply: HttpReply, kind: type[T], what: str) -> T:
    code, envelope = opened(reply)
    success = 200 <= reply.status < 300
    if success and envelope is not None and envelope.code == 0:
        return decode(envelope.data, kind, what)
    if success and (envelope is None or envelope.code is None):
        raise MalformedReply(f"{what}: not the documented envelope")
    text = envelope.text if envelope is not None else ""
    raise UploadRefused(
        words(f"NewportAI took no file: HTTP {reply.status}, code {code} {text}"),
        retryable=code in (408, 429) or 500 <= code < 600 or reply.status >= 500 or _is_busy(reply),
        account=code in (401, 403) or lacks_credit(text),
    )


def _form_fields(permit: _Policy, file: FileBytes) -> dict[str, str]:
    """Name the fields as the storage (Aliyun OSS) wants them; the file goes last."""
    fields = {
        "key": permit.key or (permit.dir and permit.dir + file.name),
        "policy": permit.policy,
        "OSSAccessKeyId": permit.OSSAccessKeyId or permit.accessId,
        "signature": permit.signature,
        "success_action_status": "200",
    }
    if permit.callback:
        fields["callback"] = permit.callback
    for name, value in fields.items():
        if _FIELD.fullmatch(value) is None:  # a line break would start a field of its own
            raise MalformedReply(f"upload permit: no usable {name}")
    return fields


def _storage(host: str, ctx: Context) -> str:
    """Check where a file is to be sent: a user's picture goes to no host that anybody may name."""
    base = address(ctx, CAPABILITIES.base_url, "/")
    try:
        parts = urlsplit(host)
        known = parts.scheme == "https" and (parts.hostname or "").endswith(_STORAGE_HOSTS) and parts.port is None
    except ValueError:
        known = False
    if _FIELD.fullmatch(host) is None or not (host.startswith(base) or (known and "@" not in host)):
        raise MalformedReply("upload permit: the storage is on no known host")
    return host
