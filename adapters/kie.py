"""Kie: asynchronous tasks behind envelope codes, no listing, callbacks whose signature covers the id only.

Documentation followed (and, where marked *reported*, clients that call the live API):

- start: https://docs.kie.ai (keys, 20 creations per 10 s per account, 429 is not queued)
- create: https://docs.kie.ai/market/google/nano-banana-2, .../pro-image-to-image, .../nano-banana,
  .../nano-banana-edit, .../nano-banana-2-lite
- files: https://docs.kie.ai/file-upload-api/upload-file-stream (free; kept 24 hours, or 3 days on the same page)
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
- A callback's signature covers the task's id and the time, not the body: whoever has seen one pair can sign any body
  for that task.  Nothing of a callback is believed but that it is worth asking for that task now.
- Files go to another host than all else.  A base URL of the user's replaces both hosts.
- The newer models differ in their defaults (``jpg``/``png``, ``auto``/``1:1``): every field is always sent.  The lite
  model calls its references otherwise, and has neither size nor format.
- Requests without a browser-like User-Agent are turned away by the network in front of Kie (*reported*).
"""

from collections.abc import Mapping, Sequence

import msgspec

from adapters.base import (
    Context,
    FileBytes,
    HttpCall,
    HttpReply,
    ImageRequest,
    MalformedReply,
    PollOutcome,
    RefusedReason,
    Secret,
    Standing,
    SubmitOutcome,
    Uploaded,
    UploadSteps,
)
from adapters.capabilities import Capabilities, Known, Model, Rate, References
from adapters.fitting import misfit, model_of
from adapters.jobapi import (
    build_call,
    build_creation,
    build_task_query,
    called_back,
    names_no_model,
    opened,
    read_creation,
    read_credits,
    read_task,
)
from adapters.multipart import form
from adapters.reading import (
    credits_of,
    decode_or_none,
    from_base64,
    is_web_address,
    upload_refused,
)
from adapters.signing import is_recent, is_signed

_START = "https://docs.kie.ai"
_CREATE = "https://docs.kie.ai/market/google/nano-banana-2"
_TASK = "https://docs.kie.ai/market/common/get-task-detail"
_FILES = "https://docs.kie.ai/file-upload-api/upload-file-stream"
_CREDIT = "https://docs.kie.ai/common-api"
_HOOK = "https://docs.kie.ai/common-api/webhook-verification"
_CLIENT = "https://github.com/alfman99/kie-ai-mcp"
_READ = "2026-11-22"

_FAILED_CODES = (408, 501)  # nothing came from the model's provider for ten minutes; the generation failed
_EDIT_MODEL = "google/nano-banana-edit"  # the 2.5 model has one name for text and one for references
_UPLOAD_BASE = "https://kieai.redpandaai.co"
_RESULT_LIFE_S = 86_400.0
_UPLOAD_LIFE_S = 86_400.0
_HOOK_TOLERANCE_S = 300.0  # none is stated; the time is there against replay
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
            Model(
                "nano-banana-2-lite",
                "nano-banana-2-lite",
                max_references=10,
                aspects=(*_ASPECTS, "1:4", "1:8", "4:1", "8:1"),
                resolutions=("1K",),
                max_prompt_chars=20_000,
                formats=("jpg",),
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
    references=Known(
        References(files="upload", max_file_bytes=30_000_000, upload_life_s=_UPLOAD_LIFE_S), _FILES, _READ, "confirmed"
    ),
    no_job_answers=Known(
        (
            "code 401: key missing or wrong",
            "code 402: not enough credits",
            "code 422: the request did not pass validation, or there is no such model",
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
    balance=Known("credits", _CREDIT, _READ, "confirmed"),
    jobs_page=Known("https://kie.ai/logs", _TASK, _READ, "reported"),
    best_for="lean bulk, credits",
)

_REFUSALS: dict[int, RefusedReason] = {
    401: "unauthorized",
    402: "no_credit",
    422: "invalid",
    433: "no_credit",
    455: "unavailable",
    505: "forbidden",  # the feature, or the model, is not enabled: asking again would be told the same
}


class _File(msgspec.Struct, frozen=True):
    downloadUrl: object = None  # noqa: N815  # the field's name on the wire
    fileUrl: object = None  # noqa: N815  # beside it on one page, instead of it in one client


class _Stored(msgspec.Struct, frozen=True):
    success: bool = True
    data: _File | None = None

    @property
    def url(self) -> str:
        for url in (self.data.downloadUrl, self.data.fileUrl) if self.data is not None else ():
            if isinstance(url, str) and is_web_address(url, plain=True):
                return url
        return ""


class Kie:
    """The codec; it has no state."""

    capabilities = CAPABILITIES

    def problem(self, request: ImageRequest) -> str | None:
        return misfit(CAPABILITIES, request)

    def lane(self, request: ImageRequest) -> str:
        """One lane: the documented limits are per account, whatever the model."""
        return "default"

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        if (problem := self.problem(request)) is not None:
            raise ValueError(problem)
        return build_creation(_wire_model(request), _wire_input(request), ctx, base_url=CAPABILITIES.base_url)

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        return read_creation(reply, _refusal, title="Kie")

    def build_poll(self, job: str, ctx: Context) -> HttpCall:
        return build_task_query(job, ctx, base_url=CAPABILITIES.base_url)

    def read_poll(self, reply: HttpReply) -> PollOutcome:
        return read_task(reply, life_s=_RESULT_LIFE_S, failed_codes=_FAILED_CODES, credit_microusd=CREDIT_MICROUSD)

    def build_check(self, ctx: Context) -> HttpCall:
        return build_call("GET", "/api/v1/chat/credit", ctx, base_url=CAPABILITIES.base_url)

    def read_check(self, reply: HttpReply) -> Standing:
        code, envelope = opened(reply)
        if code == 402:
            return Standing("no_credit", "no credits left")
        balance = credits_of(decode_or_none(envelope.data, object)) if envelope is not None and code == 200 else None
        return read_credits(reply, balance, credit_microusd=CREDIT_MICROUSD)

    def upload(self, file: FileBytes, ctx: Context) -> UploadSteps:
        """Store a file.  Its name is its digest: a name that is there already is written over, by the same bytes."""
        content_type, body = form(file, {"uploadPath": "bydawn", "fileName": file.name})
        call = build_call("POST", "/api/file-stream-upload", ctx, base_url=_UPLOAD_BASE, body=body)
        reply = yield msgspec.structs.replace(
            call, headers=call.headers | {"content-type": content_type}, timeout_s=180.0
        )
        code, envelope = opened(reply)
        stored = decode_or_none(reply.body, _Stored)
        if not 200 <= reply.status < 300 or code != 200 or (stored is not None and not stored.success):
            # HTTP 200 with a bad code, or a gateway's failure behind a good one; 455 is Kie's own word for 503.
            worse = 503 if code == 455 else max(code, reply.status)
            raise upload_refused("Kie", worse, envelope.text if envelope is not None else "")
        if stored is None or not stored.url:
            raise MalformedReply("upload: no address")
        return Uploaded(stored.url, _UPLOAD_LIFE_S)

    def verify_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: Sequence[Secret], now_s: float
    ) -> bool:
        stamp = headers.get("x-webhook-timestamp", "")
        if not is_recent(stamp, now_s, tolerance_s=_HOOK_TOLERANCE_S):
            return False
        try:
            signed = f"{called_back(body)}.{stamp}".encode()
        except MalformedReply:
            return False
        given = from_base64(headers.get("x-webhook-signature", ""))
        return is_signed(signed, [given], (secret.reveal().encode() for secret in secrets))

    def read_callback(self, body: bytes) -> str:
        return called_back(body)


KIE = Kie()


def _refusal(code: int, text: str) -> RefusedReason | None:
    if code == 422 and names_no_model(text):
        return "forbidden"
    return _REFUSALS.get(code)


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
    if model.name == "nano-banana-2-lite":
        return fields | {"image_urls": request.references, "aspect_ratio": request.aspect}
    fields["image_input"] = request.references
    fields["aspect_ratio"] = request.aspect
    fields["resolution"] = request.resolution
    fields["output_format"] = image_format
    if request.grounding:
        fields["google_search"] = True  # gone from the newest schema, so only on demand
    return fields
