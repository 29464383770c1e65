"""Google's Gemini API, the plain call: ``generateContent`` answers with the image (for batches: ``googlebatch``).

Documentation followed:

- call and answer: https://ai.google.dev/api/generate-content
- images, aspects, sizes: https://ai.google.dev/gemini-api/docs/image-generation
- limits: https://ai.google.dev/gemini-api/docs/rate-limits
- prices, per token: https://ai.google.dev/gemini-api/docs/pricing
- SDK: the official Python client, google-genai 3.4.0, which the tests run against our emulator

What matters here:

- The answer is the only copy of the image, and nothing of ours comes back in it: no key, no listing, no lookup.  An
  answer that is lost is lost for good (the batch API is the one that can be found again).
- Errors hide in HTTP 200: a blocked prompt has no candidate, a blocked image has a candidate with a ``finishReason``
  and no picture.  Both end the attempt with what its tokens cost.
- The newer models think in pictures: parts with ``thought`` are drafts, the last part without it is the image.
- A wrong key answers 400 ``INVALID_ARGUMENT`` like any bad request, and tells itself by its ``reason``.
- It says what it used in tokens, not in dollars.  The tokens at the published prices are what an attempt cost.
- The file format is Google's choice, and references travel inside the request: there are no URLs to fetch from.
"""

from urllib.parse import quote

import msgspec

from adapters.base import Context, HttpCall, HttpReply, ImageRequest, MalformedReply, Standing, SubmitOutcome, Unclear
from adapters.capabilities import Capabilities, Known, Model, Rate, References
from adapters.fitting import model_of
from adapters.gemini import (
    BASE_URL,
    FIRST,
    answer_of,
    api_url,
    body_of,
    check_call,
    headers,
    problem_of,
    refusal_of,
    standing_of,
)

_CALL = "https://ai.google.dev/api/generate-content"
_VERTEX = "https://docs.cloud.google.com/vertex-ai/generative-ai/docs/models/gemini/3-1-flash-image"
_LATENCY = "https://lumenfall.ai/models/google/gemini-3-pro-image-preview"
_READ = "2026-11-22"

_MIB = 1 << 20
_REPLY_BYTES = {"0.5K": 12 * _MIB, "1K": 12 * _MIB, "2K": 32 * _MIB, "4K": 96 * _MIB}

_ASPECTS = ("auto", "1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")

CAPABILITIES = Capabilities(
    provider="google",
    title="Google",
    key_env="GEMINI_API_KEY",
    base_url=BASE_URL,
    shape=Known("sync", _CALL, _READ, "confirmed"),
    models=Known(
        (
            Model(FIRST, "gemini-2.5-flash-image", 3, _ASPECTS, ("1K",), formats=(), seed=True),
            Model(
                "nano-banana-2",
                "gemini-3.1-flash-image",
                14,
                (*_ASPECTS, "1:4", "4:1", "1:8", "8:1"),
                ("0.5K", "1K", "2K", "4K"),
                formats=(),
                seed=True,
                grounding=True,
            ),
            Model(
                "nano-banana-pro",
                "gemini-3-pro-image",
                14,
                _ASPECTS,
                ("1K", "2K", "4K"),
                formats=(),
                seed=True,
                grounding=True,
            ),
        ),
        _VERTEX,
        _READ,
        "reported",
    ),
    submit_rate=Known(Rate(60, 60.0), "figures per tier stand in AI Studio alone", _READ, "assumed"),
    poll_rate=Known(Rate(600, 60.0), "no figure is published", _READ, "assumed"),
    polls_share_submit_rate=Known(False, "limits are per model, and other calls name none", _READ, "assumed"),
    concurrency=Known(8, "60 calls a minute of 22 s each carry some 20", _READ, "assumed"),
    max_concurrency=Known(32, "no figure is published", _READ, "assumed"),
    submit_timeout_s=Known(300.0, "ten times the reported 95 % of answers", _READ, "assumed"),
    typical_latency_s=Known(22.0, _LATENCY, _READ, "reported"),
    visible_after_s=Known(0.0, "there is nothing to ask for", _READ, "confirmed"),
    result_life_s=Known(0.0, "the image is in the answer and nowhere else", _READ, "confirmed"),
    result_hosts=Known((), "the image is in the answer", _READ, "confirmed"),
    charged_on=Known("success", "a blocked image costs its input tokens", _READ, "assumed"),
    references=Known(
        References(
            urls=False,
            files="inline",
            max_file_bytes=7_000_000,
            media_types=("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"),
        ),
        _VERTEX,
        _READ,
        "confirmed",
    ),
    no_job_answers=Known(
        (
            "400: the request was not valid, or the key was not",
            "401 or 403: the key may not do this",
            "404: no such model, or a retired one",
            "413: the request is too large",
            "429: too many requests, or the spending cap of the account is reached",
        ),
        _CALL,
        _READ,
        "reported",
    ),
    lanes="model",
    best_for="single images and small batches at Google's own price, without a reseller in between",
)

# --- the codec ----------------------------------------------------------------------------------------------


class GoogleCodec:
    """The dialect of the plain call."""

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def problem(self, request: ImageRequest) -> str | None:
        return problem_of(CAPABILITIES, request)

    def lane(self, request: ImageRequest) -> str:
        """A lane per model: each has limits of its own, and a retired one shuts none but its own."""
        return model_of(CAPABILITIES, request).provider_id

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        model = model_of(CAPABILITIES, request)
        return HttpCall(
            "POST",
            api_url(ctx, f"models/{quote(model.provider_id)}:generateContent"),
            headers(ctx) | {"Content-Type": "application/json"},
            msgspec.json.encode(body_of(request, model)),
            timeout_s=CAPABILITIES.submit_timeout_s.value,
            max_reply_bytes=_REPLY_BYTES[request.resolution],
        )

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        if 200 <= reply.status < 300:
            try:
                return answer_of(reply.body)
            except MalformedReply as exc:
                return Unclear(str(exc), likely_paid=True)
        return refusal_of(reply)

    def build_check(self, ctx: Context) -> HttpCall:
        return check_call(ctx)

    def read_check(self, reply: HttpReply) -> Standing:
        return standing_of(reply)


GOOGLE = GoogleCodec()
