"""BytePlus ModelArk as an emulator: the image call, and the list of video tasks, which is always empty.

Quirks kept: fields that are ``null`` count as absent, the policy speaks by an error or by an answer without an image, a
limit of open calls besides that of images per minute.  An image is billed as a token plan counts it.

Not here: streams, several images per call, video, text.
"""

import re
from typing import Literal

import msgspec

from adapters.sandbox.accepting import admit, charge_on_success, held_s, job_of, state_of
from adapters.sandbox.base import Call, Job, JobState, Reply
from adapters.sandbox.byteplus_input import Wanted, validate
from adapters.sandbox.openaistyle import Turned, error, read_body, wire_text, with_image
from adapters.sandbox.wirefmt import (
    EmulatorSettings,
    account_digest,
    bearer,
    file_url,
    is_locked,
    json_reply,
    key_standing,
)

_KEY_SHAPE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|ark-[A-Za-z0-9-]{16,64}")
_PLAN_MICROUSD = 215_000  # 50,000 tokens at 4.30 dollars a million: the token plans of the comparison
_PER_MINUTE = 300
_IMAGES = "/api/v3/images/generations"
_TASKS = "/api/v3/contents/generations/tasks"
_FAILED = Turned(
    500, "The service encountered an internal error", kind="InternalServerError", code="InternalServiceError"
)
_FILTERED = Turned(
    400,
    "The output image may contain sensitive information",
    kind="BadRequest",
    code="OutputImageSensitiveContentDetected",
)


class BytePlusEmulator:
    """One emulated ModelArk over a job table.

    Args:
        settings: What every emulator is told.
        in_flight: How many calls of one account may be open.
    """

    name = "byteplus"
    result_life_s = 86_400.0

    def __init__(self, settings: EmulatorSettings, *, in_flight: int = 10) -> None:
        self._settings = settings
        self._in_flight = in_flight

    def is_submit(self, call: Call) -> bool:
        return (call.method, call.path) == ("POST", _IMAGES)

    def refusal(self, kind: Literal["throttled", "broken"]) -> Reply:
        return error(_too_fast("ModelAccountIpmRateLimitExceeded") if kind == "throttled" else _FAILED)

    def handle(self, call: Call, now_us: int) -> Reply:
        key = bearer(call.headers)
        standing = key_standing(key, looks_right=_KEY_SHAPE.fullmatch(key) is not None)
        try:
            if standing == "refused":
                raise Turned(401, "The API key is missing or invalid", kind="Unauthorized", code="AuthenticationError")
            if standing == "no_credit":
                raise Turned(403, "The account has an overdue balance", kind="Forbidden", code="AccountOverdueError")
            if (call.method, call.path) == ("GET", _TASKS):
                return json_reply(200, {"total": 0, "items": []})
            if not self.is_submit(call):
                raise Turned(404, "The requested path does not exist", kind="NotFound", code="NotFound")
            return self._generate(call, key, now_us)
        except Turned as turned:
            return error(turned)

    def state(self, job: Job, now_us: int) -> JobState:
        return state_of(job, now_us, failures=("fail", "policy"))

    def charged(self, job: Job, now_us: int) -> int:
        """What came out is charged, whether or not its answer arrived."""
        return charge_on_success(job, self.state(job, now_us))

    def embed(self, reply: Reply, picture: bytes) -> Reply:
        return with_image(reply, picture)

    def _generate(self, call: Call, key: str, now_us: int) -> Reply:
        unreadable = Turned(400, "The body must be JSON", kind="BadRequest", code="InvalidParameter")
        body = {name: value for name, value in read_body(call, unreadable).items() if value is not None}
        wanted, account, settings = validate(body), account_digest(key), self._settings
        if is_locked(key):
            why = f"Your account has not activated the model {wanted.asked.model}"
            raise Turned(404, why, kind="NotFound", code="ModelNotOpen")
        if settings.limits.take(f"byteplus/{account}", count=_PER_MINUTE, per_s=60.0, now_us=now_us):
            raise _too_fast("ModelAccountIpmRateLimitExceeded")
        if settings.jobs.running(self.name, account, now_us) >= self._in_flight:
            raise _too_fast("InflightBatchsizeExceeded")
        admission = admit(settings, self.name, now_us)
        job = job_of(
            settings,
            wanted.asked,
            admission,
            account=account,
            job_id=f"02{admission.entropy[:20].hex()}",
            wire=wire_text(body),
            price_microusd=_PLAN_MICROUSD,
        )
        settings.jobs.add(job)
        return msgspec.structs.replace(self._result(job, wanted), delay_s=held_s(job, now_us))

    def _result(self, job: Job, wanted: Wanted) -> Reply:
        if job.fate == "fail":
            return error(_FAILED)
        told: dict[str, object] = {"model": job.model, "created": job.done_us // 1_000_000}
        if job.fate == "policy":
            if int(job.id[-1], 16) % 2:
                return error(_FILTERED)
            item: dict[str, object] = {"error": {"code": _FILTERED.code, "message": _FILTERED.message}}
            usage = {"generated_images": 0, "output_tokens": 0, "total_tokens": 0}
            return json_reply(200, told | {"data": [item], "usage": usage})
        tokens = wanted.width * wanted.height // 256
        usage = {"generated_images": 1, "output_tokens": tokens, "total_tokens": tokens}
        item = {"size": f"{wanted.width}x{wanted.height}"}
        if wanted.as_url:
            item["url"] = file_url(self._settings, job)
            return json_reply(200, told | {"data": [item], "usage": usage})
        item["b64_json"] = ""
        return msgspec.structs.replace(json_reply(200, told | {"data": [item], "usage": usage}), draws=job.id)


def _too_fast(code: str) -> Turned:
    return Turned(429, "The request rate is too high", kind="TooManyRequests", code=code)
