"""Replicate as an emulator: predictions, listing, cancel, account, files, and signed webhooks.

True to the OpenAPI document and strict about it (``replicate_input``), so that a codec that passes here sends
nothing undocumented.  A model called by name shows the version ``hidden``.  A prediction forgets input,
output and logs one hour after its end, and says so.

Of an uploaded file only its digest is kept, in its address.

Not here: deployments, trainings, streaming, the ``previous`` half of the cursor.
"""

import base64
import binascii
import hashlib
import hmac
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import urlencode

import msgspec

from adapters.sandbox.accepting import Admission, admit, job_of, own_job, state_of
from adapters.sandbox.base import Call, Job, JobState, Reply, Webhook
from adapters.sandbox.forms import read_form
from adapters.sandbox.replicate_input import MODELS, Invalid, cancel_after_s, named_version, prefer_wait_s, validate
from adapters.sandbox.wirefmt import (
    EmulatorSettings,
    account_digest,
    file_url,
    is_locked,
    json_object,
    json_reply,
    key_standing,
)

_KEY_SHAPE = re.compile(r"r8_[A-Za-z0-9]{37}")
_PAGE = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_UPLOAD = 100 * 10**6
_UPLOAD_LIFE_US = 3_600_000_000
_START_SHARE = 0.1  # of the latency: how long a prediction is "starting"


_ERRORS = {
    "fail": "Service is currently unavailable due to high demand. Please try again later. (E003)",
    "unreachable": "Failed to download input file: HTTP 404 Not Found",
    "policy": "The input or output was flagged as sensitive. Please try again with different inputs. (E005)",
}


class ReplicateEmulator:
    """One emulated Replicate over a job table.

    Args:
        settings: What every emulator is told.
        listing_lag_s: How late a new prediction appears in the listing.
    """

    name = "replicate"
    result_life_s = 3_600.0

    def __init__(self, settings: EmulatorSettings, *, listing_lag_s: float = 0.0) -> None:
        self._settings = settings
        self._lag_us = round(listing_lag_s * 1_000_000)

    def is_submit(self, call: Call) -> bool:
        return call.method == "POST" and re.fullmatch(r"/v1/(?:models/[^/]+/[^/]+/)?predictions", call.path) is not None

    def refusal(self, kind: Literal["throttled", "broken"]) -> Reply:
        return (
            _throttled(1.0) if kind == "throttled" else _problem(503, "Service unavailable", "Please try again later.")
        )

    def handle(self, call: Call, now_us: int) -> Reply:
        key = _token(call)
        standing = key_standing(key, looks_right=_KEY_SHAPE.fullmatch(key) is not None)
        if standing == "refused":
            passed = "a valid" if key else "an"
            return _problem(401, "Unauthenticated", f"You did not pass {passed} authentication token")
        account = account_digest(key)
        bucket, count = ("create", 600) if self.is_submit(call) else ("other", 3_000)
        wait_s = self._settings.limits.take(f"replicate/{account}/{bucket}", count=count, per_s=60.0, now_us=now_us)
        if wait_s:
            return _throttled(wait_s)
        try:
            if self.is_submit(call):
                return self._create(call, account, now_us, has_credit=standing == "good")
            return self._answer(call, account, now_us)
        except Invalid as exc:
            field, text = exc.args
            found = {"type": "invalid", "field": field, "description": text}
            return _problem(422, "Input validation failed", f"- {field}: {text}\n", invalid_fields=[found])

    def state(self, job: Job, now_us: int) -> JobState:
        if job.fate == "deadline" and now_us >= job.done_us:
            return "cancelled"
        return state_of(job, now_us, failures=_ERRORS)

    def charged(self, job: Job, now_us: int) -> int:
        """Charged on success, and when canceled after the start; failures are not (assumed)."""
        state = self.state(job, now_us)
        ran = job.done_us > job.started_us
        return job.charge_microusd if state == "succeeded" or (state == "cancelled" and ran) else 0

    def webhook(self, job: Job, now_us: int) -> Webhook:
        """The ``completed`` event, signed as Standard Webhooks does: id, time and body are covered."""
        body = msgspec.json.encode(self._prediction(job, now_us, f"{self._settings.files_origin}/{self.name}"))
        message = "msg_" + hashlib.sha256(job.id.encode()).hexdigest()[:24]
        stamp = str(now_us // 1_000_000)
        secret = base64.b64decode(self.webhook_secret(job.account).removeprefix("whsec_"))
        mac = hmac.digest(secret, b".".join((message.encode(), stamp.encode(), body)), hashlib.sha256)
        headers = {
            "content-type": "application/json",
            "webhook-id": message,
            "webhook-timestamp": stamp,
            "webhook-signature": "v1," + base64.b64encode(mac).decode(),
        }
        return Webhook(self.name, job.id, job.callback_url, headers, body)

    # --- the calls ----------------------------------------------------------------------------------------

    def _answer(self, call: Call, account: str, now_us: int) -> Reply:
        parts = call.path.strip("/").split("/")
        match call.method, parts:
            case "GET", ["v1", "account"]:
                name = f"sandbox-{account[:8]}"
                return json_reply(200, {"type": "user", "username": name, "name": "Sandbox", "github_url": None})
            case "GET", ["v1", "webhooks", "default", "secret"]:
                return json_reply(200, {"key": self.webhook_secret(account)})
            case "POST", ["v1", "files"]:
                return _upload(call, now_us)
            case "GET", ["v1", "predictions"]:
                return self._list(call, account, now_us)
            case ("GET", ["v1", "predictions", job_id]) | ("POST", ["v1", "predictions", job_id, "cancel"]):
                job = own_job(self._settings, self.name, account, job_id)
                if job is None:
                    return _not_found()
                if call.method == "POST":
                    self._settings.jobs.cancel(self.name, job.id, now_us)
                    job = self._settings.jobs.get(self.name, job.id) or job
                return json_reply(200, self._prediction(job, now_us, call.origin))
            case _:
                return _not_found()

    def _create(self, call: Call, account: str, now_us: int, *, has_credit: bool) -> Reply:
        body = json_object(call.body)
        if body is None or not call.headers.get("content-type", "").startswith("application/json"):
            return _problem(400, "Bad request", "The request body must be a JSON object")
        by_version = call.path == "/v1/predictions"
        name = named_version(body)[0] if by_version else "/".join(call.path.split("/")[3:5])
        if name not in MODELS:
            return _not_found()
        if is_locked(_token(call)):
            return _problem(403, "Forbidden", f"You do not have permission to run {name}")
        asked = validate(body, name, by_version=by_version)
        hold_s, life_s = prefer_wait_s(call), cancel_after_s(call)
        if not has_credit:
            return _problem(
                402,
                "Insufficient credit",
                "You have insufficient credit to run this model. Go to"
                " https://replicate.com/account/billing#billing to purchase credit.",
            )
        admission = admit(self._settings, self.name, now_us, queue_s=self._settings.latency_s * _START_SHARE)
        job = job_of(
            self._settings,
            asked,
            _until(admission, life_s),
            account=account,
            job_id=base64.b32encode(admission.entropy).decode()[:26].lower(),
            wire=call.body.decode(),
            price_microusd=MODELS[name].prices[asked.resolution],
        )
        self._settings.jobs.add(job)
        if hold_s is None:
            return json_reply(201, self._prediction(job, job.created_us, call.origin))
        return self._held(job, now_us, hold_s, call.origin)

    def _held(self, job: Job, now_us: int, hold_s: float, origin: str) -> Reply:
        """Answer a ``Prefer: wait``: with what there is when the job ends or the wait runs out.

        As the real API (the SDK relies on both): "processing" with its output when done, "starting" when not.
        """
        until_us = now_us + round(hold_s * 1_000_000)
        if job.done_us <= until_us:
            shown = self._prediction(job, job.done_us, origin)
            if shown["status"] == "succeeded":
                shown["status"] = "processing"
            reply, wait_us = json_reply(201, shown), job.done_us - now_us
        else:
            reply, wait_us = json_reply(202, self._prediction(job, job.created_us, origin)), until_us - now_us
        return msgspec.structs.replace(reply, delay_s=wait_us / 1_000_000)

    def _list(self, call: Call, account: str, now_us: int) -> Reply:
        query = call.query
        known = {"created_after", "created_before", "cursor", "source"}
        if not query.keys() <= known:
            raise Invalid("query", "only created_after, created_before, cursor and source are known")
        after_us = _time(query, "created_after", 0)
        before_us = _time(query, "created_before", now_us + 1)
        size = self._settings.small_page or _PAGE
        jobs = self._settings.jobs.list(
            self.name,
            account,
            since_us=after_us + 1,
            until_us=min(before_us - 1, now_us - self._lag_us),
            limit=0 if query.get("source") == "web" else size + 1,
            before_us=_position(query["cursor"]) if "cursor" in query else None,
        )
        page, more = jobs[:size], jobs[size:]
        following = None
        if more:
            kept = {field: query[field] for field in sorted(known & query.keys())}
            following = f"{call.origin}/v1/predictions?" + urlencode(kept | {"cursor": _cursor(page[-1].created_us)})
        results = [self._prediction(job, now_us, call.origin) for job in page]
        return json_reply(200, {"previous": None, "next": following, "results": results})

    # --- what is shown ------------------------------------------------------------------------------------

    def _prediction(self, job: Job, now_us: int, origin: str) -> dict[str, object]:
        state = self.state(job, now_us)
        started = job.started_us <= now_us and job.started_us < job.done_us
        removed = state != "running" and now_us >= job.done_us + round(self.result_life_s * 1_000_000)
        sent = msgspec.json.decode(job.wire, type=dict[str, object])
        url = f"{origin}/v1/predictions/{job.id}"
        shown: dict[str, object] = {
            "id": job.id,
            "model": job.model,
            "version": named_version(sent)[1] if "version" in sent else "hidden",
            "status": _status(job, state, started=started),
            "input": {} if removed else sent["input"],
            "output": file_url(self._settings, job) if state == "succeeded" and not removed else None,
            "error": _ERRORS[job.fate] if state == "failed" else None,
            "logs": None if removed else "",
            "data_removed": removed,
            "created_at": _iso(job.created_us),
            "source": "api",
            "urls": {"web": f"https://replicate.com/p/{job.id}", "get": url, "cancel": url + "/cancel"},
        }
        if started:
            shown["started_at"] = _iso(job.started_us)
        if state != "running":
            shown["completed_at"] = _iso(job.done_us)
        if state != "running" and started:
            run_s, total_s = (job.done_us - job.started_us) / 1e6, (job.done_us - job.created_us) / 1e6
            shown["metrics"] = {"predict_time": run_s, "total_time": total_s}
        return shown

    def webhook_secret(self, account: str) -> str:
        """One signing secret per account, as ``webhooks.default.secret`` tells it; the sandbox's own key, where that
        has the form of one."""
        if self._settings.webhook_key.startswith("whsec_"):
            return self._settings.webhook_key
        raw = hashlib.sha256(f"replicate webhooks/{self._settings.webhook_key}/{account}".encode()).digest()
        return "whsec_" + base64.b64encode(raw[:24]).decode()


def _status(job: Job, state: JobState, *, started: bool) -> str:
    match state:
        case "running":
            return "processing" if started else "starting"
        case "cancelled" if not job.cancelled_us and not started:
            return "aborted"
        case "cancelled":
            return "canceled"
        case _:
            return state


def _until(admission: Admission, life_s: float | None) -> Admission:
    """``Cancel-After`` may end a job before its time."""
    if life_s is None or admission.created_us + round(life_s * 1_000_000) >= admission.done_us:
        return admission
    deadline_us = admission.created_us + round(life_s * 1_000_000)
    return msgspec.structs.replace(admission, done_us=deadline_us, fate="deadline")


# --- reading the call ---


def _token(call: Call) -> str:
    """Take the key; older documents write ``Token`` where newer ones write ``Bearer``."""
    scheme, _, key = call.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() in ("bearer", "token") else ""


def _time(query: Mapping[str, str], field: str, default: int) -> int:
    if field not in query:
        return default
    try:
        moment = datetime.fromisoformat(query[field])
    except ValueError:
        raise Invalid(field, "must be an ISO 8601 date and time") from None
    if moment.tzinfo is None:
        raise Invalid(field, "must name its time zone")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _cursor(created_us: int) -> str:
    return base64.urlsafe_b64encode(b"p=%d" % created_us).decode()


def _position(cursor: str) -> int:
    try:
        found = re.fullmatch(rb"p=(\d{1,18})", base64.urlsafe_b64decode(cursor.encode()))
    except (binascii.Error, ValueError):
        found = None
    if found is None:
        raise Invalid("cursor", "Invalid cursor")
    return int(found[1])


# --- answering ----------------------------------------------------------------------------------------------


def _iso(at_us: int) -> str:
    return (_EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _upload(call: Call, now_us: int) -> Reply:
    parts = read_form(call)
    content = parts.get("content") if parts is not None else None
    if content is None:
        raise Invalid("content", "Missing content")
    if len(content.data) > _MAX_UPLOAD:
        return _problem(413, "Content too large", "The file is larger than 100 MB")
    digest = hashlib.sha256(content.data).hexdigest()
    shown = {
        "id": digest[:32],
        "name": content.file_name,
        "content_type": content.media_type or "application/octet-stream",
        "size": len(content.data),
        "etag": digest[:32],
        "checksums": {"sha256": digest},
        "metadata": {},
        "created_at": _iso(now_us),
        "expires_at": _iso(now_us + _UPLOAD_LIFE_US),
        "urls": {"get": f"{call.origin}/v1/files/{digest[:32]}"},
    }
    return json_reply(201, shown)


def _problem(status: int, title: str, detail: str, **more: object) -> Reply:
    """An error as RFC 7807 has it, less the media type."""
    return json_reply(status, {"title": title, "detail": detail, "status": status, **more})


def _not_found() -> Reply:
    return _problem(404, "Not found", "The requested resource could not be found.")


def _throttled(wait_s: float) -> Reply:
    seconds = max(1, math.ceil(wait_s))
    return json_reply(429, {"detail": f"Request was throttled. Your rate limit resets in ~{seconds}s."})
