"""ApiPass as an emulator: createTask, recordInfo and unsigned callbacks, as public clients have seen them.

A createTask is checked by ``jobapi``, which is stricter than the real thing: that one ignores unknown parameters.
Errors come with the HTTP status of their code.  Where clients have seen two spellings, jobs take turns: a failure is
``fail`` or ``failed``, ``resultJson`` an object or JSON in a string.  There is no call for the balance.
"""

import re
from typing import Literal

import msgspec

from adapters.sandbox import jobapi
from adapters.sandbox.accepting import charge_on_success, own_job, state_of
from adapters.sandbox.base import Call, Job, JobState, Reply, Webhook
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

_KEY_SHAPE = re.compile(r"apk_[A-Za-z0-9_-]{16,}")
_MODELS = {
    "google/nano-banana": Model(max_prompt=5_000, prices={"1K": 39_000}, aspects=ASPECTS[:-1]),
    "google/nano-banana-2": Model(
        max_prompt=20_000,
        prices={"1K": 45_500, "2K": 68_200, "4K": 100_000},
        references="image_input",
        max_references=14,
        aspects=(*ASPECTS, "1:4", "1:8", "4:1", "8:1"),
        default_aspect="auto",
        formats=("jpg", "png"),
        default_format="jpg",
        resolution=True,
        flags=("google_search", "image_search"),
    ),
    "google/nano-banana-pro": Model(
        max_prompt=10_000,
        prices={"1K": 134_000, "2K": 134_000, "4K": 240_000},  # Google's own: nobody names ApiPass' price
        references="image_input",
        max_references=8,
        formats=("jpg", "png"),
        resolution=True,
    ),
}
_FAILURES = {
    "fail": ("501", "Internal Error, Please try again later."),
    "policy": ("400", "The content was flagged as violating the content policy."),
    "unreachable": ("400", "Image fetch failed. Check that the reference images are publicly accessible."),
}


class ApiPassEmulator:
    """One emulated ApiPass over a job table."""

    name = "apipass"
    result_life_s = 86_400.0

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings

    def is_submit(self, call: Call) -> bool:
        return call.method == "POST" and call.path == jobapi.CREATE

    def refusal(self, kind: Literal["throttled", "broken"]) -> Reply:
        if kind == "throttled":
            return _envelope(429, "Too many requests, please try again later")
        return _envelope(500, "Internal server error")

    def handle(self, call: Call, now_us: int) -> Reply:
        if not call.headers.get("user-agent", "").startswith("Mozilla/"):
            return Reply(403, {"content-type": "text/plain"}, b"error code: 1010")
        key = bearer(call.headers)
        standing = key_standing(key, looks_right=_KEY_SHAPE.fullmatch(key) is not None)
        if standing == "refused":
            return _envelope(401, "Unauthorized: invalid API key")
        account = account_digest(key)
        match call.method, call.path:
            case "POST", jobapi.CREATE:
                return self._create(call, account, now_us, has_credit=standing == "good")
            case "GET", jobapi.RECORD:
                return self._record_info(call, account, now_us)
            case _:
                return _envelope(404, "Not Found")

    def state(self, job: Job, now_us: int) -> JobState:
        return state_of(job, now_us, failures=_FAILURES)

    def charged(self, job: Job, now_us: int) -> int:
        """Charged when the image is there (assumed: nobody tells whether failed tasks are refunded)."""
        return charge_on_success(job, self.state(job, now_us))

    def webhook(self, job: Job, now_us: int) -> Webhook:
        """The envelope of recordInfo.  Nothing is signed."""
        body = {"code": 200, "message": "success", "data": self._record(job, now_us)}
        headers = {"content-type": "application/json"}
        return Webhook(self.name, job.id, job.callback_url, headers, msgspec.json.encode(body))

    # --- the two calls ------------------------------------------------------------------------------------

    def _create(self, call: Call, account: str, now_us: int, *, has_credit: bool) -> Reply:
        try:
            asked = jobapi.validate(call, _MODELS)
        except jobapi.Invalid as exc:
            return _envelope(422, str(exc))
        if is_locked(bearer(call.headers)):
            return _envelope(505, f"The model {asked.model} is not enabled for this key")
        if self._settings.limits.take(f"apipass/{account}/create", count=20, per_s=10.0, now_us=now_us):
            return self.refusal("throttled")
        if not has_credit:
            return _envelope(402, "Insufficient balance, please top up")
        price = _MODELS[asked.model].prices[asked.resolution]
        job = jobapi.create(self._settings, self.name, account, call, asked, price=price, now_us=now_us)
        return _envelope(200, "success", {"taskId": job.id})

    def _record_info(self, call: Call, account: str, now_us: int) -> Reply:
        if self._settings.limits.take(f"apipass/{account}/query", count=10, per_s=1.0, now_us=now_us):
            return self.refusal("throttled")
        job = own_job(self._settings, self.name, account, call.query.get("taskId", ""))
        if job is None or now_us < jobapi.shown_after_us(self._settings, job):
            return _envelope(404, "Task not found")
        return _envelope(200, "success", self._record(job, now_us))

    def _record(self, job: Job, now_us: int) -> dict[str, object]:
        """``data`` of recordInfo and of callbacks."""
        state = self.state(job, now_us)
        code, text = _FAILURES.get(job.fate, ("", "")) if state == "failed" else ("", "")
        odd = int(job.id[-1], 16) % 2 == 1
        shown = jobapi.record(job, now_us, state, fail_word="fail" if odd else "failed", code=code, text=text)
        if state == "succeeded":
            result = {"resultUrls": [file_url(self._settings, job)]}
            shown["resultJson"] = msgspec.json.encode(result).decode() if odd else result
        return shown


def _envelope(code: int, text: str, data: object = None) -> Reply:
    return json_reply(code, {"code": code, "message": text, "data": data})
