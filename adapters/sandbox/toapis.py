"""Toapis as an emulator: tasks, their status one by one and many at once, uploads, balance, signed callbacks.

True to the documented fields and strict about them (``toapis_input``).  ``{id}`` of a status is a task or the
reference of ours that it was made with; among several of one reference the newest answers (assumed).  The path of
the status query for many is assumed as in the codec: ``batch_status=False`` is a Toapis that has it elsewhere.
"""

import hmac
import math
import re
from typing import Literal

import msgspec

from adapters.sandbox.accepting import admit, charge_on_success, job_of, jobs_of, own_job, state_of
from adapters.sandbox.base import Call, Job, JobState, Reply, Webhook
from adapters.sandbox.forms import file_name, image_type, read_form
from adapters.sandbox.toapis_input import MODELS, Invalid, validate
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

_KEY_SHAPE = re.compile(r"sk-[A-Za-z0-9]{20,}")
_TASK_ID = re.compile(r"img_[0-9a-f]{32}")
_PATH = "/v1/images/generations"
_OPENING_CREDITS = 200_000
_CREDIT_MICROUSD = 5_000
_MAX_BATCH = 100
_MAX_FILE_BYTES = 10_000_000
_QUEUED_SHARE = 0.3  # of a task's time
_ERRORS = {
    "fail": ("generation_failed", "call upstream API failed: upstream returned status 503"),
    "policy": ("content_policy_violation", "The content violates the content policy"),
    "unreachable": ("generation_failed", "call upstream API failed: upstream could not read image_urls"),
}


class ToapisEmulator:
    """One emulated Toapis over a job table.

    Args:
        settings: What every emulator is told.
        lookup_lag_s: How late a new task is found by its reference.
        batch_status: Whether the status query for many is where the codec assumes it.
        callback_origin: Scheme and host of the key's default callback; "" = anywhere.
    """

    name = "toapis"
    result_life_s = 86_400.0

    def __init__(
        self,
        settings: EmulatorSettings,
        *,
        lookup_lag_s: float = 0.0,
        batch_status: bool = True,
        callback_origin: str = "",
    ) -> None:
        self._settings = settings
        self._lag_us = round(lookup_lag_s * 1_000_000)
        self._batch_status = batch_status
        self._callback_origin = callback_origin

    def is_submit(self, call: Call) -> bool:
        return call.method == "POST" and call.path == _PATH

    def refusal(self, kind: Literal["throttled", "broken"]) -> Reply:
        return _throttled(1.0, "async_submit") if kind == "throttled" else _error(500, "Internal error", "server_error")

    def handle(self, call: Call, now_us: int) -> Reply:
        key = bearer(call.headers)
        standing = key_standing(key, looks_right=_KEY_SHAPE.fullmatch(key) is not None)
        if standing == "refused":
            return _error(401, "Authentication failed, please check your API key", "authentication_error")
        account = account_digest(key)
        category, count = ("async_submit", 50) if self.is_submit(call) else ("async_query", 500)
        wait_s = self._settings.limits.take(f"toapis/{account}/{category}", count=count, per_s=10.0, now_us=now_us)
        if wait_s:
            return _throttled(wait_s, category)
        has_credit = standing == "good"
        match call.method, call.path:
            case "POST", "/v1/images/generations":
                return self._create(call, account, now_us, has_credit=has_credit, locked=is_locked(key))
            case "POST", "/v1/images/generations/batch" if self._batch_status:
                return self._many(call, account, now_us)
            case "POST", "/v1/uploads/images":
                return _upload(call)
            case "GET", "/v1/balance" | "/balance" | "/v1/user/balance" | "/user/balance":
                return json_reply(200, self._balance(account, now_us, has_credit=has_credit))
            case "GET", path if path.startswith(_PATH + "/"):
                job = self._find(path.removeprefix(_PATH + "/"), account, now_us)
                return _error(404, "Task not found", "not_found_error") if job is None else self._status(job, now_us)
            case method, path:
                return _error(404, f"Invalid URL ({method} {path})", "invalid_request_error")

    def state(self, job: Job, now_us: int) -> JobState:
        return state_of(job, now_us, failures=_ERRORS)

    def charged(self, job: Job, now_us: int) -> int:
        """Charged when the image is there: what was deducted before comes back for a failed task (assumed)."""
        return charge_on_success(job, self.state(job, now_us))

    def webhook(self, job: Job, now_us: int) -> Webhook:
        """The event of the end, signed over id, time and body when the key has a secret."""
        state = "completed" if self.state(job, now_us) == "succeeded" else "failed"
        event = f"evt_{job.id.removeprefix('img_')[:24]}"
        data = {"task_id": job.id, "task_type": "image", "model": job.model, "status": state}
        body = msgspec.json.encode({"id": event, "type": f"generation.{state}", "data": data})
        stamp = str(now_us // 1_000_000)
        headers = {
            "content-type": "application/json",
            "x-toapis-webhook-id": event,
            "x-toapis-webhook-timestamp": stamp,
        }
        if self._settings.webhook_key:
            signed = f"{event}.{stamp}.".encode() + body
            mac = hmac.digest(self._settings.webhook_key.encode(), signed, "sha256").hex()
            headers["x-toapis-webhook-signature"] = f"v1={mac}"
        return Webhook(self.name, job.id, job.callback_url, headers, body)

    # --- the calls ----------------------------------------------------------------------------------------

    def _create(self, call: Call, account: str, now_us: int, *, has_credit: bool, locked: bool) -> Reply:
        try:
            asked = validate(call, callback_origin=self._callback_origin)
        except Invalid as exc:
            return _error(400, str(exc), "invalid_request")
        if locked:
            return _error(403, f"This token has no access to model {asked.model}", "permission_error")
        if not has_credit:
            return _error(402, "Insufficient balance", "insufficient_quota")
        admission = admit(self._settings, self.name, now_us)
        job = job_of(
            self._settings,
            asked,
            admission,
            account=account,
            job_id="img_" + admission.entropy.hex()[:32],
            wire=call.body.decode(),
            price_microusd=MODELS[asked.model].prices[asked.resolution],
        )
        self._settings.jobs.add(job)
        return self._status(job, job.created_us)

    def _many(self, call: Call, account: str, now_us: int) -> Reply:
        body = json_object(call.body) or {}
        asked = body.get("task_ids")
        if not isinstance(asked, list) or not 0 < len(asked) <= _MAX_BATCH:
            return _error(400, f"task_ids must name 1 to {_MAX_BATCH} tasks", "invalid_request")
        found = [own_job(self._settings, self.name, account, task) for task in asked if isinstance(task, str)]
        data = [self._task(job, now_us) for job in found if job is not None]
        return json_reply(200, {"object": "list", "data": data})

    def _balance(self, account: str, now_us: int, *, has_credit: bool) -> dict[str, object]:
        jobs = jobs_of(self._settings, self.name, account, until_us=now_us)
        used = sum(self.charged(job, now_us) for job in jobs) / _CREDIT_MICROUSD
        left = _OPENING_CREDITS - used if has_credit else 0
        return {
            "success": True,
            "remain_balance": left / 200,
            "used_balance": used / 200,
            "remain_credits": left,
            "used_credits": used,
            "credits_per_usd": 200,
            "unlimited_quota": False,
        }

    # --- what is shown ------------------------------------------------------------------------------------

    def _find(self, wanted: str, account: str, now_us: int) -> Job | None:
        """Find a task by its id, or the newest by the reference it was made with."""
        job = self._settings.jobs.get(self.name, wanted)
        if job is not None or _TASK_ID.fullmatch(wanted) is not None:
            return job if job is not None and job.account == account else None
        jobs = jobs_of(self._settings, self.name, account, until_us=now_us - self._lag_us)
        return next((job for job in jobs if wanted in job.wire and _reference(job) == wanted), None)

    def _status(self, job: Job, now_us: int) -> Reply:
        return json_reply(200, self._task(job, now_us))

    def _task(self, job: Job, now_us: int) -> dict[str, object]:
        state = self.state(job, now_us)
        share = min(1.0, (now_us - job.created_us) / (job.done_us - job.created_us))
        shown: dict[str, object] = {
            "id": job.id,
            "object": "generation.task",
            "model": job.model,
            "status": {"succeeded": "completed", "failed": "failed"}.get(state, _phase(share)),
            "progress": 0 if state == "failed" else round(share * 100),
            "created_at": job.created_us // 1_000_000,
            "metadata": {},
        }
        if reference := _reference(job):
            shown["client_business_id"] = reference
        if state == "succeeded":
            done = job.done_us // 1_000_000
            image = {"url": file_url(self._settings, job)}
            shown |= {"completed_at": done, "expires_at": done + 86_400}
            shown["result"] = {"type": "image", "data": [image]}
        if state == "failed":
            code, text = _ERRORS[job.fate]
            shown["error"] = {"code": code, "message": text}
        return shown


def _phase(share: float) -> str:
    return "queued" if share < _QUEUED_SHARE else "in_progress"


def _reference(job: Job) -> str:
    sent = msgspec.json.decode(job.wire, type=dict[str, object])
    metadata = sent.get("metadata")
    inner = metadata.get("client_business_id") if isinstance(metadata, dict) else None
    return str(sent.get("client_business_id") or inner or "")


def _upload(call: Call) -> Reply:
    file = (read_form(call) or {}).get("file")
    if file is None or not file.file_name:
        return json_reply(400, {"success": False, "message": "file is required"})
    media_type = image_type(file.data)
    if not media_type:
        return json_reply(400, {"success": False, "message": "only jpeg, png, webp and gif images are supported"})
    if len(file.data) > _MAX_FILE_BYTES:
        return json_reply(400, {"success": False, "message": "the image exceeds 10MB"})
    name = file_name(file.data)
    data = {
        "id": name.partition(".")[0],
        "url": f"{call.origin}/uploads/{name}",
        "mime_type": media_type,
        "size": len(file.data),
    }
    return json_reply(200, {"success": True, "message": "uploaded", "data": data})


def _error(status: int, text: str, kind: str) -> Reply:
    """An error as the samples have it: the code is a number, though the table has words."""
    return json_reply(status, {"error": {"code": status, "message": text, "type": kind}})


def _throttled(wait_s: float, category: str) -> Reply:
    reply = _error(429, "Too many requests, please try again later", "rate_limit_error")
    headers = {"retry-after": str(max(1, math.ceil(wait_s))), "x-ratelimit-remaining": "0"}
    return msgspec.structs.replace(reply, headers=reply.headers | headers | {"x-ratelimit-category": category})
