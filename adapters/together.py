"""Together: one synchronous call per image, under a rate that moves with use.

Documentation followed:

- OA: github.com/togethercomputer/openapi ``openapi.yaml`` 2.0.0 (commit 090263a)
- SK: the vendor's own notes, github.com/togethercomputer/skills ``skills/together-images/references``
- models and prices: https://docs.together.ai/docs/serverless/models
- references: https://docs.together.ai/docs/inference/images/reference-images
- rates: https://docs.together.ai/docs/rate-limits
- money: https://support.together.ai/articles/5001912153-why-am-i-getting-429-on-serverless-and-how-long-does-it-last
- SDK: the official ``together`` 3.1.1, which the tests run against our emulator

What matters here:

- The answer is the image.  There is no job to ask for, no listing, no idempotency key: an answer that got lost is
  money that may be spent, and nothing can tell.  So all 5xx are doubt, but one.
- 429 says that *we* are too fast, 503 in Together's own words that *they* are full while we are not: the one status
  that is documented to turn calls away.
- Size is an exact pair of pixels; Together knows neither aspect nor tier.
- The official client asks again after a timeout of 60 s, and would pay again.
"""

import re

import msgspec

from adapters.base import (
    Context,
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
from adapters.openaistyle import Problem, image_of, problem_of, reply_limit, standing_of, wait_s
from adapters.reading import decode, decode_or_none, is_job_id, words

_OA = "https://github.com/togethercomputer/openapi/blob/090263a/openapi.yaml"
_SK = "https://github.com/togethercomputer/skills/tree/main/skills/together-images/references"
_RATES = "https://docs.together.ai/docs/rate-limits"
_REFERENCES = "https://docs.together.ai/docs/inference/images/reference-images"
_READ = "2026-11-22"

_URL_LIFE_S = 3600.0

# Documented for Gemini 3 Pro Image (SK); at 1K they are the standard sizes of most models there.
_PIXELS = {
    "1:1": (1024, 1024),
    "2:3": (832, 1248),
    "3:2": (1248, 832),
    "3:4": (864, 1184),
    "4:3": (1184, 864),
    "4:5": (896, 1152),
    "5:4": (1152, 896),
    "9:16": (768, 1344),
    "16:9": (1344, 768),
    "21:9": (1536, 672),
}
_TIMES = {"1K": 1, "2K": 2, "4K": 4}
_ASPECTS = tuple(_PIXELS)
_JPEG = ("jpg",)  # output_format is not honoured for these models

CAPABILITIES = Capabilities(
    provider="together",
    title="Together",
    key_env="TOGETHER_API_KEY",
    base_url="https://api.together.ai",
    shape=Known("sync", _OA, _READ, "confirmed"),
    models=Known(
        (
            Model(
                "nano-banana",
                "google/flash-image-2.5",
                max_references=10,
                aspects=_ASPECTS,
                resolutions=("1K",),
                formats=_JPEG,
            ),
            Model(
                "nano-banana-2",
                "google/flash-image-3.1",
                max_references=14,
                aspects=_ASPECTS,
                resolutions=tuple(_TIMES),
                formats=_JPEG,
            ),
            Model(
                "nano-banana-2-lite",
                "google/flash-image-3.1-lite",
                max_references=0,
                aspects=_ASPECTS,
                resolutions=("1K",),
                formats=_JPEG,
            ),
            Model(
                "nano-banana-pro",
                "google/gemini-3-pro-image",
                max_references=14,
                aspects=_ASPECTS,
                resolutions=tuple(_TIMES),
                formats=_JPEG,
            ),
        ),
        _SK,
        _READ,
        "assumed",
    ),
    submit_rate=Known(Rate(60, 60.0), "dynamic and not published; a start that grows", _READ, "assumed"),
    dynamic_rate=Known(True, _RATES, _READ, "confirmed"),
    poll_rate=Known(Rate(60, 60.0), "nothing is polled", _READ, "assumed"),
    polls_share_submit_rate=Known(False, "nothing is polled", _READ, "assumed"),
    concurrency=Known(8, "bursts far above recent use are throttled: start slowly", _READ, "assumed"),
    max_concurrency=Known(50, "open connections; about 75 images a minute", _READ, "assumed"),
    submit_timeout_s=Known(300.0, "the answer is the image; the slowest 4K fits", _READ, "assumed"),
    typical_latency_s=Known(40.0, "no figure is published", _READ, "assumed"),
    visible_after_s=Known(0.0, "there are no jobs to see", _READ, "assumed"),
    result_life_s=Known(_URL_LIFE_S, "of the URL form; the image itself comes with the answer", _READ, "assumed"),
    result_hosts=Known(("api.together.ai", "api.together.xyz"), _SK, _READ, "assumed"),
    charged_on=Known("unknown", "whether failed calls are charged is not documented", _READ, "assumed"),
    no_job_answers=Known(
        (
            "400 or 422: the request was not valid, or refused by its content",
            "401: the key was not accepted",
            "402: no credit, or a spending limit",
            "403: not allowed, or third-party data sharing is off",
            "404: no such model",
            "429: over our rate",
            "503 in Together's own error envelope: no capacity while we are within our rate",
        ),
        _RATES,
        _READ,
        "assumed",
    ),
    references=Known(References(), _REFERENCES, _READ, "confirmed"),
    lanes="model",
    best_for="single images and batches alike: the answer is the image, under a rate that grows with steady use",
)

_REFUSALS: dict[int, RefusedReason] = {
    400: "invalid",
    401: "unauthorized",
    402: "no_credit",
    403: "forbidden",
    404: "unavailable",
    422: "invalid",
}
_NO_MODEL = re.compile(r"model_not_(available|found)|invalid value for 'model'|unable to access model", re.IGNORECASE)


class _Answer(msgspec.Struct, frozen=True):
    id: str = ""


class _Listed(msgspec.Struct, frozen=True):
    id: str


class TogetherCodec:
    """Together's dialect."""

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def problem(self, request: ImageRequest) -> str | None:
        return misfit(CAPABILITIES, request)

    def lane(self, request: ImageRequest) -> str:
        """The rate is counted per model."""
        return model_of(CAPABILITIES, request).name

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        model = model_of(CAPABILITIES, request)
        width, height = _pixels(request)
        body: dict[str, object] = {
            "model": model.provider_id,
            "prompt": request.prompt,
            "width": width,
            "height": height,
            "n": 1,
            "response_format": "base64",
        }
        if request.references:
            body["reference_images"] = list(request.references)
        return HttpCall(
            "POST",
            address(ctx, CAPABILITIES.base_url, "/v1/images/generations"),
            bearer(ctx) | {"Content-Type": "application/json"},
            msgspec.json.encode(body),
            timeout_s=CAPABILITIES.submit_timeout_s.value,
            max_reply_bytes=reply_limit(request.resolution),
        )

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        if 200 <= reply.status < 300:
            url, data = image_of(reply.body)
            if not url and not data:
                return Unclear("answered without a readable image", likely_paid=True)
            said = (decode_or_none(reply.body, _Answer) or _Answer()).id
            return Finished(url=url, data=data, expires_s=_URL_LIFE_S, job=said if is_job_id(said) else "")
        problem = problem_of(reply.body)
        if reply.status == 429:
            return Throttled(wait_s(reply, "retry-after", "x-ratelimit-reset"))
        if reply.status == 503 and problem:
            return Refused("unavailable", problem.text)
        reason = _REFUSALS.get(reply.status)
        if reason is None:
            return Unclear(words(f"status {reply.status} {problem.text}"))
        return Refused(_sorted_out(reason, problem), problem.text)

    def build_check(self, ctx: Context) -> HttpCall:
        """Ask which models there are; nothing tells the balance."""
        return HttpCall("GET", address(ctx, CAPABILITIES.base_url, "/v1/models"), bearer(ctx))

    def read_check(self, reply: HttpReply) -> Standing:
        if 200 <= reply.status < 300:
            listed = {model.id for model in decode(reply.body, list[_Listed], "models")}
            known = CAPABILITIES.models.value
            return Standing("ok", models=tuple(model.name for model in known if model.provider_id in listed))
        return standing_of(reply)


TOGETHER = TogetherCodec()


def _pixels(request: ImageRequest) -> tuple[int, int]:
    width, height = _PIXELS[request.aspect]
    times = _TIMES[request.resolution]
    return width * times, height * times


def _sorted_out(reason: RefusedReason, problem: Problem) -> RefusedReason:
    """What a 400 is about only its words tell: the model, the content, or the fields."""
    if reason != "invalid":
        return reason
    if problem.param == "model" or _NO_MODEL.search(f"{problem.code} {problem.message}"):
        return "unavailable"
    return "policy" if problem.names_policy else reason
