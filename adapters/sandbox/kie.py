"""Kie as an emulator: createTask, recordInfo, credit, uploads, and callbacks, true to the documented wire format.

Uploads have a host of their own at Kie; here they are under the same prefix.

A createTask is checked by ``jobapi``, which is stricter than the real thing.  Envelope errors arrive inside HTTP 200
except 429 and 500, which are sent with the same HTTP status: both ways are seen in the wild and codecs must read both.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from adapters.reading import from_us
from adapters.sandbox import jobapi
from adapters.sandbox.accepting import charge_on_success, jobs_of, own_job, state_of
from adapters.sandbox.base import Call, Job, JobState, Reply, Webhook
from adapters.sandbox.forms import file_name, image_type, read_form
from adapters.sandbox.jobapi import ASPECTS, Model
from adapters.sandbox.wirefmt import (
    EmulatorSettings,
    account_digest,
    bearer,
    file_url,
    is_locked,
    json_reply,
    key_standing,
)

_CREDIT_MICROUSD = 5_000
_OPENING_CREDITS = 1_000_000
_KEY_SHAPE = re.compile(r"[0-9a-f]{32}")


def _credits(prices: Mapping[str, int]) -> dict[str, int]:
    return {resolution: price * _CREDIT_MICROUSD for resolution, price in prices.items()}


_MODELS = {
    "google/nano-banana": Model(max_prompt=5_000, prices=_credits({"1K": 4}), flags=("nsfw_checker",)),
    "google/nano-banana-edit": Model(
        max_prompt=5_000, prices=_credits({"1K": 4}), references="image_urls", max_references=10, needs_references=True
    ),
    "nano-banana-2": Model(
        max_prompt=20_000,
        prices=_credits({"1K": 8, "2K": 12, "4K": 18}),
        references="image_input",
        max_references=14,
        aspects=(*ASPECTS, "1:4", "1:8", "4:1", "8:1"),
        default_aspect="auto",
        formats=("jpg", "png"),
        default_format="jpg",
        resolution=True,
        flags=("google_search",),
    ),
    "nano-banana-pro": Model(
        max_prompt=10_000,
        prices=_credits({"1K": 18, "2K": 18, "4K": 24}),
        references="image_input",
        max_references=8,
        formats=("jpg", "png"),
        resolution=True,
    ),
    "nano-banana-2-lite": Model(
        max_prompt=20_000,
        prices=_credits({"1K": 4}),
        references="image_urls",
        max_references=10,
        aspects=(*ASPECTS, "1:4", "1:8", "4:1", "8:1"),
        default_aspect="",
        formats=(),
        default_format="jpg",
    ),
}


class KieEmulator:
    """One emulated Kie over a job table."""

    name = "kie"
    result_life_s = 86_400.0

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings

    def is_submit(self, call: Call) -> bool:
        return call.method == "POST" and call.path == jobapi.CREATE

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
            case "POST", jobapi.CREATE:
                return self._create(call, account, now_us, has_credit=has_credit)
            case "GET", jobapi.RECORD:
                return self._record_info(call, account, now_us)
            case "POST", "/api/file-stream-upload":
                return _upload(call, now_us)
            case "GET", "/api/v1/chat/credit":
                balance = self._balance(account, now_us) if has_credit else 0
                return _envelope(200, "success", balance)
            case _:
                return _envelope(404, "Not Found", status=404)

    def state(self, job: Job, now_us: int) -> JobState:
        return state_of(job, now_us, failures=_OUTCOMES)

    def charged(self, job: Job, now_us: int) -> int:
        """Charged when the image is there; failed tasks are not (assumed: the refund is documented nowhere)."""
        return charge_on_success(job, self.state(job, now_us))

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

    # --- the calls ----------------------------------------------------------------------------------------

    def _create(self, call: Call, account: str, now_us: int, *, has_credit: bool) -> Reply:
        try:
            asked = jobapi.validate(call, _MODELS)
        except jobapi.Invalid as exc:
            return _envelope(422, str(exc))
        if is_locked(bearer(call.headers)):
            return _envelope(505, "The requested feature is currently disabled")
        if self._settings.limits.take(f"kie/{account}/create", count=20, per_s=10.0, now_us=now_us):
            return self.refusal("throttled")
        if not has_credit:
            return _envelope(402, "Credits insufficient: the current balance is not enough to run this request")
        price = _MODELS[asked.model].prices[asked.resolution]
        job = jobapi.create(self._settings, self.name, account, call, asked, price=price, now_us=now_us)
        return _envelope(200, "success", {"taskId": job.id})

    def _record_info(self, call: Call, account: str, now_us: int) -> Reply:
        if self._settings.limits.take(f"kie/{account}/query", count=10, per_s=1.0, now_us=now_us):
            return self.refusal("throttled")
        job = own_job(self._settings, self.name, account, call.query.get("taskId", ""))
        if job is None or now_us < jobapi.shown_after_us(self._settings, job):
            return _envelope(422, "recordInfo is null")
        if self.state(job, now_us) == "failed" and job.fate == "fail":
            return _envelope(501, "Generation Failed", self._record(job, now_us))
        return _envelope(200, "success", self._record(job, now_us))

    def _balance(self, account: str, now_us: int) -> int:
        jobs = jobs_of(self._settings, self.name, account, until_us=now_us)
        spent = sum(self.charged(job, now_us) for job in jobs)
        return _OPENING_CREDITS - spent // _CREDIT_MICROUSD

    def _record(self, job: Job, now_us: int) -> dict[str, object]:
        """``data`` of recordInfo and of callbacks."""
        state = self.state(job, now_us)
        ended = state != "running"
        code, text = _OUTCOMES.get(job.fate, (0, "")) if ended else (0, "")
        shown = jobapi.record(job, now_us, state, fail_word="fail", code=str(code or ""), text=text)
        if state == "succeeded":
            shown["resultJson"] = msgspec.json.encode({"resultUrls": [file_url(self._settings, job)]}).decode()
        return shown | {"creditsConsumed": self.charged(job, now_us) // _CREDIT_MICROUSD if ended else None}


_OUTCOMES = {
    "fail": (501, "Internal Error, Please try again later."),
    "policy": (400, "The content was flagged as violating the content policy."),
    "unreachable": (400, "Image fetch failed. Check access settings or use our File Upload API instead."),
}


def _upload(call: Call, now_us: int) -> Reply:
    """Take a file.  This host says failures in HTTP 200 too, and has a ``success`` of its own."""
    parts = read_form(call) or {}
    file, folder, name = parts.get("file"), parts.get("uploadPath"), parts.get("fileName")
    if file is None or not file.file_name or folder is None:
        return json_reply(200, {"success": False, "code": 400, "msg": "file and uploadPath are required"})
    stored = file_name(file.data)
    data = {
        "fileName": name.data.decode(errors="replace") if name is not None else stored,
        "filePath": f"{folder.data.decode(errors='replace')}/{stored}",
        "downloadUrl": f"{call.origin}/uploads/{stored}",
        "fileSize": len(file.data),
        "mimeType": image_type(file.data) or file.media_type,
        "uploadedAt": from_us(now_us).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    }
    return json_reply(200, {"success": True, "code": 200, "msg": "File uploaded successfully", "data": data})


def _envelope(code: int, text: str, data: object = None, *, status: int = 200) -> Reply:
    return json_reply(status, {"code": code, "msg": text, "data": data})
