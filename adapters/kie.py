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

from adapters.base import (
    Context,
    HttpCall,
    HttpReply,
    ImageRequest,
    JobPage,
    PollOutcome,
    RefusedReason,
    Standing,
    SubmitOutcome,
)
from adapters.capabilities import Capabilities, Known, Model, Rate, References
from adapters.fitting import misfit, model_of
from adapters.jobapi import build_call, build_creation, build_task_query, credits_of, opened, read_creation, read_task
from adapters.reading import decode_or_none

_START = "https://docs.kie.ai"
_CREATE = "https://docs.kie.ai/market/google/nano-banana-2"
_TASK = "https://docs.kie.ai/market/common/get-task-detail"
_HOOK = "https://docs.kie.ai/common-api/webhook-verification"
_CLIENT = "https://github.com/alfman99/kie-ai-mcp"
_READ = "2026-11-22"

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
        return build_creation(_wire_model(request), _wire_input(request), ctx, base_url=CAPABILITIES.base_url)

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        return read_creation(reply, lambda code, _: _REFUSALS.get(code), title="Kie")

    def build_poll(self, job: str, ctx: Context) -> HttpCall:
        return build_task_query(job, ctx, base_url=CAPABILITIES.base_url)

    def read_poll(self, reply: HttpReply) -> PollOutcome:
        return read_task(reply, life_s=_RESULT_LIFE_S, credit_microusd=CREDIT_MICROUSD)

    def build_check(self, ctx: Context) -> HttpCall:
        return build_call("GET", "/api/v1/chat/credit", ctx, base_url=CAPABILITIES.base_url)

    def read_check(self, reply: HttpReply) -> Standing:
        code, envelope = opened(reply)
        if code == 401:
            return Standing("rejected", (envelope.text if envelope is not None else "") or "the key was refused")
        if code == 402:
            return Standing("no_credit", "no credits left")
        balance = credits_of(decode_or_none(envelope.data, object)) if envelope is not None and code == 200 else None
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
