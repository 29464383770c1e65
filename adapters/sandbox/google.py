"""Google's Gemini API as an emulator: ``generateContent``, files, batches, models, under ``v1`` and ``v1beta``.

Two providers of bydawn share it, each under its own prefix and with its own bill: the plain call and the Batch API.
Quirks kept: a wrong key is a 400, blocked images are a 200 without a picture, creating a batch twice makes two, states
are called ``BATCH_STATE_...``, and a batch that is not done after 48 hours has no results at all.

The parts that are files and batches live in :mod:`adapters.sandbox.google_batches`.

Not here: webhooks (they tell of batches, not of images), tuned models, other outputs than images, streaming.
"""

import base64
import re
from typing import Literal

import msgspec

from adapters.sandbox.accepting import admit, billed, held_s, job_of, state_of
from adapters.sandbox.base import Call, Job, JobState, Reply
from adapters.sandbox.google_batches import Batches, expires_us, is_line
from adapters.sandbox.google_files import Files
from adapters.sandbox.google_input import MODELS, Refused, invalid, plain, price, usage, validate
from adapters.sandbox.wirefmt import EmulatorSettings, account_digest, is_locked, json_object, json_reply, key_standing

_KEY_SHAPE = re.compile(r"AIza[0-9A-Za-z_-]{35}")
_VERSION = re.compile(r"/(?:(upload|download)/)?(v1|v1beta)/(.+)")
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_ENDINGS = {"fail": "NO_IMAGE", "policy": "IMAGE_SAFETY"}
# A draft, as the models that think in pictures send it before the image: one grey pixel.
_DRAFT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="  # 1x1 PNG
_THINKS = "gemini-3-pro-image"
_HTML_404 = b"<!DOCTYPE html>\n<title>Error 404 (Not Found)!!1</title>\n"


class GoogleEmulator:
    """One emulated Google over a job table.

    Args:
        settings: What every emulator is told.
        listing_lag_s: How late a new batch appears in the list.
        stalled_s: How much longer than the settings' latency a batch takes.
    """

    name = "google"
    result_life_s = 48 * 3_600.0

    def __init__(self, settings: EmulatorSettings, *, listing_lag_s: float = 0.0, stalled_s: float = 0.0) -> None:
        self._settings = settings
        self._files = Files(settings.jobs, self.name)
        self._batches = Batches(
            settings, self.name, self._files, answer=line_answer, listing_lag_s=listing_lag_s, stalled_s=stalled_s
        )

    def is_submit(self, call: Call) -> bool:
        return call.method == "POST" and call.path.endswith((":generateContent", ":batchGenerateContent"))

    def refusal(self, kind: Literal["throttled", "broken"]) -> Reply:
        if kind == "broken":
            return _error(Refused(500, "INTERNAL", "An internal error has occurred. Please retry."))
        return _error(_exhausted(1.0))

    def handle(self, call: Call, now_us: int) -> Reply:
        found = _VERSION.fullmatch(call.path)
        if found is None:
            return Reply(
                404, {"content-type": "text/html; charset=UTF-8"}, b"<!DOCTYPE html>\n<title>Error 404</title>"
            )
        try:
            if found[1] == "upload" and "upload_id" in call.query:  # the address is the permission
                return self._files.receive(call, now_us)
            key = call.headers.get("x-goog-api-key", "") or call.query.get("key", "")
            account = _account(key)
            return self._route(call, found[1] or "", found[3], account, key, now_us)
        except Refused as exc:
            return _error(exc)

    def state(self, job: Job, now_us: int) -> JobState:
        if is_line(job) and not job.cancelled_us and job.done_us > expires_us(job):
            return "failed" if now_us >= expires_us(job) else "running"
        return state_of(job, now_us, failures=_ENDINGS)

    def charged(self, job: Job, now_us: int) -> int:
        """An image costs its tokens, a blocked one those of its prompt; what failed or expired costs nothing."""
        match self.state(job, now_us):
            case "succeeded":
                return job.charge_microusd
            case "failed" if job.fate == "policy" and now_us >= job.done_us:
                return billed(self._settings, price(job, drawn=False, half=is_line(job)))
            case _:
                return 0

    def embed(self, reply: Reply, picture: bytes) -> Reply:
        body = json_object(reply.body) or {}
        return msgspec.structs.replace(reply, body=msgspec.json.encode(body | _pictured(body, picture)), draws="")

    # --- routes -------------------------------------------------------------------------------------------

    def _route(self, call: Call, root: str, path: str, account: str, key: str, now_us: int) -> Reply:
        resource, _, verb = path.partition(":")
        match call.method, resource.split("/"), verb:
            case "POST", ["models", name], "generateContent":
                _check_model(name, key)
                return self._generate(call, name, account, now_us, broke="broke" in key)
            case "POST", ["models", name], "batchGenerateContent":
                _check_model(name, key)
                if "broke" in key:
                    raise _spent()
                self._take(f"batch/{account}", 100, now_us)
                return self._batches.create(call, name, account, now_us)
            case "GET", ["models"], "":
                return json_reply(200, {"models": [_described(name) for name in MODELS]})
            case "GET", ["models", name], "":
                _check_model(name, key)
                return json_reply(200, _described(name))
            case _, ["batches", *rest], _ if not root:
                return self._batches.handle(call, rest, verb, account, now_us)
            case "GET", ["files", name], "download" if call.query.get("alt") == "media":
                return self._batches.download(name, account, now_us)
            case _, ["files", *rest], "":
                return self._files.handle(call, rest, account, now_us, upload=root == "upload")
            case _:
                raise Refused(404, "NOT_FOUND", "Method not found.")

    def _generate(self, call: Call, name: str, account: str, now_us: int, *, broke: bool) -> Reply:
        body = json_object(call.body)
        if body is None:
            raise invalid("Invalid JSON payload received. Unexpected token.")
        asked = validate(plain(body), name, lambda uri: self._files.content(uri, account, now_us))
        if broke:
            raise _spent()
        self._take(f"{name}/{account}", 60, now_us)
        admission = admit(self._settings, self.name, now_us)
        job = job_of(
            self._settings,
            asked,
            admission,
            account=account,
            job_id=base64.urlsafe_b64encode(admission.entropy[:16]).decode().rstrip("="),
            wire="",  # nothing shows it again, and references make it large
            price_microusd=price(asked, drawn=True, half=False),
        )
        self._settings.jobs.add(job)
        draws = job.id if job.fate not in _ENDINGS else ""
        return msgspec.structs.replace(json_reply(200, answer(job)), delay_s=held_s(job, now_us), draws=draws)

    def _take(self, bucket: str, count: int, now_us: int) -> None:
        wait_s = self._settings.limits.take(f"{self.name}/{bucket}", count=count, per_s=60.0, now_us=now_us)
        if wait_s:
            raise _exhausted(wait_s)


class GoogleBatchEmulator(GoogleEmulator):
    """The same Google under a prefix of its own, for the account that buys in batches."""

    name = "google-batch"


# --- answering ----------------------------------------------------------------------------------------------


def answer(job: Job) -> dict[str, object]:
    """What ``generateContent`` says of a job; the picture is still missing."""
    ending = _ENDINGS.get(job.fate, "STOP")
    candidate: dict[str, object] = {"finishReason": ending, "index": 0}
    if ending != "STOP":
        candidate["finishMessage"] = "Unable to show the generated image."
    return {
        "candidates": [candidate],
        "usageMetadata": usage(job, drawn=ending == "STOP") if ending != "NO_IMAGE" else {},
        "modelVersion": job.model,
        "responseId": job.id.replace(".", "-"),
    }


def line_answer(job: Job, picture: bytes | None) -> dict[str, object]:
    """What a batch says of one of its lines."""
    if job.fate == "fail":
        return {"error": {"code": 13, "message": "An internal error has occurred. Please retry."}}
    said = answer(job)
    return {"response": said if picture is None else said | _pictured(said, picture)}


def _pictured(said: dict[str, object], picture: bytes) -> dict[str, object]:
    parts: list[dict[str, object]] = [
        {"inlineData": {"mimeType": "image/jpeg", "data": base64.b64encode(picture).decode()}}
    ]
    if said.get("modelVersion") == _THINKS:
        parts.insert(0, {"inlineData": {"mimeType": "image/png", "data": _DRAFT}, "thought": True})
    candidates = said["candidates"]
    assert isinstance(candidates, list)
    return {"candidates": [{"content": {"parts": parts, "role": "model"}, **candidates[0]}]}


def _account(key: str) -> str:
    if not key:
        text = "Method doesn't allow unregistered callers (callers without established identity)."
        raise Refused(403, "PERMISSION_DENIED", text)
    if key_standing(key, looks_right=_KEY_SHAPE.fullmatch(key) is not None) == "refused":
        detail = {"@type": _ERROR_INFO, "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
        raise Refused(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", detail)
    return account_digest(key)


def _check_model(name: str, key: str) -> None:
    if name not in MODELS:
        text = f"models/{name} is not found for API version v1beta, or is not supported for generateContent."
        raise Refused(404, "NOT_FOUND", text)
    if is_locked(key):
        raise Refused(403, "PERMISSION_DENIED", "The caller does not have permission to use this model.")


def _described(name: str) -> dict[str, object]:
    methods = ["generateContent", "batchGenerateContent"]
    return {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods}


def _exhausted(wait_s: float) -> Refused:
    retry = {"@type": _RETRY_INFO, "retryDelay": f"{wait_s:.3f}s"}
    text = "You exceeded your current quota, please check your plan and billing details."
    return Refused(429, "RESOURCE_EXHAUSTED", text, retry)


def _spent() -> Refused:
    return Refused(429, "RESOURCE_EXHAUSTED", "Your project has exceeded its monthly spending cap.")


def _error(refused: Refused) -> Reply:
    error: dict[str, object] = {"code": refused.code, "message": refused.message, "status": refused.status}
    if refused.details:
        error["details"] = list(refused.details)
    return json_reply(refused.code, {"error": error})
