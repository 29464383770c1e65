"""NewportAI as an emulator: two image tools, polling by POST, credits, and uploads through a storage.

The envelope, the states and the upload are as documented or seen.  Invented, because nobody has published them, are
the paths of the tools, the credits an image takes (Google's price at the dearest pack's rate), and the codes of a
full queue and of an empty account: only their words matter to a codec.
"""

import re
from typing import Literal

import msgspec

from adapters.sandbox import jobapi
from adapters.sandbox.accepting import Asked, charge_on_success, jobs_of, own_job, state_of
from adapters.sandbox.base import Call, Job, JobState, Reply
from adapters.sandbox.forms import file_name, image_type, read_form
from adapters.sandbox.jobapi import Invalid
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

_CREDIT_MICROUSD = 7_500
_OPENING_CREDITS = 222_000
_MOST_AT_ONCE = 10
_MAX_PROMPT = 4_000
_MAX_FILE_BYTES = 25 << 20
_KEY_SHAPE = re.compile(r"sk-[A-Za-z0-9_-]{16,}")
_UPLOADED = re.compile(r"[0-9a-f]{32}\.(?:png|jpg|webp|gif)")
_ASPECTS = jobapi.ASPECTS[:-1]
_RESOLUTIONS = {"512": "0.5K", "1K": "1K", "2K": "2K", "4K": "4K"}

_ILLEGAL, _BUSY, _NO_CREDIT = 10192, 10429, 10402  # the last two are invented
_PERMIT = {"policy": "c2FuZGJveA==", "accessId": "sandbox", "signature": "c2lnbmVk", "callback": "Y2FsbGJhY2s="}


class _Tool(msgspec.Struct, frozen=True):
    """One image tool."""

    name: str
    takes: dict[str, int]  # credits by ``imageSize``
    most: int  # references
    aspects: tuple[str, ...]


_TOOLS = {
    "/api/async/nano_banana_2": _Tool(
        "nano-banana-2",
        takes={"512": 6, "1K": 9, "2K": 14, "4K": 21},
        most=14,
        aspects=(*_ASPECTS, "1:4", "1:8", "4:1", "8:1"),
    ),
    "/api/async/nano_banana_pro": _Tool(
        "nano-banana-pro", takes={"1K": 18, "2K": 18, "4K": 32}, most=8, aspects=_ASPECTS
    ),
}
_REASONS = {
    "fail": "The server is abnormal, please try again later",
    "policy": "The content violates our content policy",
    "unreachable": "Failed to download the input image, please check the url",
}


class NewportAiEmulator:
    """One emulated NewportAI over a job table."""

    name = "newportai"
    result_life_s = 86_400.0

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings

    def is_submit(self, call: Call) -> bool:
        return call.method == "POST" and call.path in _TOOLS

    def refusal(self, kind: Literal["throttled", "broken"]) -> Reply:
        if kind == "throttled":
            return _envelope(429, "too many requests")
        return _envelope(500, "server error", status=500)

    def handle(self, call: Call, now_us: int) -> Reply:
        if (call.method, call.path) == ("POST", "/oss"):  # another company's host, which knows no key
            return _store(call)
        key = bearer(call.headers)
        standing = key_standing(key, looks_right=_KEY_SHAPE.fullmatch(key) is not None)
        if standing == "refused":
            return _envelope(401, "invalid api key", status=401)
        account = account_digest(key)
        if self._settings.limits.take(f"newportai/{account}", count=60, per_s=60.0, now_us=now_us):
            return self.refusal("throttled")
        try:
            match call.method, call.path:
                case "POST", path if path in _TOOLS:
                    return self._create(call, account, now_us, has_credit=standing == "good")
                case "POST", "/api/getAsyncResult":
                    return self._result(call, account, now_us)
                case "POST", "/api/remaining_credits":
                    balance = self._balance(account, now_us) if standing == "good" else 0
                    return _envelope(0, "success", {"available_credits": balance})
                case "POST", "/api/file/v1/get_policy":
                    return _permit(call)
                case "POST", "/api/file/v1/policy_upload_finish":
                    return _address(call)
                case _:
                    return _envelope(404, "not found", status=404)
        except Invalid as exc:
            return _envelope(_ILLEGAL, f"illegal parameter: {exc}")

    def state(self, job: Job, now_us: int) -> JobState:
        return state_of(job, now_us, failures=_REASONS)

    def charged(self, job: Job, now_us: int) -> int:
        """Charged when the image is there (assumed: refunds are documented nowhere)."""
        return charge_on_success(job, self.state(job, now_us))

    # --- the calls ----------------------------------------------------------------------------------------

    def _create(self, call: Call, account: str, now_us: int, *, has_credit: bool) -> Reply:
        tool = _TOOLS[call.path]
        fields = _fields(call, {"prompt", "aspectRatio", "imageSize", "images"})
        size = jobapi.choice(fields, "imageSize", tuple(tool.takes), "1K")
        if fields.get("images") == []:
            raise Invalid("images must not be empty")
        asked = Asked(
            model=tool.name,
            prompt=jobapi.prompt_of(fields, _MAX_PROMPT),
            references=jobapi.urls_of(fields, "images", tool.most),
            aspect=jobapi.choice(fields, "aspectRatio", tool.aspects, "16:9"),
            resolution=_RESOLUTIONS[size],
            output_format="jpg",
        )
        if is_locked(bearer(call.headers)):
            return _envelope(403, f"no permission for {tool.name}")
        if not has_credit:
            return _envelope(_NO_CREDIT, "Insufficient credits, please recharge")
        if self._settings.jobs.running(self.name, account, now_us) >= _MOST_AT_ONCE:
            return _envelope(_BUSY, "The server is busy, please try again later")
        price = tool.takes[size] * _CREDIT_MICROUSD
        job = jobapi.create(self._settings, self.name, account, call, asked, price=price, now_us=now_us)
        return _envelope(0, "success", {"taskId": job.id})

    def _result(self, call: Call, account: str, now_us: int) -> Reply:
        task = _fields(call, {"taskId"}).get("taskId")
        job = own_job(self._settings, self.name, account, task) if isinstance(task, str) else None
        if job is None:
            raise Invalid("taskId does not exist")
        state = self.state(job, now_us)
        shown: dict[str, object] = {"taskId": job.id, "status": _number(job, state, now_us), "taskType": job.model}
        if state != "running":
            shown["executionTime"] = (job.done_us - job.started_us) // 1_000
            shown["creditsConsumed"] = _credits(self.charged(job, now_us))
        shown["reason"] = _REASONS[job.fate] if state == "failed" else ""
        images = [{"imageUrl": file_url(self._settings, job), "imageType": "jpg"}] if state == "succeeded" else []
        return _envelope(0, "success", {"task": shown, "images": images, "videos": [], "audios": []})

    def _balance(self, account: str, now_us: int) -> float:
        jobs = jobs_of(self._settings, self.name, account, until_us=now_us)
        return _OPENING_CREDITS - _credits(sum(self.charged(job, now_us) for job in jobs))


def _credits(microusd: int) -> float:
    """In credits; whole ones are shown as such."""
    found = microusd / _CREDIT_MICROUSD
    return int(found) if found.is_integer() else found


def _number(job: Job, state: JobState, now_us: int) -> int:
    """The state as a number: 0 (which no page names) at first, 1 submitted, 2 running, 3 and 4 ended."""
    if state != "running":
        return 3 if state == "succeeded" else 4
    share = (now_us - job.created_us) / (job.done_us - job.created_us)
    return 0 if share < 0.1 else 1 if share < 0.3 else 2


def _fields(call: Call, known: set[str]) -> dict[str, object]:
    if call.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Invalid("Content-Type must be application/json")
    fields = json_object(call.body)
    if fields is None:
        raise Invalid("the body must be a JSON object")
    jobapi.only_known(fields, known, "")
    return fields


def _envelope(code: int, text: str, data: object = None, *, status: int = 200) -> Reply:
    return json_reply(status, {"code": code, "message": text, "data": data})


# --- uploads ------------------------------------------------------------------------------------------------


def _permit(call: Call) -> Reply:
    fields = _fields(call, {"scene", "Enum"})
    if "Dream-CN" not in fields.values():
        raise Invalid("scene")
    return _envelope(0, "success", {"host": f"{call.origin}/oss", "dir": "dream/", **_PERMIT})


def _store(call: Call) -> Reply:
    """Take a form as the storage does.  The id that it gives is the file's name, so that nothing need be kept."""
    form = read_form(call) or {}
    sent = {name: part.data.decode("latin-1") for name, part in form.items() if name != "file"}
    permitted = {name: value for name, value in _PERMIT.items() if name != "accessId"} | {"OSSAccessKeyId": "sandbox"}
    file = form.get("file")
    if file is None or list(form)[-1] != "file" or not permitted.items() <= sent.items():
        return Reply(403, {"content-type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>")
    if not sent.get("key", "").startswith("dream/") or len(file.data) > _MAX_FILE_BYTES or not image_type(file.data):
        return Reply(400, {"content-type": "application/xml"}, b"<Error><Code>InvalidPolicyDocument</Code></Error>")
    return _envelope(0, "success", {"reqId": file_name(file.data)})


def _address(call: Call) -> Reply:
    request_id = _fields(call, {"reqId"}).get("reqId")
    if not isinstance(request_id, str) or _UPLOADED.fullmatch(request_id) is None:
        raise Invalid("reqId does not exist")
    return _envelope(0, "success", {"url": f"{call.origin}/uploads/{request_id}"})
