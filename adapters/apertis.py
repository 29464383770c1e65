"""Apertis: OpenAI-style synchronous calls, cheap, and nothing to ask for afterwards.

Documentation followed:

- images: github.com/apertis-ai/docs ``docs-api/vision/images-api.md`` (form A: text alone)
- chat: ``docs-api/vision/image-generation.md`` there (form B: with images in base64)
- errors: ``docs/help/error-codes.md`` and limits: ``docs/billing/rate-limits.md`` there
- CLI: github.com/apertis-ai/apertis-cli ``src/lib/client.ts`` (commit 561ff03): the balance, the door-keeper
- SDK: the documents recommend the official ``openai`` client; 3.54.0, which the tests run against our emulator

What matters here:

- The answer is the image.  No job, no list, no callback, no idempotency key: a lost answer is money that may be spent,
  and so is every 5xx.  A gateway in front gives up after 100 s (524) while the work may go on.
- The documents show no image call for Gemini models with a size, and name no id for two of the three.  Sizes in
  pixels (A) and ``image_config`` (B) are assumed; so is the form of the image in a chat answer, of which two are read.
- Requests without the looks of a browser are turned away at the door (403, "1010"), as the official CLI knows.
"""

import re

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
from adapters.openaistyle import embedded, files_misfit, image_of, problem_of, reply_limit, standing_of, wait_s
from adapters.reading import decode, decode_or_none, microusd, words

_DOCS = "https://github.com/apertis-ai/docs/blob/main/"
_IMAGES = _DOCS + "docs-api/vision/images-api.md"
_CHAT = _DOCS + "docs-api/vision/image-generation.md"
_ERRORS = _DOCS + "docs/help/error-codes.md"
_LIMITS = _DOCS + "docs/billing/rate-limits.md"
_CLI = "https://github.com/apertis-ai/apertis-cli/blob/561ff03/src/lib/client.ts"
_READ = "2026-11-22"

_URL_LIFE_S = 3600.0  # _IMAGES: "valid for 60 minutes"
# Of all references together: Google's 20 MB for a request, with base64 and room.  Apertis itself takes 20 MB for each.
_MAX_FILES = 10_000_000
_BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36 bydawn"

# What Gemini 3 image models draw at 1K; 2K and 4K are two and four times that.
_PIXELS = {
    "1:1": (1024, 1024),
    "2:3": (848, 1264),
    "3:2": (1264, 848),
    "3:4": (896, 1200),
    "4:3": (1200, 896),
    "4:5": (928, 1152),
    "5:4": (1152, 928),
    "9:16": (768, 1376),
    "16:9": (1376, 768),
    "21:9": (1584, 672),
}
_TIMES = {"1K": 1, "2K": 2, "4K": 4}
_ASPECTS = ("auto", *_PIXELS)
_PNG = ("png",)  # the documented default; nothing says that these models can be asked for another

CAPABILITIES = Capabilities(
    provider="apertis",
    title="Apertis",
    key_env="APERTIS_API_KEY",
    base_url="https://api.apertis.ai",
    shape=Known("sync", _IMAGES, _READ, "confirmed"),
    models=Known(
        (
            Model(
                "nano-banana",
                "gemini-2.5-flash-image",
                max_references=10,
                aspects=_ASPECTS,
                resolutions=("1K",),
                formats=_PNG,
                default_format="png",
            ),
            Model(
                "nano-banana-2",
                "gemini-3.1-flash-image-preview",
                max_references=14,
                aspects=_ASPECTS,
                resolutions=tuple(_TIMES),
                formats=_PNG,
                default_format="png",
            ),
            Model(
                "nano-banana-pro",
                "gemini-3-pro-image-preview",
                max_references=14,
                aspects=_ASPECTS,
                resolutions=tuple(_TIMES),
                formats=_PNG,
                default_format="png",
            ),
        ),
        _CHAT,
        _READ,
        "assumed",
    ),
    submit_rate=Known(Rate(1500, 180.0), _LIMITS, _READ, "confirmed"),
    poll_rate=Known(Rate(60, 60.0), "nothing is polled", _READ, "assumed"),
    polls_share_submit_rate=Known(True, _LIMITS, _READ, "confirmed"),
    concurrency=Known(16, "no cap is published", _READ, "assumed"),
    max_concurrency=Known(64, "open connections, each with an image in its answer", _READ, "assumed"),
    submit_timeout_s=Known(300.0, "the answer is the image; the slowest 4K fits", _READ, "assumed"),
    typical_latency_s=Known(40.0, "no figure is published", _READ, "assumed"),
    visible_after_s=Known(0.0, "there are no jobs to see", _READ, "assumed"),
    result_life_s=Known(_URL_LIFE_S, _IMAGES, _READ, "confirmed"),
    result_hosts=Known(("api.apertis.ai", ".apertis.ai"), "no host is named; asked for is the image", _READ, "assumed"),
    charged_on=Known("unknown", "whether failed calls are charged is not documented", _READ, "assumed"),
    no_job_answers=Known(
        (
            "400: the request was not valid, or refused by its content",
            "401: the key was not accepted",
            "402: no quota or balance",
            "403: not allowed, refused by its content, or turned away at the door (1010)",
            "404: no such model",
            "429: too many requests",
        ),
        _ERRORS,
        _READ,
        "assumed",
    ),
    references=Known(References(urls=False, files="inline", max_file_bytes=_MAX_FILES), _CHAT, _READ, "confirmed"),
    balance=Known("usd", _CLI, _READ, "confirmed"),
    best_for="cheap bulk, with the synchronous risk bounded by the open calls",
)

_REFUSALS: dict[int, RefusedReason] = {
    400: "invalid",
    401: "unauthorized",
    402: "no_credit",
    403: "forbidden",
    404: "unavailable",
}
_TURNED_AWAY = "turned away before the API (1010)"
_POLICY = "content_policy_violation"
_DATA_URI = re.compile(r"data:image/[a-z0-9.+-]+;base64,[A-Za-z0-9+/=]+")
_IMAGE_LINK = re.compile(r"!\[[^\]]{0,200}\]\((https?://[^\s)]{1,2000})\)")


class _ImageUrl(msgspec.Struct, frozen=True):
    url: str = ""


class _Part(msgspec.Struct, frozen=True):
    text: str = ""
    image_url: _ImageUrl = _ImageUrl()


class _Message(msgspec.Struct, frozen=True):
    content: str | list[_Part] | None = None
    images: list[_Part] | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    message: _Message
    finish_reason: str | None = None


class _Chat(msgspec.Struct, frozen=True):
    choices: list[_Choice]


class _Usage(msgspec.Struct, frozen=True):
    token_name: str = ""
    remain_quota_usd: float | None = None


class _UsageAnswer(msgspec.Struct, frozen=True):
    data: _Usage


class ApertisCodec:
    """Apertis' dialect."""

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def problem(self, request: ImageRequest) -> str | None:
        return misfit(CAPABILITIES, request) or files_misfit(request, _MAX_FILES, CAPABILITIES.title)

    def lane(self, request: ImageRequest) -> str:
        return "default"

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        model = model_of(CAPABILITIES, request)
        path, body = _chat(request, model) if request.references else _image(request, model)
        if ctx.reference:
            body["user"] = ctx.reference
        return HttpCall(
            "POST",
            address(ctx, CAPABILITIES.base_url, path),
            _headers(ctx) | {"Content-Type": "application/json"},
            msgspec.json.encode(body),
            timeout_s=CAPABILITIES.submit_timeout_s.value,
            max_reply_bytes=reply_limit(request.resolution),
        )

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        if 200 <= reply.status < 300:
            return _answer(reply.body)
        problem = problem_of(reply.body)
        if reply.status == 429:
            return Throttled(wait_s(reply, "retry-after"))
        reason = _REFUSALS.get(reply.status)
        if reason is None:
            return Unclear(words(f"status {reply.status} {problem.text}"))
        if _at_the_door(reply):
            return Refused("forbidden", _TURNED_AWAY)
        # Which status carries this code is not documented.  As "forbidden" one prompt would stop the whole account.
        if problem.code == _POLICY or (reason == "invalid" and problem.names_policy):
            reason = "policy"
        return Refused(reason, problem.text)

    def build_check(self, ctx: Context) -> HttpCall:
        return HttpCall("GET", address(ctx, CAPABILITIES.base_url, "/v1/token/usage"), _headers(ctx))

    def read_check(self, reply: HttpReply) -> Standing:
        if 200 <= reply.status < 300:
            usage = decode(reply.body, _UsageAnswer, "usage").data
            left = None if usage.remain_quota_usd is None else microusd(max(0.0, usage.remain_quota_usd))
            who = words(usage.token_name)
            return Standing("no_credit" if left == 0 else "ok", balance_microusd=left, identity=who)
        return Standing("unreadable", _TURNED_AWAY) if _at_the_door(reply) else standing_of(reply)


APERTIS = ApertisCodec()


# --- building -----------------------------------------------------------------------------------------------


def _image(request: ImageRequest, model: Model) -> tuple[str, dict[str, object]]:
    """Form A: text alone."""
    width, height = (side * _TIMES[request.resolution] for side in _PIXELS[request.aspect])
    return "/v1/images/generations", {
        "model": model.provider_id,
        "prompt": request.prompt,
        "n": 1,
        "size": f"{width}x{height}",
        "response_format": "b64_json",
    }


def _chat(request: ImageRequest, model: Model) -> tuple[str, dict[str, object]]:
    """Form B: the images travel in the request, behind the words."""
    config = {"image_size": request.resolution}
    if request.aspect != "auto":
        config["aspect_ratio"] = request.aspect
    images = [{"type": "image_url", "image_url": {"url": url}} for url in request.references]
    return "/v1/chat/completions", {
        "model": model.provider_id,
        "messages": [{"role": "user", "content": [{"type": "text", "text": request.prompt}, *images]}],
        "max_tokens": 4096,
        "n": 1,
        "stream": False,
        "modalities": ["image", "text"],
        "image_config": config,
    }


def _headers(ctx: Context) -> dict[str, str]:
    # In lower case, as the wire spells it: this one is to stand in the place of bydawn's own, not beside it.
    return bearer(ctx) | {"user-agent": _BROWSER}


# --- reading ------------------------------------------------------------------------------------------------


def _at_the_door(reply: HttpReply) -> bool:
    return reply.status == 403 and not problem_of(reply.body) and b"1010" in reply.body


def _answer(body: bytes) -> SubmitOutcome:
    url, data = image_of(body)
    chat = None if url or data else decode_or_none(body, _Chat)
    if chat is not None and chat.choices:
        url, data = _drawn(chat.choices[0].message)
        if not url and not data:
            return _worded(chat.choices[0])
    if not url and not data:
        return Unclear("answered without a readable image", likely_paid=True)
    return Finished(url=url, data=data, expires_s=_URL_LIFE_S)


def _drawn(message: _Message) -> tuple[str, bytes]:
    """Find the image of a chat answer: beside the words, among the parts, or in the words as Markdown."""
    parts = [*(message.images or ()), *(message.content if isinstance(message.content, list) else ())]
    text = message.content if isinstance(message.content, str) else " ".join(part.text for part in parts)
    for candidate in (*(part.image_url.url for part in parts), *_DATA_URI.findall(text), *_IMAGE_LINK.findall(text)):
        if candidate.startswith(("https://", "http://")):
            return candidate, b""
        if data := embedded(candidate):
            return "", data
    return "", b""


def _worded(choice: _Choice) -> Failed:
    """The model answered in words: that is charged like an image, and a policy's words will not change."""
    said = choice.message.refusal or (choice.message.content if isinstance(choice.message.content, str) else "")
    if choice.finish_reason == "content_filter" or choice.message.refusal:
        return Failed("policy", words(said), retryable=False, charged=True)
    return Failed("provider", words(f"answered in words: {said[:200]}"), charged=True)
