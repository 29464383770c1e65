"""Apertis as an emulator: the image call, the chat call with images, the token's usage, the list of models.

Quirks kept: requests without the looks of a browser or of a known client are turned away at the door, keys are
spelled two ways and travel in two headers, and the image of a chat answer stands where it likes: by turns beside
the words and in them.

Not here: other models than Gemini's, streams, edits by multipart, video.
"""

import base64
import re
from typing import Literal

import msgspec

from adapters.sandbox.accepting import admit, charge_on_success, held_s, job_of, jobs_of, state_of
from adapters.sandbox.apertis_input import PRICES, Wanted, chat, image
from adapters.sandbox.base import Call, Job, JobState, Reply
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

_KEY_SHAPE = re.compile(r"sk-(sub[-_])?[A-Za-z0-9]{16,64}")
_DOOR = re.compile(r"mozilla|openai|curl", re.IGNORECASE)
_OPENING_MICROUSD = 1_000_000_000
_SUBMITS = {"/v1/images/generations": image, "/v1/chat/completions": chat}
_FATES = {
    "fail": Turned(502, "The upstream provider did not answer", kind="upstream_error", code="upstream_error"),
    "policy": Turned(
        400, "The prompt violates the content policy", kind="content_policy_error", code="content_policy_violation"
    ),
}


class ApertisEmulator:
    """One emulated Apertis over a job table."""

    name = "apertis"
    result_life_s = 3600.0

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings

    def is_submit(self, call: Call) -> bool:
        return call.method == "POST" and call.path in _SUBMITS

    def refusal(self, kind: Literal["throttled", "broken"]) -> Reply:
        return _too_fast(1.0) if kind == "throttled" else error(_FATES["fail"])

    def handle(self, call: Call, now_us: int) -> Reply:
        if _DOOR.search(call.headers.get("user-agent", "")) is None:
            return Reply(403, {"content-type": "text/plain"}, b"error code: 1010")
        key = bearer(call.headers) or call.headers.get("x-api-key", "")
        standing = key_standing(key, looks_right=_KEY_SHAPE.fullmatch(key) is not None)
        try:
            if standing == "refused":
                code = "invalid_api_key" if key else "missing_api_key"
                raise Turned(401, "The API key is missing or invalid", kind="authentication_error", code=code)
            wait_s = self._settings.limits.take(
                f"apertis/{account_digest(key)}", count=1500, per_s=180.0, now_us=now_us
            )
            if wait_s:
                return _too_fast(wait_s, now_us)
            return self._route(call, key, now_us, has_credit=standing == "good")
        except Turned as turned:
            return error(turned)

    def state(self, job: Job, now_us: int) -> JobState:
        return state_of(job, now_us, failures=_FATES)

    def charged(self, job: Job, now_us: int) -> int:
        """What came out is charged, whether or not its answer arrived."""
        return charge_on_success(job, self.state(job, now_us))

    def embed(self, reply: Reply, picture: bytes) -> Reply:
        told = msgspec.json.decode(reply.body, type=dict[str, object])
        if "data" in told:
            return with_image(reply, picture)
        uri = b"data:image/png;base64," + base64.b64encode(picture)
        return msgspec.structs.replace(reply, body=reply.body.replace(_HOLE.encode(), uri))

    # --- routes -------------------------------------------------------------------------------------------

    def _route(self, call: Call, key: str, now_us: int, *, has_credit: bool) -> Reply:
        match (call.method, call.path):
            case ("GET", "/v1/token/usage"):
                return self._usage(account_digest(key), now_us, has_credit=has_credit)
            case ("GET", "/v1/models"):
                models = [{"id": model, "object": "model", "owned_by": "google"} for model in PRICES]
                return json_reply(200, {"object": "list", "data": models})
            case ("POST", path) if path in _SUBMITS:
                return self._submit(call, key, now_us, has_credit=has_credit)
            case _:
                raise Turned(404, "No such endpoint", kind="invalid_request_error", code="endpoint_not_found")

    def _submit(self, call: Call, key: str, now_us: int, *, has_credit: bool) -> Reply:
        unreadable = Turned(400, "The body must be JSON", kind="invalid_request_error", code="invalid_request")
        body = read_body(call, unreadable)
        wanted = _SUBMITS[call.path](body)
        if is_locked(key):
            raise Turned(403, "The key may not use this model", kind="permission_error", code="model_access_denied")
        if not has_credit:
            raise Turned(402, "The balance is too low", kind="billing_error", code="insufficient_balance")
        admission = admit(self._settings, self.name, now_us)
        job = job_of(
            self._settings,
            wanted.asked,
            admission,
            account=account_digest(key),
            job_id=f"req-{admission.entropy[:16].hex()}",
            wire=wire_text(body),
            price_microusd=PRICES[wanted.asked.model][wanted.asked.resolution],
        )
        self._settings.jobs.add(job)
        return msgspec.structs.replace(self._result(job, wanted), delay_s=held_s(job, now_us))

    def _result(self, job: Job, wanted: Wanted) -> Reply:
        if job.fate in _FATES:
            return error(_FATES[job.fate])
        usage = {"total_tokens": 1290, "input_tokens": 10, "output_tokens": 1280}
        created = job.done_us // 1_000_000
        if wanted.form == "chat":
            reply = json_reply(200, _chat_answer(job, created))
        elif wanted.form == "url":
            data = [{"url": file_url(self._settings, job)}]
            return json_reply(200, {"created": created, "data": data, "usage": usage})
        else:
            reply = json_reply(200, {"created": created, "data": [{"b64_json": ""}], "usage": usage})
        return msgspec.structs.replace(reply, draws=job.id)

    def _usage(self, account: str, now_us: int, *, has_credit: bool) -> Reply:
        jobs = jobs_of(self._settings, self.name, account, until_us=now_us)
        used = sum(self.charged(job, now_us) for job in jobs)
        total = _OPENING_MICROUSD if has_credit else used
        told = {
            "token_name": f"sandbox-{account[:8]}",
            "total_quota_usd": total / 1e6,
            "total_tokens": 1290 * len(jobs),
            "total_requests": len(jobs),
            "remain_quota_usd": max(0, total - used) / 1e6,
            "used_quota_usd": used / 1e6,
        }
        return json_reply(200, {"success": True, "data": told})


_HOLE = "{the picture}"


def _chat_answer(job: Job, created: int) -> dict[str, object]:
    """The answer with a hole for the picture: beside the words for every other job, as Markdown for the rest."""
    beside = int(job.id[-1], 16) % 2 == 0
    message: dict[str, object] = {"role": "assistant", "content": "Here it is." if beside else f"![image]({_HOLE})"}
    if beside:
        message["images"] = [{"type": "image_url", "image_url": {"url": _HOLE}}]
    return {
        "id": f"chatcmpl-{job.id}",
        "object": "chat.completion",
        "created": created,
        "model": job.model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 1280, "total_tokens": 1290},
    }


def _too_fast(wait_s: float, now_us: int = 0) -> Reply:
    """Tell the wait in seconds, and the time of its end where the time is known."""
    seconds = max(1, round(wait_s))
    headers = {"retry-after": str(seconds), "x-ratelimit-limit": "1500", "x-ratelimit-remaining": "0"}
    if now_us:
        headers["x-ratelimit-reset"] = str(now_us // 1_000_000 + seconds)
    turned = Turned(429, "Too many requests", kind="rate_limit_error", code="rate_limit_exceeded")
    return error(turned, headers)
