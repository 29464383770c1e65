"""Segmind as an emulator: the v2 queue, the blocking v1, request history, credits, uploads.

Segmind serves these from several hosts; here all of them share one prefix.  Quirks kept: a failed job answers 422,
a wrong verb answers HTML, 406 means several things, records vanish one hour after their submission while the
history goes on naming the file.

Not here: models other than Nano Banana, PixelFlow, webhooks (there are none for inference).
"""

import hashlib
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

import msgspec

from adapters.reading import from_base64
from adapters.sandbox.accepting import admit, charge_on_success, held_s, job_of, jobs_of, own_job, state_of
from adapters.sandbox.base import Call, Job, JobState, Reply
from adapters.sandbox.picture import draw
from adapters.sandbox.segmind_input import MODELS, Refused, day, is_data, number, only, validate
from adapters.sandbox.wirefmt import (
    EmulatorSettings,
    account_digest,
    file_url,
    is_locked,
    json_object,
    json_reply,
    key_standing,
)

_KEY_SHAPE = re.compile(r"SG_[0-9a-f]{16}")
_OPENING_MICROUSD = 1_000_000_000
_RECORD_LIFE_US = 3_600_000_000
_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_PAGE = 1_000_000_000
_START_SHARE = 0.1  # of the latency: how long a job is QUEUED
_ERRORS = {
    "fail": "The upstream model did not answer in time",
    "policy": "Content was flagged by the safety filter",
    "unreachable": "Invalid image_urls: an image could not be downloaded",
}
_HTML_405 = b"<!doctype html>\n<html lang=en>\n<title>405 Method Not Allowed</title>\n<h1>Method Not Allowed</h1>\n"


class SegmindEmulator:
    """One emulated Segmind over a job table.

    Args:
        settings: What every emulator is told.
        listing_lag_s: How late a new request appears in the history.
        stalled_s: For each aspect named, how far its queue is behind.
        aspect_queues: Each aspect has its own queue, so that a stall holds its own aspect only.  Otherwise there is
            one queue, and the longest stall holds everything (what the documents suggest).
    """

    name = "segmind"
    result_life_s = 7 * 86_400.0

    def __init__(
        self,
        settings: EmulatorSettings,
        *,
        listing_lag_s: float = 0.0,
        stalled_s: Mapping[str, float] | None = None,
        aspect_queues: bool = False,
    ) -> None:
        self._settings = settings
        self._lag_us = round(listing_lag_s * 1_000_000)
        self._stalled_s = dict(stalled_s or {})
        self._aspect_queues = aspect_queues

    def is_submit(self, call: Call) -> bool:
        return call.method == "POST" and re.fullmatch(r"/v[12]/[\w.-]+", call.path) is not None

    def refusal(self, kind: Literal["throttled", "broken"]) -> Reply:
        # The time of the reset is always told.  There is no clock here, so it is one that has passed: ask again now.
        return _throttled(0) if kind == "throttled" else _error(500, "Internal server error")

    def handle(self, call: Call, now_us: int) -> Reply:
        key = call.headers.get("x-api-key", "")
        standing = key_standing(key, looks_right=_KEY_SHAPE.fullmatch(key) is not None)
        if standing == "refused":
            why = "Invalid API key" if key else "Missing Authorization or x-api-key header"
            return json_reply(401, {"error": "Unauthorized", "error_description": why, "status_code": 401})
        account = account_digest(key)
        if is_locked(key) and self.is_submit(call):
            return _error(403, "This model is not allowed for your team")
        if call.path.startswith(("/v1/", "/v2/")):  # the gateway; history and uploads have hosts of their own
            wait_s = self._settings.limits.take(f"segmind/{account}", count=50, per_s=60.0, now_us=now_us)
            if wait_s:
                return _throttled(now_us + round(wait_s * 1_000_000))
        try:
            return self._route(call, account, now_us, has_credit=standing == "good")
        except Refused as exc:
            status, text = exc.args
            return _error(status, text)

    def state(self, job: Job, now_us: int) -> JobState:
        return state_of(job, now_us, failures=_ERRORS)

    def charged(self, job: Job, now_us: int) -> int:
        """Only what completed is charged."""
        return charge_on_success(job, self.state(job, now_us))

    # --- routes -------------------------------------------------------------------------------------------

    def _route(self, call: Call, account: str, now_us: int, *, has_credit: bool) -> Reply:
        parts = call.path.strip("/").split("/")
        match parts:
            case ["v1", "get-user-credits"]:
                only("GET", call)
                return self._credits(account, now_us, has_credit=has_credit)
            case ["v2", "requests", job_id, "status"]:
                only("GET", call)
                return self._status(call, account, job_id, now_us)
            case ["v1" | "v2", "requests", job_id]:
                only("GET", call)
                return self._record(call, account, job_id, now_us)
            case ["v1" | "v2" as version, slug]:
                only("POST", call)
                job = self._submit(call, account, slug, now_us, has_credit=has_credit)
                return self._blocking(job, now_us) if version == "v1" else _queued(job, call.origin)
            case ["inference-request", "request-history"]:
                only("GET", call)
                return self._history(call.query, account, now_us)
            case ["inference-request", "request-history", job_id]:
                only("GET", call)
                job = self._job(account, job_id)
                if job.created_us > now_us - self._lag_us:
                    raise Refused(404, "Request not found")
                return json_reply(200, self._row(job, now_us))
            case ["upload-asset"]:
                only("POST", call)
                return self._upload(call)
            case _:
                raise Refused(404, "Not Found")

    def _submit(self, call: Call, account: str, slug: str, now_us: int, *, has_credit: bool) -> Job:
        if slug not in MODELS:
            raise Refused(404, "Model not found")
        if not call.headers.get("content-type", "").startswith("application/json"):
            raise Refused(406, "Invalid content type")
        body = json_object(call.body)
        if body is None:
            raise Refused(400, "The request body must be a JSON object")
        asked = validate(body, slug)
        if not has_credit:
            raise Refused(406, "Insufficient credits")
        settings = self._settings
        queue_s = settings.latency_s * _START_SHARE + self._stall_s(asked.aspect)
        admission = admit(settings, self.name, now_us, queue_s=queue_s)
        job = job_of(
            settings,
            asked,
            admission,
            account=account,
            job_id=str(uuid.UUID(bytes=admission.entropy[:16], version=4)),
            wire=call.body.decode(),
            price_microusd=MODELS[slug].prices[asked.resolution],
        )
        settings.jobs.add(job)
        return job

    def _stall_s(self, aspect: str) -> float:
        if self._aspect_queues:
            return self._stalled_s.get(aspect, 0.0)
        return max(self._stalled_s.values(), default=0.0)

    def _blocking(self, job: Job, now_us: int) -> Reply:
        """Answer v1: hold until the job ends, then the image itself."""
        delay_s = held_s(job, now_us)
        if self.state(job, job.done_us) == "failed":
            return msgspec.structs.replace(_error(500, _ERRORS[job.fate]), delay_s=delay_s)
        headers = {
            "content-type": "image/png" if job.output_format == "png" else "image/jpeg",
            "x-request-id": job.id,
            "x-cost": str(job.charge_microusd / 1e6),
            "x-remaining-credits": str(_remaining(job)),
            "x-generation-time": str(delay_s),
        }
        return Reply(200, headers, draw(job, short_side=self._settings.small_px), delay_s=delay_s)

    # --- asking -------------------------------------------------------------------------------------------

    def _job(self, account: str, job_id: str) -> Job:
        job = own_job(self._settings, self.name, account, job_id)
        if job is None:
            raise Refused(404, "Request not found")
        return job

    def _live(self, account: str, job_id: str, now_us: int) -> Job:
        job = self._job(account, job_id)
        if now_us >= job.created_us + _RECORD_LIFE_US:
            raise Refused(404, "Request not found")
        return job

    def _status(self, call: Call, account: str, job_id: str, now_us: int) -> Reply:
        job = self._live(account, job_id, now_us)
        state = self.state(job, now_us)
        if state == "failed":
            return self._failure(job)
        metrics = {"inference_time": _seconds(job.started_us, job.done_us)} if state == "succeeded" else {}
        return json_reply(200, _brief(job, _phase(job, state, now_us), call.origin) | {"metrics": metrics})

    def _record(self, call: Call, account: str, job_id: str, now_us: int) -> Reply:
        job = self._live(account, job_id, now_us)
        state = self.state(job, now_us)
        if state == "failed":
            return self._failure(job)
        if state == "running":
            return json_reply(200, _brief(job, _phase(job, state, now_us), call.origin) | {"metrics": {}})
        metrics = _times(job) | {
            "cost": job.charge_microusd / 1e6,
            "remaining_credits": _remaining(job),
            "inference_time": _seconds(job.started_us, job.done_us),
        }
        output = file_url(self._settings, job)
        return json_reply(200, {"status": "COMPLETED", "request_id": job.id, "output": output, "metrics": metrics})

    def _failure(self, job: Job) -> Reply:
        failed = {"status": "FAILED", "request_id": job.id, "error": _ERRORS[job.fate], "metrics": _times(job)}
        return json_reply(422, failed)

    def _credits(self, account: str, now_us: int, *, has_credit: bool) -> Reply:
        if not has_credit:
            raise Refused(404, "No credits found for the user")
        jobs = jobs_of(self._settings, self.name, account, until_us=now_us)
        spent = sum(self.charged(job, now_us) for job in jobs)
        return json_reply(200, {"credits": max(0, _OPENING_MICROUSD - spent) / 1e6})

    # --- history and uploads ------------------------------------------------------------------------------

    def _history(self, query: Mapping[str, str], account: str, now_us: int) -> Reply:
        page, size = number(query, "page", 1, _MAX_PAGE), number(query, "per_page", 20, 100)
        today = (_EPOCH + timedelta(microseconds=now_us)).date()
        first, last = day(query, "from_date", today - 7 * _DAY), day(query, "to_date", today)
        if not timedelta(0) <= last - first <= 31 * _DAY:
            raise Refused(400, "The window may span at most 31 days")
        if query.get("sort_by", "model_created") != "model_created":
            raise Refused(400, "sort_by is not supported here")
        until_us = min(_day_us(last + _DAY) - 1, now_us - self._lag_us)
        jobs = jobs_of(self._settings, self.name, account, since_us=_day_us(first), until_us=until_us)
        named, status = query.get("model_name", ""), query.get("status", "")
        jobs = [job for job in jobs if named in job.model and status in ("", self._row_status(job, now_us))]
        if query.get("sort_order", "desc") == "asc":
            jobs.reverse()
        rows = [self._row(job, now_us) for job in jobs[(page - 1) * size : page * size]]
        return json_reply(200, {"data": rows, "page": page, "per_page": size, "total": len(jobs)})

    def _row_status(self, job: Job, now_us: int) -> str:
        return {"running": "PENDING", "failed": "FAILED"}.get(self.state(job, now_us), "COMPLETED")

    def _row(self, job: Job, now_us: int) -> dict[str, object]:
        status = self._row_status(job, now_us)
        row: dict[str, object] = {
            "request_id": job.id,
            "model_name": job.model,
            "model_status": status,
            "credits_deduction": self.charged(job, now_us) / 1e6,
            "request_body": msgspec.json.decode(job.wire),
            "generation_url": file_url(self._settings, job) if status == "COMPLETED" else None,
            "latency_ms": (job.done_us - job.created_us) // 1_000 if status != "PENDING" else None,
            "created_at": _iso(job.created_us),
            "updated_at": _iso(min(now_us, job.done_us)),
        }
        return row | {"error": _ERRORS[job.fate]} if status == "FAILED" else row

    def _upload(self, call: Call) -> Reply:
        body = json_object(call.body) or {}
        urls = body.get("data_urls")
        if not isinstance(urls, list) or not urls or not all(isinstance(url, str) and is_data(url) for url in urls):
            raise Refused(400, "data_urls must be a list of base64 data URLs")
        names = [hashlib.sha256(from_base64(url.partition(",")[2])).hexdigest()[:32] for url in urls]
        files = [f"https://images.segmind.com/assets/{name}" for name in names]
        return json_reply(200, {"file_urls": files, "message": "Files uploaded successfully"})


# --- answering ----------------------------------------------------------------------------------------------


def _error(status: int, text: str) -> Reply:
    if status == 405:
        return Reply(405, {"content-type": "text/html; charset=utf-8"}, _HTML_405)
    return json_reply(status, {"error": text})


def _throttled(reset_us: int) -> Reply:
    return json_reply(429, {"error": "Rate limit exceeded"}, {"x-rate-limit-reset-at-utc": _iso(reset_us)})


def _queued(job: Job, origin: str) -> Reply:
    urls = {
        "poll_url": f"{origin}/v1/requests/{job.id}",
        "status_url": f"{origin}/v2/requests/{job.id}/status",
        "response_url": f"{origin}/v2/requests/{job.id}",
    }
    return json_reply(200, {"request_id": job.id, "status": "QUEUED", **urls})


def _brief(job: Job, status: str, origin: str) -> dict[str, object]:
    url = f"{origin}/v2/requests/{job.id}"
    return {"status": status, "request_id": job.id, "status_url": url + "/status", "response_url": url}


def _phase(job: Job, state: JobState, now_us: int) -> str:
    if state == "succeeded":
        return "COMPLETED"
    return "QUEUED" if now_us < job.started_us else "PROCESSING"


def _times(job: Job) -> dict[str, object]:
    return {
        "queue_time": _seconds(job.created_us, job.started_us),
        "total_time": _seconds(job.created_us, job.done_us),
        "retry_count": 0,
    }


def _remaining(job: Job) -> float:
    """What the account might have left; the true sum would read the whole table for every answer."""
    return (_OPENING_MICROUSD - job.charge_microusd) / 1e6


def _seconds(from_us: int, until_us: int) -> float:
    return (until_us - from_us) / 1e6


def _day_us(day: date) -> int:
    return (datetime.combine(day, time(), UTC) - _EPOCH) // timedelta(microseconds=1)


def _iso(at_us: int) -> str:
    return (_EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
