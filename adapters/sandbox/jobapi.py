"""What the emulators of the job API share (Kie, ApiPass): the check of a createTask, and the record of a task.

NewportAI's takes the smaller pieces: single fields, and the acceptance of a job.

Strict where the real thing may be lax: unknown fields and values outside the documented sets are refused, so that
a codec that passes here sends nothing undocumented.
"""

import re
from collections.abc import Mapping

import msgspec

from adapters.sandbox.accepting import Asked, admit, job_of
from adapters.sandbox.base import Call, Job, JobState
from adapters.sandbox.faults import unit
from adapters.sandbox.wirefmt import EmulatorSettings, json_object

ASPECTS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9", "auto")
CREATE, RECORD = "/api/v1/jobs/createTask", "/api/v1/jobs/recordInfo"
_MAX_LAG_S = 0.8


class Model(msgspec.Struct, frozen=True):
    """The input schema and price of one model."""

    max_prompt: int
    prices: Mapping[str, int]  # micro-dollars by resolution
    references: str = ""  # the field's name
    max_references: int = 0
    needs_references: bool = False
    aspects: tuple[str, ...] = ASPECTS
    default_aspect: str = "1:1"  # "" = required
    formats: tuple[str, ...] = ("png", "jpeg")  # () = no such field
    default_format: str = "png"
    resolution: bool = False
    flags: tuple[str, ...] = ()

    def fields(self) -> set[str]:
        named = {"prompt", "aspect_ratio", self.references, *self.flags}
        named |= {"output_format"} if self.formats else set()
        return (named | {"resolution"} if self.resolution else named) - {""}


class Invalid(Exception):  # never leaves the emulators; it is the 422 on its way out
    """The request does not pass validation; the text is what the provider would say."""


def validate(call: Call, models: Mapping[str, Model]) -> Asked:
    """Read a createTask.

    Raises:
        Invalid: it does not pass.
    """
    if call.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Invalid("Content-Type must be application/json")
    body = json_object(call.body)
    if body is None:
        raise Invalid("the body must be a JSON object")
    only_known(body, {"model", "callBackUrl", "input"}, "")
    name = body.get("model")
    model = models.get(name) if isinstance(name, str) else None
    if model is None or not isinstance(name, str):
        raise Invalid("The model name you specified is not supported. Please verify it and try again.")
    fields = body.get("input")
    if not isinstance(fields, dict):
        raise Invalid("input cannot be null")
    only_known(fields, model.fields(), "input.")
    for flag in model.flags:
        if not isinstance(fields.get(flag, False), bool):
            raise Invalid(f"{flag} must be a boolean")
    image_format = choice(fields, "output_format", model.formats or (model.default_format,), model.default_format)
    return Asked(
        model=name,
        prompt=prompt_of(fields, model.max_prompt),
        references=_references(fields, model),
        aspect=choice(fields, "aspect_ratio", model.aspects, model.default_aspect),
        resolution=choice(fields, "resolution", tuple(model.prices), "1K"),
        output_format="jpg" if image_format == "jpeg" else image_format,
        callback_url=_callback(body),
    )


def create(
    settings: EmulatorSettings, provider: str, account: str, call: Call, asked: Asked, *, price: int, now_us: int
) -> Job:
    """Add the job of a valid createTask."""
    admission = admit(settings, provider, now_us)
    job_id, wire = admission.entropy.hex()[:32], call.body.decode()
    job = job_of(settings, asked, admission, account=account, job_id=job_id, wire=wire, price_microusd=price)
    settings.jobs.add(job)
    return job


def shown_after_us(settings: EmulatorSettings, job: Job) -> int:
    """When recordInfo first shows a task: some time after createTask."""
    longest_s = min(_MAX_LAG_S, settings.latency_s / 2)
    return job.created_us + round(unit(b"lag", job.id.encode()) * longest_s * 1_000_000)


def record(job: Job, now_us: int, state: JobState, *, fail_word: str, code: str, text: str) -> dict[str, object]:
    """``data`` of recordInfo and of callbacks, without the result.

    ``param`` is JSON in a string, and its ``input`` once more.  ``code`` and ``text`` say why it failed.
    """
    sent = msgspec.json.decode(job.wire, type=dict[str, object])
    sent["input"] = msgspec.json.encode(sent["input"]).decode()
    ended = state != "running"
    return {
        "taskId": job.id,
        "model": job.model,
        "state": {"succeeded": "success", "failed": fail_word}.get(state, _phase(job, now_us)),
        "param": msgspec.json.encode(sent).decode(),
        "resultJson": "",
        "failCode": code or None,
        "failMsg": text or None,
        "costTime": (job.done_us - job.started_us) // 1_000 if ended else None,
        "createTime": job.created_us // 1_000,
        "updateTime": min(now_us, job.done_us) // 1_000,
        "completeTime": job.done_us // 1_000 if ended else None,
    }


def _phase(job: Job, now_us: int) -> str:
    """Name the way of running: a fifth of the time waiting, a fifth queuing, then generating."""
    share = (now_us - job.created_us) / (job.done_us - job.created_us)
    return "waiting" if share < 0.2 else "queuing" if share < 0.4 else "generating"


def only_known(given: dict[str, object], known: set[str], prefix: str) -> None:
    """Refuse fields that are not documented."""
    for field in given:
        if field not in known:
            raise Invalid(f"{prefix}{field} is not a known field")


def choice(fields: dict[str, object], field: str, allowed: tuple[str, ...], default: str) -> str:
    """Read a field that has a closed set of values."""
    value = fields.get(field, default)
    if not isinstance(value, str) or value not in allowed:
        raise Invalid(f"{field} is not within the range of allowed options")
    return value


def prompt_of(fields: dict[str, object], longest: int) -> str:
    """Read the prompt."""
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise Invalid("prompt is required")
    if len(prompt) > longest:
        raise Invalid(f"The text length cannot exceed the maximum limit of {longest}")
    return prompt


def urls_of(fields: dict[str, object], field: str, most: int) -> tuple[str, ...]:
    """Read a list of URLs."""
    given = fields.get(field, [])
    if not isinstance(given, list) or not all(isinstance(url, str) and _is_uri(url) for url in given):
        raise Invalid(f"{field} must be a list of file URLs")
    if len(given) > most:
        raise Invalid(f"{field} takes at most {most} images")
    return tuple(given)


def _references(fields: dict[str, object], model: Model) -> tuple[str, ...]:
    given = urls_of(fields, model.references, model.max_references)
    if model.needs_references and not given:
        raise Invalid(f"{model.references} is required")
    return given


def _callback(body: dict[str, object]) -> str:
    url = body.get("callBackUrl", "")
    if not isinstance(url, str) or (url and not _is_uri(url)):
        raise Invalid("callBackUrl must be a URI")
    return url


def _is_uri(text: str) -> bool:
    return re.fullmatch(r"https?://[^\s/]+\S*", text) is not None
