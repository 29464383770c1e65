"""Acme: asynchronous images that can be asked for by our own reference.

Acme is imaginary, and so is its documentation:

- images: https://docs.acme.example/images
- account: https://docs.acme.example/account

What matters here: an image is found by the reference of ours that it was made with, so an answer that got lost is
cleared up by asking and never by buying again.  An image that fails costs nothing.
"""

from typing import Literal

import msgspec

from adapters.base import (
    Accepted,
    Context,
    Failed,
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
    Standing,
    SubmitOutcome,
    Throttled,
    Unclear,
    Unreadable,
)
from adapters.calling import address
from adapters.capabilities import Capabilities, Known, Lookup, Model, Rate, References
from adapters.fitting import misfit, model_of
from adapters.prices import Price
from adapters.reading import decode, decode_or_none, is_job_id, microusd, seconds, words

_IMAGES = "https://docs.acme.example/images"
_ACCOUNT = "https://docs.acme.example/account"
_READ = "2026-11-22"  # the day on which the pages were read
_LIFE_S = 86_400.0

CAPABILITIES = Capabilities(
    provider="acme",
    title="Acme",
    key_env="ACME_API_KEY",
    base_url="https://api.acme.example",
    shape=Known("async", _IMAGES, _READ, "confirmed"),
    models=Known(
        (
            Model(
                "nano-banana-2",
                "banana-2",
                max_references=4,
                aspects=("1:1", "3:4", "4:3", "9:16", "16:9"),
                resolutions=("1K", "2K"),
                max_prompt_chars=4_000,
            ),
        ),
        _IMAGES,
        _READ,
        "confirmed",
    ),
    submit_rate=Known(Rate(10, 1.0), _IMAGES, _READ, "confirmed"),
    poll_rate=Known(Rate(50, 1.0), _IMAGES, _READ, "confirmed"),
    polls_share_submit_rate=Known(False, _IMAGES, _READ, "confirmed"),
    concurrency=Known(20, "nothing is said: a careful start", _READ, "assumed"),
    max_concurrency=Known(100, "nothing is said", _READ, "assumed"),
    submit_timeout_s=Known(30.0, "nothing is said", _READ, "assumed"),
    typical_latency_s=Known(10.0, _IMAGES, _READ, "confirmed"),
    visible_after_s=Known(10.0, _IMAGES, _READ, "confirmed"),
    result_life_s=Known(_LIFE_S, _IMAGES, _READ, "confirmed"),
    result_hosts=Known((".acme.example",), _IMAGES, _READ, "confirmed"),
    charged_on=Known("success", _IMAGES, _READ, "confirmed"),
    no_job_answers=Known(
        (
            "401 in Acme's own words: the key was not accepted",
            "402 in Acme's own words: no credit",
            "403 in Acme's own words: the model is not enabled for this key",
            "422 in Acme's own words: the request, or what it asks for, is not allowed",
            "429: too fast",
        ),
        _IMAGES,
        _READ,
        "confirmed",
    ),
    references=Known(References(), _IMAGES, _READ, "confirmed"),
    lookup=Known(Lookup(lag_s=10.0), _IMAGES, _READ, "confirmed"),
    balance=Known("usd", _ACCOUNT, _READ, "confirmed"),
    best_for="showing how a provider is added",
)

PRICES = {
    ("acme", "nano-banana-2", resolution, references): Price(cost, _IMAGES, _READ, "confirmed")
    for resolution, cost in (("1K", 30_000), ("2K", 45_000))  # micro-dollars
    for references in (False, True)
}

_REFUSALS: dict[int, RefusedReason] = {401: "unauthorized", 402: "no_credit", 403: "unavailable", 422: "invalid"}


class _Image(msgspec.Struct, frozen=True):
    id: str
    state: Literal["running", "done", "failed"]
    url: str = ""
    usd: float | None = None
    why: str = ""


class _Account(msgspec.Struct, frozen=True):
    name: str
    usd: float


class _Problem(msgspec.Struct, frozen=True):
    error: str = ""
    message: str = ""


class Acme:
    """The codec; it has no state."""

    capabilities = CAPABILITIES

    def problem(self, request: ImageRequest) -> str | None:
        return misfit(CAPABILITIES, request)

    def lane(self, request: ImageRequest) -> str:
        return "default"

    # --- buying

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        model = model_of(CAPABILITIES, request)
        body = {
            "model": model.provider_id,
            "prompt": request.prompt,
            "ratio": request.aspect,
            "size": request.resolution,
            "format": request.output_format or model.default_format,
            "images": request.references,
            "reference": ctx.reference,
        }
        return _call("POST", "/v1/images", ctx, msgspec.json.encode(body))

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        if 200 <= reply.status < 300:
            made = decode_or_none(reply.body, _Image)
            if made is None or not is_job_id(made.id):
                return Unclear("accepted without a readable id", likely_paid=True)
            return Accepted(made.id)
        if reply.status == 429:
            return Throttled(seconds(reply.headers.get("retry-after", "")))
        told = _told(reply)
        reason = _REFUSALS.get(reply.status)
        if reason is None or not told.error:  # a proxy's 403 proves nothing
            return Unclear(words(f"HTTP {reply.status} {told.message}"))
        return Refused("policy" if told.error == "policy" else reason, words(told.message))

    # --- asking for what was bought

    def build_poll(self, job: str, ctx: Context) -> HttpCall:
        return _call("GET", f"/v1/images/{job}", ctx)

    def read_poll(self, reply: HttpReply) -> PollOutcome:
        if not 200 <= reply.status < 300:
            return _no_answer(reply)
        image = decode(reply.body, _Image, "image")
        if image.state == "running":
            return Pending()
        if image.state == "failed":
            return Failed("policy" if image.why == "policy" else "provider", words(image.why), image.why != "policy")
        if not image.url.startswith(("https://", "http://")):
            raise MalformedReply("image: done, and no address")
        return Finished(url=image.url, cost_microusd=microusd(image.usd), expires_s=_LIFE_S)

    def build_lookup(self, reference: str, ctx: Context) -> HttpCall:
        return _call("GET", f"/v1/references/{reference}", ctx)

    def read_lookup(self, reply: HttpReply) -> LookupOutcome:
        if not 200 <= reply.status < 300:
            return _no_answer(reply)
        image = decode(reply.body, _Image, "image")
        if not is_job_id(image.id):
            raise MalformedReply("image: no readable id")
        return Accepted(image.id)

    # --- the account

    def build_check(self, ctx: Context) -> HttpCall:
        return _call("GET", "/v1/account", ctx)

    def read_check(self, reply: HttpReply) -> Standing:
        if 200 <= reply.status < 300:
            account = decode(reply.body, _Account, "account")
            left = microusd(max(0.0, account.usd))
            return Standing("no_credit" if left == 0 else "ok", balance_microusd=left, identity=words(account.name))
        told = _told(reply)
        if reply.status == 401:
            return Standing("rejected", words(told.message))
        return Standing("unreadable", words(f"HTTP {reply.status} {told.message}"))


ACME = Acme()


def _call(method: Literal["GET", "POST"], path: str, ctx: Context, body: bytes = b"") -> HttpCall:
    headers = {"authorization": f"Bearer {ctx.key.reveal()}", "content-type": "application/json"}
    url = address(ctx, CAPABILITIES.base_url, path)
    return HttpCall(method, url, headers, body, timeout_s=CAPABILITIES.submit_timeout_s.value)


def _told(reply: HttpReply) -> _Problem:
    return decode_or_none(reply.body, _Problem) or _Problem()


def _no_answer(reply: HttpReply) -> NotVisible | Throttled | Unreadable:
    """What is no image: only Acme's own word says that there is none."""
    told = _told(reply)
    if reply.status == 404 and told.error == "not_found":
        return NotVisible()
    if reply.status == 429:
        return Throttled(seconds(reply.headers.get("retry-after", "")))
    return Unreadable(words(f"HTTP {reply.status} {told.message}"), unauthorized=reply.status == 401)
