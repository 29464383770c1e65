"""WaveSpeed as an emulator: predictions, listing, deletion, uploads, balance, quote, catalogue, signed callbacks.

Every answer is ``{code, message, data}`` but the callback, which is flat.  Quirks kept: a failed task is a 200 with
code 200, both poll paths answer, the listing is a POST and shows no input, what is deleted says so, images above
the level's limit a minute are refused while tasks above its concurrency wait.  The level follows the key's text
(``silver``, ``gold``, ``ultra`` in it; else bronze); ``locked`` in it is a key that no model is open to.

Not here: forgetting what was deleted after its end, base64 outputs, the older multipart upload, billing records.
"""

import hashlib
import hmac
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from adapters.sandbox.accepting import Admission, admit, billed, job_of, jobs_of, own_job, state_of
from adapters.sandbox.base import Call, Job, JobState, Reply, Webhook
from adapters.sandbox.wavespeed_input import MODELS, Invalid, callback_url, validate, window
from adapters.sandbox.wirefmt import (
    EmulatorSettings,
    account_digest,
    bearer,
    file_url,
    is_locked,
    json_object,
    json_reply,
    key_standing,
)

_KEY_SHAPE = re.compile(r"[A-Za-z0-9_-]{32,}")
_SUBMIT = re.compile(r"/api/v3/(?!predictions/|media/|model/|webhook/)([\w.-]+(?:/[\w.-]+)+)")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_UPLOADED = re.compile(r"/uploads/[0-9a-f]{32}\.(?:png|jpg|webp|bin)")
_WEEK_US = 7 * 86_400 * 1_000_000
_START_SHARE = 0.1  # of the latency: how long a task is "created"
_SYNC_WAIT_S = 60.0  # how long a request in sync mode is held
_OPENING_MICROUSD = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}

_ERRORS = {
    "fail": "Upstream provider error: HTTP 503 Service Unavailable",
    "policy": "The request was flagged by the content policy of the model",
    "unreachable": "Failed to download the input image",
}


class _Level(msgspec.Struct, frozen=True):
    images_per_minute: int
    at_once: int


_LEVELS = {"silver": _Level(500, 100), "gold": _Level(3_000, 2_000), "ultra": _Level(5_000, 5_000)}
_BRONZE = _Level(10, 3)


class WaveSpeedEmulator:
    """One emulated WaveSpeed over a job table.

    Args:
        settings: What every emulator is told.
        listing_lag_s: How late a new prediction appears in the listing.
    """

    name = "wavespeed"
    result_life_s = 7 * 86_400.0

    def __init__(self, settings: EmulatorSettings, *, listing_lag_s: float = 0.0) -> None:
        self._settings = settings
        self._lag_us = round(listing_lag_s * 1_000_000)

    def is_submit(self, call: Call) -> bool:
        return call.method == "POST" and _SUBMIT.fullmatch(call.path) is not None

    def refusal(self, kind: Literal["throttled", "broken"]) -> Reply:
        return _throttled(1.0) if kind == "throttled" else _error(503, "Service unavailable")

    def handle(self, call: Call, now_us: int) -> Reply:
        if call.method == "PUT" and _UPLOADED.fullmatch(call.path):
            return _put(call)
        key = bearer(call.headers)
        standing = key_standing(key, looks_right=_KEY_SHAPE.fullmatch(key) is not None)
        if standing == "refused":
            return _error(401, "Invalid API key" if key else "Missing API key")
        try:
            if self.is_submit(call):
                return self._submit(call, key, now_us, has_credit=standing == "good")
            return self._answer(call, account_digest(key), now_us, has_credit=standing == "good")
        except Invalid as exc:
            return _error(400, str(exc))

    def state(self, job: Job, now_us: int) -> JobState:
        return state_of(job, now_us, failures=_ERRORS)

    def charged(self, job: Job, now_us: int) -> int:
        """Failures are refunded.  What is deleted while it runs is charged whole: the worst of a "partial refund"."""
        return job.charge_microusd if self.state(job, now_us) in ("succeeded", "cancelled") else 0

    def webhook(self, job: Job, now_us: int) -> Webhook:
        """The end of a task: flat, and signed by a scheme that only looks like Standard Webhooks."""
        body = msgspec.json.encode(self._prediction(job, now_us, f"{self._settings.files_origin}/{self.name}"))
        stamp = str(now_us // 1_000_000)
        key = self._secret(job.account).removeprefix("whsec_").encode()
        mac = hmac.new(key, f"{job.id}.{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        headers = {
            "content-type": "application/json",
            "webhook-id": job.id,
            "webhook-timestamp": stamp,
            "webhook-signature": f"v3,{mac}",
        }
        return Webhook(self.name, job.id, job.callback_url, headers, body)

    # --- buying -------------------------------------------------------------------------------------------

    def _submit(self, call: Call, key: str, now_us: int, *, has_credit: bool) -> Reply:
        path = call.path.removeprefix("/api/v3/")
        if path not in MODELS:
            return _error(404, f"model {path} not found")
        if is_locked(key):
            return _error(403, f"model {path} is not available to this account")
        wanted = validate(_body(call), path)
        asked = msgspec.structs.replace(wanted.asked, callback_url=callback_url(call.query))
        if not has_credit:
            return _error(402, "Insufficient balance, please top up")
        account = account_digest(key)
        level = next((level for name, level in _LEVELS.items() if name in key), _BRONZE)
        wait_s = self._settings.limits.take(
            f"wavespeed/{account}", count=level.images_per_minute, per_s=60.0, now_us=now_us
        )
        if wait_s:
            return _throttled(wait_s)
        admission = self._admit(account, now_us, level)
        job = job_of(
            self._settings,
            asked,
            admission,
            account=account,
            job_id=admission.entropy.hex()[:32],
            wire=call.body.decode(),
            price_microusd=wanted.price_microusd,
        )
        self._settings.jobs.add(job)
        if not wanted.sync:
            return _success(self._prediction(job, job.created_us, call.origin))
        return self._held(job, now_us, call.origin)

    def _admit(self, account: str, now_us: int, level: _Level) -> Admission:
        """What is above the level's concurrency waits."""
        settings = self._settings
        at_once = max(1, round(level.at_once * settings.rate_factor))
        ahead = settings.jobs.running(self.name, account, now_us) // at_once
        return admit(settings, self.name, now_us, queue_s=settings.latency_s * (_START_SHARE + ahead))

    def _held(self, job: Job, now_us: int, origin: str) -> Reply:
        """Answer in sync mode: the finished task, or after a while that it goes on without us."""
        until_us = now_us + round(_SYNC_WAIT_S * 1_000_000)
        shown = self._prediction(job, min(job.done_us, until_us), origin)
        if job.done_us > until_us:
            error = f"Sync mode timed out after {_SYNC_WAIT_S:.0f} seconds, query the result later"
            shown |= {"code": 5004, "status": "processing", "error": error}
        delay_s = (min(job.done_us, until_us) - now_us) / 1_000_000
        return msgspec.structs.replace(_success(shown), delay_s=delay_s)

    # --- the other calls ----------------------------------------------------------------------------------

    def _answer(self, call: Call, account: str, now_us: int, *, has_credit: bool) -> Reply:
        parts = call.path.removeprefix("/api/v3/").split("/")
        match call.method, parts:
            case ("GET", ["predictions", job_id, "result"]) | ("GET" | "DELETE", ["predictions", job_id]):
                return self._one(call, account, job_id, now_us)
            case "POST", ["predictions"]:
                return self._list(call, account, now_us)
            case "POST", ["predictions", "delete"]:
                return self._delete_many(call, account, now_us)
            case "POST", ["media", "uploads"]:
                return _ticket(call)
            case "POST", ["model", "price"]:
                return self._price(call)
            case "GET", ["models"]:
                return _success([_shown_model(path) for path in MODELS])
            case "GET", ["balance"]:
                return _success({"balance": self._balance(account, now_us) if has_credit else 0.0})
            case "GET", ["webhook", "secret"]:
                return _success({"secret": self._secret(account)})
            case _:
                return _error(404, "not found")

    def _job(self, account: str, job_id: str, now_us: int) -> Job | None:
        job = own_job(self._settings, self.name, account, job_id)
        return job if job is not None and now_us < job.created_us + _WEEK_US else None

    def _one(self, call: Call, account: str, job_id: str, now_us: int) -> Reply:
        job = self._job(account, job_id, now_us)
        if job is None:
            return _error(404, "task not found")
        if call.method == "DELETE":
            self._settings.jobs.cancel(self.name, job.id, now_us)
            return _success({"id": job.id, "status": "deleted"})
        return _success(self._prediction(job, now_us, call.origin))

    def _delete_many(self, call: Call, account: str, now_us: int) -> Reply:
        ids = _body(call).get("ids")
        if not isinstance(ids, list) or not all(isinstance(job_id, str) for job_id in ids):
            raise Invalid("ids must be a list of ids")
        found = [job for job_id in ids if (job := self._job(account, job_id, now_us)) is not None]
        for job in found:
            self._settings.jobs.cancel(self.name, job.id, now_us)
        return _success({"deleted_count": len(found)})

    def _list(self, call: Call, account: str, now_us: int) -> Reply:
        asked = window(_body(call), now_us)
        since_us, until_us = max(asked.since_us, now_us - _WEEK_US), min(asked.until_us, now_us - self._lag_us)
        jobs = jobs_of(self._settings, self.name, account, since_us=since_us, until_us=until_us)
        jobs = [
            job
            for job in jobs
            if asked.model in ("", job.model) and asked.status in ("", self._shown_status(job, now_us))
        ]
        first = (asked.page - 1) * asked.size
        items = [self._prediction(job, now_us, call.origin) for job in jobs[first : first + asked.size]]
        return _success({"page": asked.page, "items": items})

    def _price(self, call: Call) -> Reply:
        body = _body(call)
        path, inputs = body.get("model_id"), body.get("inputs")
        if not isinstance(path, str) or path not in MODELS or not isinstance(inputs, dict):
            raise Invalid("model_id and inputs are required")
        usd = billed(self._settings, validate(inputs, path).price_microusd) / 1e6
        return _success({"model_id": path, "price": usd, "discounted_price": usd, "currency": "USD"})

    def _balance(self, account: str, now_us: int) -> float:
        jobs = jobs_of(self._settings, self.name, account, until_us=now_us)
        spent = sum(self.charged(job, now_us) for job in jobs)
        return max(0, _OPENING_MICROUSD - spent) / 1e6

    def _secret(self, account: str) -> str:
        """The secret that every key has without being asked for; one of the user's own stands for all."""
        made = hashlib.sha256(f"wavespeed callbacks/{account}".encode()).hexdigest()[:32]
        return "whsec_" + (self._settings.webhook_key or made).removeprefix("whsec_")

    # --- what is shown ------------------------------------------------------------------------------------

    def _shown_status(self, job: Job, now_us: int) -> str:
        match self.state(job, now_us):
            case "running":
                return "created" if now_us < job.started_us else "processing"
            case "succeeded":
                return "completed"
            case "cancelled":
                return "deleted"
            case "failed":
                return "failed"

    def _prediction(self, job: Job, now_us: int, origin: str) -> dict[str, object]:
        status = self._shown_status(job, now_us)
        ended = status in ("completed", "failed")
        took_ms = (job.done_us - job.started_us) // 1_000 if ended else 0
        shown: dict[str, object] = {
            "id": job.id,
            "model": job.model,
            "status": status,
            "outputs": [file_url(self._settings, job)] if status == "completed" else [],
            "urls": {"get": f"{origin}/api/v3/predictions/{job.id}/result"},
            "has_nsfw_contents": [False] if status == "completed" else [],
            "created_at": _iso(job.created_us),
            "error": _ERRORS[job.fate] if status == "failed" else "",
            "timings": {"inference": took_ms},
        }
        return shown | {"executionTime": took_ms} if ended else shown


# --- uploads ------------------------------------------------------------------------------------------------


def _ticket(call: Call) -> Reply:
    """Say where to put a file.  Its address follows from its name and size, so that the same file has the same one; a
    name that is a digest stays the name."""
    body = _body(call)
    name, size, kind = body.get("filename"), body.get("size"), body.get("content_type", "application/octet-stream")
    if not isinstance(name, str) or not name or not isinstance(kind, str):
        raise Invalid("filename and content_type must be text")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise Invalid("size must be a number of bytes")
    digest = name.partition(".")[0]
    if not _DIGEST.fullmatch(digest):
        digest = hashlib.sha256(f"{name}/{size}/{kind}".encode()).hexdigest()[:32]
    url = f"{call.origin}/uploads/{digest}.{_EXTENSIONS.get(kind, 'bin')}"
    upload = {"method": "PUT", "url": f"{url}?size={size}", "headers": {"Content-Type": kind}}
    return _success({"upload": upload, "download_url": url})


def _put(call: Call) -> Reply:
    """Take the bytes of a ticket; the address is the permission.  Nothing reads them again, so nothing is kept."""
    if call.query.get("size") != str(len(call.body)):
        return Reply(400, {"content-type": "application/xml"}, b"<Error><Code>BadSize</Code></Error>")
    return Reply(200, {}, b"")


# --- answering ----------------------------------------------------------------------------------------------


def _body(call: Call) -> dict[str, object]:
    body = json_object(call.body)
    if body is None or not call.headers.get("content-type", "").startswith("application/json"):
        raise Invalid("the request body must be a JSON object")
    return body


def _shown_model(path: str) -> dict[str, object]:
    model = MODELS[path]
    schema = {
        "properties": model.properties(),
        "required": ["prompt", "images"] if model.max_references else ["prompt"],
    }
    return {
        "model_id": path,
        "name": path,
        "type": model.kind,
        "base_price": min(model.prices.values()) / 1e6,
        "formula": "",
        "api_schema": {"api_schemas": [{"request_schema": schema}]},
    }


def _iso(at_us: int) -> str:
    """A time as Go writes it, to the nanosecond."""
    return (_EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def _success(data: object) -> Reply:
    return json_reply(200, {"code": 200, "message": "success", "data": data})


def _error(status: int, message: str) -> Reply:
    return json_reply(status, {"code": status, "message": message})


def _throttled(wait_s: float) -> Reply:
    return msgspec.structs.replace(
        _error(429, "Too many requests"),
        headers={"content-type": "application/json", "retry-after": str(max(1, math.ceil(wait_s)))},
    )
