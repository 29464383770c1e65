"""Together as an emulator: the image call and the list of models.

Quirks kept: sizes are pixels, the format that was asked for is not honoured, every answer tells when the rate
resets, 429 is our rate and 503 theirs, and nothing can be asked about a call afterwards.

Not here: other models than Google's, chat, video, and the batches, which take no images.
"""

import re
from typing import Literal

import msgspec

from adapters.sandbox.accepting import Asked, admit, charge_on_success, held_s, job_of, state_of
from adapters.sandbox.base import Call, Job, JobState, Reply
from adapters.sandbox.openaistyle import Turned, choice, error, is_reachable, is_url, read_body, with_image
from adapters.sandbox.wirefmt import (
    EmulatorSettings,
    account_digest,
    bearer,
    file_url,
    is_locked,
    json_reply,
    key_standing,
)

_KEY_SHAPE = re.compile(r"(tgp_v1_)?[A-Za-z0-9_-]{40,64}")
_PER_MINUTE = 60
_CREATED = 1_790_000_000

# 1K; the larger tiers are two and four times these.
_SIZES = {
    (1024, 1024): "1:1",
    (832, 1248): "2:3",
    (1248, 832): "3:2",
    (864, 1184): "3:4",
    (1184, 864): "4:3",
    (896, 1152): "4:5",
    (1152, 896): "5:4",
    (768, 1344): "9:16",
    (1344, 768): "16:9",
    (1536, 672): "21:9",
}
_TIERS = {"1K": 1, "2K": 2, "4K": 4}

# Micro-dollars by tier, as https://docs.together.ai/docs/serverless/models lists them; for Nano Banana 2 it only
# estimates, so its figures are those of the comparison that bydawn started from.
_PRICES = {
    "google/flash-image-2.5": {"1K": 39_000},
    "google/flash-image-3.1": {"1K": 100_000, "2K": 150_000, "4K": 200_000},
    "google/flash-image-3.1-lite": {"1K": 69_000},
    "google/gemini-3-pro-image": {"1K": 134_000, "2K": 134_000, "4K": 240_000},
}
_MAX_REFERENCES = {"google/flash-image-2.5": 10, "google/flash-image-3.1-lite": 0}
_FIELDS = {
    *("model", "prompt", "width", "height", "n", "response_format", "output_format", "reference_images", "seed"),
    "disable_safety_checker",
}
_FATES = {
    "fail": (500, "The server had an error while processing your request", "server_error"),
    "policy": (422, "The prompt was flagged by the content policy", "invalid_request_error"),
}


class TogetherEmulator:
    """One emulated Together over a job table.

    Args:
        settings: What every emulator is told.
        capacity: How many calls of one account are served at once; those above get 503.
    """

    name = "together"
    result_life_s = 3600.0

    def __init__(self, settings: EmulatorSettings, *, capacity: int = 500) -> None:
        self._settings = settings
        self._capacity = capacity

    def is_submit(self, call: Call) -> bool:
        return (call.method, call.path) == ("POST", "/v1/images/generations")

    def refusal(self, kind: Literal["throttled", "broken"]) -> Reply:
        if kind == "broken":
            return _answer(error(_of_fate("fail")))
        return _too_fast(1.0)

    def handle(self, call: Call, now_us: int) -> Reply:
        key = bearer(call.headers)
        standing = key_standing(key, looks_right=_KEY_SHAPE.fullmatch(key) is not None)
        try:
            if standing == "refused":
                raise Turned(401, "Invalid API key provided", kind="invalid_request_error", code="invalid_api_key")
            if (call.method, call.path) == ("GET", "/v1/models"):
                return _answer(_models(locked=is_locked(key)))
            if not self.is_submit(call):
                raise Turned(404, "Not found", kind="invalid_request_error")
            return self._generate(call, key, now_us, has_credit=standing == "good")
        except Turned as turned:
            return _answer(error(turned))

    def state(self, job: Job, now_us: int) -> JobState:
        return state_of(job, now_us, failures=_FATES)

    def charged(self, job: Job, now_us: int) -> int:
        """What came out is charged, whether or not its answer arrived."""
        return charge_on_success(job, self.state(job, now_us))

    def embed(self, reply: Reply, picture: bytes) -> Reply:
        return with_image(reply, picture)

    def _generate(self, call: Call, key: str, now_us: int, *, has_credit: bool) -> Reply:
        asked, as_url = _validate(read_body(call, _invalid("The request body must be JSON", "")))
        account, settings = account_digest(key), self._settings
        if is_locked(key):
            why = "This model needs third-party data sharing to be enabled for the organization"
            raise Turned(403, why, kind="invalid_request_error", code="third_party_data_sharing_blocked")
        if not has_credit:
            raise Turned(402, "Calling image models requires a positive credit balance", kind="credit_limit")
        bucket = f"together/{account}/{asked.model}"
        wait_s = settings.limits.take(bucket, count=_PER_MINUTE, per_s=60.0, now_us=now_us)
        if wait_s:
            return _too_fast(wait_s)
        if settings.jobs.running(self.name, account, now_us) >= self._capacity:
            raise Turned(503, "The service is at capacity; please retry", kind="service_unavailable")
        admission = admit(settings, self.name, now_us)
        job = job_of(
            settings,
            asked,
            admission,
            account=account,
            job_id=f"o{admission.entropy[:8].hex()}-{admission.entropy[8:16].hex()}",
            wire=call.body.decode(),
            price_microusd=_PRICES[asked.model][asked.resolution],
        )
        settings.jobs.add(job)
        return msgspec.structs.replace(_answer(self._result(job, as_url=as_url)), delay_s=held_s(job, now_us))

    def _result(self, job: Job, *, as_url: bool) -> Reply:
        if job.fate in _FATES:
            return error(_of_fate(job.fate))
        timings = {"inference": (job.done_us - job.started_us) / 1_000_000}
        item: dict[str, object] = {"index": 0, "type": "b64_json", "b64_json": "", "timings": timings}
        if as_url:
            item = {"index": 0, "type": "url", "url": file_url(self._settings, job), "timings": timings}
        reply = json_reply(200, {"id": job.id, "model": job.model, "object": "list", "data": [item]})
        return reply if as_url else msgspec.structs.replace(reply, draws=job.id)


# --- what is asked ------------------------------------------------------------------------------------------


def _validate(body: dict[str, object]) -> tuple[Asked, bool]:
    """Check a request; with it goes whether the image is to be answered as a URL."""
    for field in body:
        if field not in _FIELDS:
            raise _invalid(f"Unrecognized request argument supplied: {field}", field)
    model, prompt = body.get("model"), body.get("prompt")
    if not isinstance(model, str) or model not in _PRICES:
        raise Turned(
            404,
            f"Unable to access model {model}",
            kind="invalid_request_error",
            code="model_not_available",
            param="model",
        )
    if not isinstance(prompt, str) or not prompt:
        raise _invalid("prompt is required", "prompt")
    if body.get("n", 1) != 1:
        raise _invalid("this emulator draws one image per call", "n")
    resolution, aspect = _size(body, model)
    _choice(body, "output_format", "jpeg", "png")
    references = _references(body, _MAX_REFERENCES.get(model, 14))
    as_url = _choice(body, "response_format", "url", "base64") == "url"
    return Asked(model, prompt, references, aspect, resolution, "jpg"), as_url


def _size(body: dict[str, object], model: str) -> tuple[str, str]:
    width, height = body.get("width", 1024), body.get("height", 1024)
    for tier in _PRICES[model]:
        for (wide, high), aspect in _SIZES.items():
            if (width, height) == (wide * _TIERS[tier], high * _TIERS[tier]):
                return tier, aspect
    raise _invalid(f"{width}x{height} is not a supported size", "width")


def _references(body: dict[str, object], most: int) -> tuple[str, ...]:
    given = body.get("reference_images", [])
    if not isinstance(given, list) or len(given) > most:
        raise _invalid(f"reference_images must be a list of at most {most} URLs", "reference_images")
    for url in given:
        if not isinstance(url, str) or not is_url(url):
            raise _invalid("reference_images must be URLs", "reference_images")
        if not is_reachable(url):
            raise _invalid(f"Failed to download the reference image {url}", "reference_images")
    return tuple(given)


def _choice(body: dict[str, object], field: str, *allowed: str) -> str:
    return choice(body, field, allowed, _invalid(f"{field} must be one of {', '.join(allowed)}", field))


# --- what is said -------------------------------------------------------------------------------------------


def _invalid(message: str, param: str) -> Turned:
    return Turned(400, message, kind="invalid_request_error", param=param)


def _of_fate(fate: str) -> Turned:
    status, message, kind = _FATES[fate]
    return Turned(status, message, kind=kind)


def _too_fast(wait_s: float) -> Reply:
    turned = Turned(429, "You have reached the rate limit of this model", kind="dynamic_request_limited")
    return _answer(error(turned), reset_s=wait_s)


def _answer(reply: Reply, *, reset_s: float = 0.0) -> Reply:
    """Every answer tells where the caller stands with the rate."""
    rate = {
        "x-ratelimit-limit": str(_PER_MINUTE),
        "x-ratelimit-remaining": "0" if reset_s else "1",
        "x-ratelimit-reset": f"{reset_s:.3f}",
    }
    return msgspec.structs.replace(reply, headers=reply.headers | rate)


def _models(*, locked: bool) -> Reply:
    """A bare list, unlike OpenAI's."""
    offered = [] if locked else list(_PRICES)
    models = [{"id": model, "object": "model", "created": _CREATED, "type": "image"} for model in offered]
    return json_reply(200, models)
