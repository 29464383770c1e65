"""BytePlus ModelArk: ByteDance's own Seedream, ten calls at a time, the image behind a URL.

Documentation followed:

- SDK: the official ``byteplus-python-sdk-v2`` 3.0.63, module ``byteplussdkarkruntime``, which the tests run against
  our emulator
- models: https://docs.byteplus.com/en/docs/modelark/1330310
- errors: https://docs.byteplus.com/docs/ModelArk/1299023
- limits: https://docs.byteplus.com/en/docs/ModelArk/handle_burst_traffic
- sizes: https://docs.siraya.ai/docs/api-reference/generative-model-api/Seedream/ (a reseller's)
- samples: https://docs.apiyi.com/en/api-capabilities/seedream-image/text-to-image (a reseller's)

What matters here:

- No document of BytePlus names a Google model.  It is another family of models, so it joins a batch only when the
  user names it, and never stands in for Nano Banana.
- The call is synchronous and has no idempotency key: a lost answer is money that may be spent.  The answer names a
  URL that lives a day, which is recorded before a byte is fetched.
- A 429 has two meanings: too fast, and a spending limit that no waiting cures.
- The server draws a watermark and may draw several images, unless told not to.
- A call without an image says how many images it made; none is proof that none is charged.
"""

import msgspec

from adapters.base import (
    Context,
    Failed,
    Finished,
    HttpCall,
    HttpReply,
    ImageRequest,
    Refused,
    RefusedReason,
    Standing,
    SubmitOutcome,
    Throttled,
    Unclear,
)
from adapters.calling import address, bearer
from adapters.capabilities import Capabilities, Known, Model, Rate, References
from adapters.fitting import misfit, model_of
from adapters.openaistyle import Problem, files_misfit, image_of, problem_of, standing_of, wait_s
from adapters.reading import decode, decode_or_none, words

_SDK = "the official Python client, byteplus-python-sdk-v2 3.0.63"
_MODELS = "https://docs.byteplus.com/en/docs/modelark/1330310"
_ERRORS = "https://docs.byteplus.com/docs/ModelArk/1299023"
_LIMITS = "https://docs.byteplus.com/en/docs/ModelArk/handle_burst_traffic"
_SIZES = "https://docs.siraya.ai/docs/api-reference/generative-model-api/Seedream/"
_SAMPLES = "https://docs.apiyi.com/en/api-capabilities/seedream-image/text-to-image"
_OVERVIEW = "https://docs.apiyi.com/en/api-capabilities/seedream-image/overview.md"
_READ = "2026-11-22"

_URL_LIFE_S = 86_400.0
_MAX_FILES = 10_000_000  # of all references together; 10 MB is what one may have

_PIXELS = {
    "1K": {
        "1:1": "1024x1024",
        "2:3": "832x1248",
        "3:2": "1248x832",
        "3:4": "864x1152",
        "4:3": "1152x864",
        "9:16": "736x1312",
        "16:9": "1312x736",
        "21:9": "1568x672",
    },
    "2K": {
        "1:1": "2048x2048",
        "2:3": "1664x2496",
        "3:2": "2496x1664",
        "3:4": "1728x2304",
        "4:3": "2304x1728",
        "9:16": "1600x2848",
        "16:9": "2848x1600",
        "21:9": "3136x1344",
    },
    "4K": {
        "1:1": "4096x4096",
        "2:3": "3328x4992",
        "3:2": "4992x3328",
        "3:4": "3520x4704",
        "4:3": "4704x3520",
        "9:16": "3040x5504",
        "16:9": "5504x3040",
        "21:9": "6240x2656",
    },
}
_ASPECTS = tuple(_PIXELS["1K"])

CAPABILITIES = Capabilities(
    provider="byteplus",
    title="BytePlus",
    key_env="ARK_API_KEY",
    base_url="https://ark.ap-southeast.bytepluses.com",
    shape=Known("sync", _SDK, _READ, "confirmed"),
    models=Known(
        (
            Model(
                "seedream-4",
                "seedream-4-0-250828",
                max_references=14,
                aspects=_ASPECTS,
                resolutions=("1K", "2K", "4K"),
                formats=("jpg",),
            ),
            Model(
                "seedream-4.5",
                "seedream-4-5-251128",
                max_references=14,
                aspects=_ASPECTS,
                resolutions=("2K", "4K"),
                formats=("jpg",),
            ),
            Model(
                "seedream-5",
                "seedream-5-0-260128",
                max_references=14,
                aspects=_ASPECTS,
                resolutions=("2K",),
            ),
            Model(
                "seedream-5-pro",
                "dola-seedream-5-0-pro-260628",
                max_references=10,
                aspects=_ASPECTS,
                resolutions=("2K",),
            ),
        ),
        _SIZES,
        _READ,
        "reported",
    ),
    submit_rate=Known(Rate(300, 60.0), "images per minute are limited, no figure is published", _READ, "assumed"),
    poll_rate=Known(Rate(60, 60.0), "nothing is polled", _READ, "assumed"),
    polls_share_submit_rate=Known(False, "nothing is polled", _READ, "assumed"),
    concurrency=Known(10, "the comparison that bydawn started from", _READ, "reported"),
    max_concurrency=Known(10, _LIMITS, _READ, "assumed"),
    submit_timeout_s=Known(300.0, "the answer comes with the image; the slowest 4K fits", _READ, "assumed"),
    typical_latency_s=Known(20.0, "no figure is published", _READ, "assumed"),
    visible_after_s=Known(0.0, "there are no jobs to see", _READ, "assumed"),
    result_life_s=Known(_URL_LIFE_S, _SAMPLES, _READ, "reported"),
    result_hosts=Known((".bytepluses.com", ".tos-ap-southeast-1.volces.com"), _SAMPLES, _READ, "reported"),
    charged_on=Known("success", "https://docs.byteplus.com/api/docs/ModelArk/1544106", _READ, "reported"),
    no_job_answers=Known(
        (
            "400: the request was not valid, or refused by its content or by that of the image",
            "401: the key was not accepted",
            "403: not allowed, or the account is overdue",
            "404: no such model, or it is not activated",
            "429: too fast, too many at once, or a limit of spending or quota",
        ),
        _ERRORS,
        _READ,
        "assumed",
    ),
    references=Known(References(files="inline", max_file_bytes=_MAX_FILES), _OVERVIEW, _READ, "reported"),
    best_for="enterprise parallel tasks with Seedream: ten calls at a time, token plans",
)

_REFUSALS: dict[int, RefusedReason] = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "unavailable",
}
_CODES: dict[str, RefusedReason] = {
    "AccountOverdueError": "no_credit",
    "SetLimitExceeded": "no_credit",
    "QuotaExceeded": "no_credit",
    "ModelNotOpen": "forbidden",
    "InvalidEndpointOrModel.ModelIDAccessDisabled": "forbidden",
    "InvalidEndpoint.ClosedEndpoint": "unavailable",
}


class _Usage(msgspec.Struct, frozen=True):
    generated_images: int


class _Answer(msgspec.Struct, frozen=True):
    usage: msgspec.Raw = msgspec.Raw(b"null")
    data: list[msgspec.Raw] | None = None


class _Tasks(msgspec.Struct, frozen=True):
    total: int


class BytePlusCodec:
    """ModelArk's dialect."""

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def problem(self, request: ImageRequest) -> str | None:
        if CAPABILITIES.model(request.model) is None:
            names = ", ".join(model.name for model in CAPABILITIES.models.value)
            return f"BytePlus serves Seedream and has no {request.model}: give --model {names}"
        if request.model_version:
            return "BytePlus has no version pins: each version is a model of its own"
        return misfit(CAPABILITIES, request) or files_misfit(request, _MAX_FILES, CAPABILITIES.title)

    def lane(self, request: ImageRequest) -> str:
        return "default"

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        model = model_of(CAPABILITIES, request)
        body: dict[str, object] = {
            "model": model.provider_id,
            "prompt": request.prompt,
            "size": _PIXELS[request.resolution][request.aspect],
            "response_format": "url",
            "watermark": False,
            "sequential_image_generation": "disabled",
            "stream": False,
        }
        if request.references:
            body["image"] = list(request.references)
        if "png" in model.formats:  # the older ones draw JPEG and know no such field
            body["output_format"] = "png" if request.output_format == "png" else "jpeg"
        headers = bearer(ctx) | {"Content-Type": "application/json"}
        if ctx.reference:
            headers["X-Client-Request-Id"] = ctx.reference
        return HttpCall(
            "POST",
            address(ctx, CAPABILITIES.base_url, "/api/v3/images/generations"),
            headers,
            msgspec.json.encode(body),
            timeout_s=CAPABILITIES.submit_timeout_s.value,
        )

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        if 200 <= reply.status < 300:
            return _answer(reply.body)
        problem = problem_of(reply.body)
        reason = _CODES.get(problem.code) or _REFUSALS.get(reply.status)
        if reply.status == 429:
            return (
                Refused("no_credit", problem.text) if reason == "no_credit" else Throttled(wait_s(reply, "retry-after"))
            )
        if reason is None or reply.status not in _REFUSALS:
            return Unclear(words(f"status {reply.status} {problem.text}"))
        return Refused("policy" if reason == "invalid" and problem.names_policy else reason, problem.text)

    def build_check(self, ctx: Context) -> HttpCall:
        """Ask for one of the account's video tasks: the one free question that a key may ask."""
        return HttpCall(
            "GET",
            address(ctx, CAPABILITIES.base_url, "/api/v3/contents/generations/tasks?page_num=1&page_size=1"),
            bearer(ctx),
        )

    def read_check(self, reply: HttpReply) -> Standing:
        if 200 <= reply.status < 300:
            decode(reply.body, _Tasks, "tasks")
            return Standing("ok")
        problem = problem_of(reply.body)
        if _CODES.get(problem.code) == "no_credit":
            return Standing("no_credit", problem.text)
        return standing_of(reply)


BYTEPLUS = BytePlusCodec()


def _answer(body: bytes) -> SubmitOutcome:
    url, data = image_of(body)
    if url or data:
        return Finished(url=url, data=data, expires_s=_URL_LIFE_S)
    problem, made = _why_none(body)
    if not problem or made != 0:
        return Unclear(words(f"answered without a readable image {problem.text}"), likely_paid=True)
    if problem.names_policy:
        return Failed("policy", problem.text, retryable=False)
    return Failed("provider", problem.text)


def _why_none(body: bytes) -> tuple[Problem, int | None]:
    """Why there is no image (said of the one image, or of the call), and how many the call made by its own count."""
    answer = decode_or_none(body, _Answer) or _Answer()
    usage = decode_or_none(answer.usage, _Usage)
    problem = problem_of(answer.data[0]) if answer.data else Problem()
    return problem or problem_of(body), usage.generated_images if usage is not None else None
