"""Kie as an emulator: createTask, recordInfo, credit, and callbacks, true to the documented wire format.

Strict where the real thing may be lax: unknown fields and values outside the documented sets are refused, so that
a codec that passes here sends nothing undocumented.  Envelope errors arrive inside HTTP 200 except 429 and 500,
which are sent with the same HTTP status: both ways are seen in the wild and codecs must read both.
"""

import base64
import hashlib
import hmac
import re
from typing import Literal

import msgspec

from adapters.sandbox.base import Call, Job, JobState, Reply, Webhook
from adapters.sandbox.faults import unit
from adapters.sandbox.wirefmt import (
    EmulatorSettings,
    account_digest,
    admit,
    bearer,
    billed,
    file_url,
    json_object,
    json_reply,
    key_standing,
)

_CREDIT_MICROUSD = 5_000
_OPENING_CREDITS = 1_000_000
_MAX_LAG_S = 0.8  # recordInfo shows a task only some time after createTask
_KEY_SHAPE = re.compile(r"[0-9a-f]{32}")
_ASPECTS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9", "auto")


class _Model(msgspec.Struct, frozen=True):
    """The input schema and price of one model."""

    max_prompt: int
    credits: dict[str, int]  # by resolution
    references: str = ""  # the field's name
    max_references: int = 0
    needs_references: bool = False
    aspects: tuple[str, ...] = _ASPECTS
    default_aspect: str = "1:1"
    formats: tuple[str, ...] = ("png", "jpeg")
    default_format: str = "png"
    resolution: bool = False
    flags: tuple[str, ...] = ()

    def fields(self) -> set[str]:
        named = {"prompt", "aspect_ratio", "output_format", *self.flags}
        return named | ({self.references} - {""}) | ({"resolution"} if self.resolution else set())


_MODELS = {
    "google/nano-banana": _Model(max_prompt=5_000, credits={"1K": 4}, flags=("nsfw_checker",)),
    "google/nano-banana-edit": _Model(
        max_prompt=5_000, credits={"1K": 4}, references="image_urls", max_references=10, needs_references=True
    ),
    "nano-banana-2": _Model(
        max_prompt=20_000,
        credits={"1K": 8, "2K": 12, "4K": 18},
        references="image_input",
        max_references=14,
        aspects=(*_ASPECTS, "1:4", "1:8", "4:1", "8:1"),
        default_aspect="auto",
        formats=("jpg", "png"),
        default_format="jpg",
        resolution=True,
        flags=("google_search",),
    ),
    "nano-banana-pro": _Model(
        max_prompt=10_000,
        credits={"1K": 18, "2K": 18, "4K": 24},
        references="image_input",
        max_references=8,
        formats=("jpg", "png"),
        resolution=True,
    ),
}


class _Wanted(msgspec.Struct, frozen=True):
    """A validated createTask."""

    model: str
    prompt: str
    references: tuple[str, ...]
    aspect: str
    resolution: str
    output_format: str
    callback_url: str


class _Invalid(Exception):  # never leaves this module; it is the 422 on its way out
    """The request does not pass validation; the text is what Kie would say."""


class KieEmulator:
    """One emulated Kie over a job table."""

    name = "kie"
    result_life_s = 86_400.0

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings

    def is_submit(self, call: Call) -> bool:
        return call.method == "POST" and call.path == "/api/v1/jobs/createTask"

    def refusal(self, kind: Literal["throttled", "broken"]) -> Reply:
        if kind == "throttled":
            return _envelope(429, "Your call frequency is too high. Please try again later.", status=429)
        return _envelope(500, "Server exception, please try again later", status=500)

    def handle(self, call: Call, now_us: int) -> Reply:
        if not call.headers.get("user-agent", "").startswith("Mozilla/"):
            return Reply(403, {"content-type": "text/plain"}, b"error code: 1010")
        key = bearer(call.headers)
        standing = key_standing(key, looks_right=_KEY_SHAPE.fullmatch(key) is not None)
        if standing == "refused":
            return _envelope(401, "You do not have access permissions")
        account = account_digest(key)
        has_credit = standing == "good"
        match call.method, call.path:
            case "POST", "/api/v1/jobs/createTask":
                return self._create(call, account, now_us, has_credit=has_credit)
            case "GET", "/api/v1/jobs/recordInfo":
                return self._record_info(call, account, now_us)
            case "GET", "/api/v1/chat/credit":
                balance = self._balance(account, now_us) if has_credit else 0
                return _envelope(200, "success", balance)
            case _:
                return _envelope(404, "Not Found", status=404)

    def state(self, job: Job, now_us: int) -> JobState:
        if now_us < job.done_us:
            return "running"
        return "failed" if job.fate in ("fail", "policy") else "succeeded"

    def charged(self, job: Job, now_us: int) -> int:
        """Charged when the image is there; failed tasks are not (assumed: the refund is documented nowhere)."""
        return job.charge_microusd if self.state(job, now_us) == "succeeded" else 0

    def webhook(self, job: Job, now_us: int) -> Webhook:
        headers = {"content-type": "application/json"}
        if self._settings.webhook_key:
            stamp = str(now_us // 1_000_000)
            # The documented signature covers id and time only: any body passes with a captured pair.
            mac = hmac.digest(self._settings.webhook_key.encode(), f"{job.id}.{stamp}".encode(), hashlib.sha256)
            headers["x-webhook-timestamp"] = stamp
            headers["x-webhook-signature"] = base64.b64encode(mac).decode()
        code, text = _OUTCOMES.get(job.fate, (200, "Playground task completed successfully."))
        body = {"code": code, "msg": text, "data": self._record(job, now_us)}
        return Webhook(self.name, job.id, job.callback_url, headers, msgspec.json.encode(body))

    # --- the three calls ----------------------------------------------------------------------------------

    def _create(self, call: Call, account: str, now_us: int, *, has_credit: bool) -> Reply:
        try:
            wanted = _validate(call)
        except _Invalid as exc:
            return _envelope(422, str(exc))
        if self._settings.limits.take(f"kie/{account}/create", count=20, per_s=10.0, now_us=now_us):
            return self.refusal("throttled")
        if not has_credit:
            return _envelope(402, "Credits insufficient: the current balance is not enough to run this request")
        admission = admit(self._settings, self.name, now_us)
        job = Job(
            id=admission.entropy.hex()[:32],
            provider=self.name,
            account=account,
            model=wanted.model,
            wire=call.body.decode(),
            prompt=wanted.prompt,
            references=wanted.references,
            aspect=wanted.aspect,
            resolution=wanted.resolution,
            output_format=wanted.output_format,
            created_us=admission.created_us,
            started_us=admission.started_us,
            done_us=admission.done_us,
            charge_microusd=billed(self._settings, _MODELS[wanted.model].credits[wanted.resolution] * _CREDIT_MICROUSD),
            fate=admission.fate,
            callback_url=wanted.callback_url,
        )
        self._settings.jobs.add(job)
        return _envelope(200, "success", {"taskId": job.id})

    def _record_info(self, call: Call, account: str, now_us: int) -> Reply:
        if self._settings.limits.take(f"kie/{account}/query", count=10, per_s=1.0, now_us=now_us):
            return self.refusal("throttled")
        job = self._settings.jobs.get(self.name, call.query.get("taskId", ""))
        if job is None or job.account != account or now_us < job.created_us + self._lag_us(job):
            return _envelope(422, "recordInfo is null")
        if self.state(job, now_us) == "failed" and job.fate == "fail":
            return _envelope(501, "Generation Failed", self._record(job, now_us))
        return _envelope(200, "success", self._record(job, now_us))

    def _balance(self, account: str, now_us: int) -> int:
        jobs = self._settings.jobs.list(self.name, account, since_us=0, until_us=now_us, limit=1_000_000_000)
        spent = sum(self.charged(job, now_us) for job in jobs)
        return _OPENING_CREDITS - spent // _CREDIT_MICROUSD

    def _lag_us(self, job: Job) -> int:
        longest_s = min(_MAX_LAG_S, self._settings.latency_s / 2)
        return round(unit(b"lag", job.id.encode()) * longest_s * 1_000_000)

    def _record(self, job: Job, now_us: int) -> dict[str, object]:
        """``data`` of recordInfo and of callbacks.  ``param`` is JSON in a string, and its ``input`` once more."""
        sent = msgspec.json.decode(job.wire, type=dict[str, object])
        sent["input"] = msgspec.json.encode(sent["input"]).decode()
        state = self.state(job, now_us)
        ended = state != "running"
        code, text = _OUTCOMES.get(job.fate, (0, "")) if ended else (0, "")
        result = {"resultUrls": [file_url(self._settings, job)]}
        return {
            "taskId": job.id,
            "model": job.model,
            "state": {"succeeded": "success", "failed": "fail"}.get(state, _phase(job, now_us)),
            "param": msgspec.json.encode(sent).decode(),
            "resultJson": msgspec.json.encode(result).decode() if state == "succeeded" else "",
            "failCode": str(code) if code else None,
            "failMsg": text or None,
            "costTime": (job.done_us - job.started_us) // 1_000 if ended else None,
            "createTime": job.created_us // 1_000,
            "updateTime": min(now_us, job.done_us) // 1_000,
            "completeTime": job.done_us // 1_000 if ended else None,
            "creditsConsumed": self.charged(job, now_us) // _CREDIT_MICROUSD if ended else None,
        }


_OUTCOMES = {
    "fail": (501, "Internal Error, Please try again later."),
    "policy": (400, "The content was flagged as violating the content policy."),
}


def _phase(job: Job, now_us: int) -> str:
    """Name the way of running: a fifth of the time waiting, a fifth queuing, then generating."""
    share = (now_us - job.created_us) / (job.done_us - job.created_us)
    return "waiting" if share < 0.2 else "queuing" if share < 0.4 else "generating"


def _envelope(code: int, text: str, data: object = None, *, status: int = 200) -> Reply:
    return json_reply(status, {"code": code, "msg": text, "data": data})


def _validate(call: Call) -> _Wanted:
    if call.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise _Invalid("Content-Type must be application/json")
    body = json_object(call.body)
    if body is None:
        raise _Invalid("the body must be a JSON object")
    _only(body, {"model", "callBackUrl", "input"}, "")
    name = body.get("model")
    model = _MODELS.get(name) if isinstance(name, str) else None
    if model is None or not isinstance(name, str):
        raise _Invalid("The model name you specified is not supported. Please verify it and try again.")
    fields = body.get("input")
    if not isinstance(fields, dict):
        raise _Invalid("input cannot be null")
    _only(fields, model.fields(), "input.")
    for flag in model.flags:
        if not isinstance(fields.get(flag, False), bool):
            raise _Invalid(f"{flag} must be a boolean")
    image_format = _choice(fields, "output_format", model.formats, model.default_format)
    return _Wanted(
        model=name,
        prompt=_prompt(fields, model),
        references=_references(fields, model),
        aspect=_choice(fields, "aspect_ratio", model.aspects, model.default_aspect),
        resolution=_choice(fields, "resolution", tuple(model.credits), "1K"),
        output_format="jpg" if image_format == "jpeg" else image_format,
        callback_url=_callback(body),
    )


def _only(given: dict[str, object], known: set[str], prefix: str) -> None:
    for field in given:
        if field not in known:
            raise _Invalid(f"{prefix}{field} is not a known field")


def _choice(fields: dict[str, object], field: str, allowed: tuple[str, ...], default: str) -> str:
    value = fields.get(field, default)
    if not isinstance(value, str) or value not in allowed:
        raise _Invalid(f"{field} is not within the range of allowed options")
    return value


def _prompt(fields: dict[str, object], model: _Model) -> str:
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise _Invalid("prompt is required")
    if len(prompt) > model.max_prompt:
        raise _Invalid(f"The text length cannot exceed the maximum limit of {model.max_prompt}")
    return prompt


def _references(fields: dict[str, object], model: _Model) -> tuple[str, ...]:
    given = fields.get(model.references, [])
    if not isinstance(given, list) or not all(isinstance(url, str) and _is_uri(url) for url in given):
        raise _Invalid(f"{model.references} must be a list of file URLs")
    if len(given) > model.max_references:
        raise _Invalid(f"{model.references} takes at most {model.max_references} images")
    if model.needs_references and not given:
        raise _Invalid(f"{model.references} is required")
    return tuple(given)


def _callback(body: dict[str, object]) -> str:
    url = body.get("callBackUrl", "")
    if not isinstance(url, str) or (url and not _is_uri(url)):
        raise _Invalid("callBackUrl must be a URI")
    return url


def _is_uri(text: str) -> bool:
    return re.fullmatch(r"https?://[^\s/]+\S*", text) is not None
