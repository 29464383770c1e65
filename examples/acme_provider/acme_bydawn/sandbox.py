"""Acme as an emulator: strict about what is documented, with jobs and a bill of its own."""

from typing import Literal

import msgspec

from adapters.sandbox.accepting import Asked, admit, charge_on_success, job_of, jobs_of, own_job, state_of
from adapters.sandbox.base import Call, Job, JobState, Reply
from adapters.sandbox.wirefmt import (
    EmulatorSettings,
    account_digest,
    bearer,
    file_url,
    is_locked,
    json_reply,
    key_standing,
)

_PRICES = {"1K": 30_000, "2K": 45_000}
_RATIOS = ("1:1", "3:4", "4:3", "9:16", "16:9")
_FATES = {"fail": "provider", "policy": "policy", "unreachable": "cannot fetch an image"}


class _Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The documented body of a creation; every field is required."""

    model: Literal["banana-2"]
    prompt: str
    ratio: str
    size: str
    format: Literal["jpg", "png"]
    images: tuple[str, ...]
    reference: str


class AcmeEmulator:
    """One emulated Acme over a job table."""

    name = "acme"
    result_life_s = 86_400.0

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings

    def is_submit(self, call: Call) -> bool:
        return (call.method, call.path) == ("POST", "/v1/images")

    def refusal(self, kind: Literal["throttled", "broken"]) -> Reply:
        if kind == "throttled":
            return json_reply(429, {"error": "too_fast", "message": "slow down"}, {"retry-after": "1"})
        return json_reply(500, {"error": "internal", "message": "try again"})

    def handle(self, call: Call, now_us: int) -> Reply:
        key = bearer(call.headers)
        standing = key_standing(key, looks_right=key.startswith("acme_"))
        if standing == "refused":
            return _problem(401, "key", "unknown key")
        account = account_digest(key)
        if self.is_submit(call):
            return self._create(call, account, now_us, has_credit=standing == "good", locked=is_locked(key))
        match call.method, call.path.split("/")[1:]:
            case "GET", ["v1", "account"]:
                return json_reply(200, {"name": f"acme-{account[:6]}", "usd": 100.0 if standing == "good" else 0.0})
            case "GET", ["v1", "images", job_id]:
                return self._shown(own_job(self._settings, self.name, account, job_id), now_us)
            case "GET", ["v1", "references", reference]:
                jobs = jobs_of(self._settings, self.name, account, until_us=now_us)
                made = (job for job in jobs if msgspec.json.decode(job.wire, type=_Wanted).reference == reference)
                return self._shown(next(made, None), now_us)
        return _problem(404, "no_such_call", f"{call.method} {call.path}")

    def state(self, job: Job, now_us: int) -> JobState:
        return state_of(job, now_us, failures=_FATES)

    def charged(self, job: Job, now_us: int) -> int:
        return charge_on_success(job, self.state(job, now_us))

    def _create(self, call: Call, account: str, now_us: int, *, has_credit: bool, locked: bool) -> Reply:
        try:
            wanted = msgspec.json.decode(call.body, type=_Wanted)
        except msgspec.DecodeError as exc:
            return _problem(422, "invalid", str(exc))
        if not wanted.prompt or wanted.ratio not in _RATIOS or wanted.size not in _PRICES or len(wanted.images) > 4:
            return _problem(422, "invalid", "prompt, ratio, size or images")
        if self._settings.limits.take(f"acme/{account}", count=10, per_s=1.0, now_us=now_us):
            return self.refusal("throttled")
        if locked:
            return _problem(403, "model", f"{wanted.model} is not enabled for this key")
        if not has_credit:
            return _problem(402, "credit", "no credit left")
        admission = admit(self._settings, self.name, now_us)
        job = job_of(
            self._settings,
            Asked(wanted.model, wanted.prompt, wanted.images, wanted.ratio, wanted.size, wanted.format),
            admission,
            account=account,
            job_id="im_" + admission.entropy.hex()[:24],
            wire=call.body.decode(),
            price_microusd=_PRICES[wanted.size],
        )
        self._settings.jobs.add(job)
        return json_reply(201, {"id": job.id, "state": "running"})

    def _shown(self, job: Job | None, now_us: int) -> Reply:
        if job is None:
            return _problem(404, "not_found", "no such image")
        match self.state(job, now_us):
            case "succeeded":
                usd = job.charge_microusd / 1_000_000
                return json_reply(
                    200, {"id": job.id, "state": "done", "url": file_url(self._settings, job), "usd": usd}
                )
            case "failed":
                return json_reply(200, {"id": job.id, "state": "failed", "why": _FATES[job.fate]})
        return json_reply(200, {"id": job.id, "state": "running"})


def _problem(status: int, error: str, message: str) -> Reply:
    return json_reply(status, {"error": error, "message": message})
