"""What Replicate's emulator accepts: the models with their input schemas, and the headers of a create.

Strict where the schema says so: unknown fields and values outside the documented sets are refused.
"""

import re
from urllib.parse import urlsplit

import msgspec

from adapters.sandbox.accepting import Asked
from adapters.sandbox.base import Call

_VERSION = re.compile(r"(?:(?P<model>[\w.-]+/[\w.-]+):)?(?P<hash>[0-9a-f]{64})")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EVENTS = ("start", "output", "logs", "completed")
_ASPECTS = ("match_input_image", "1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
_FILTERS = ("block_low_and_above", "block_medium_and_above", "block_only_high")


class Model(msgspec.Struct, frozen=True):
    """The input schema and price of one model."""

    prices: dict[str, int]  # micro-dollars by resolution
    max_references: int
    version: str = ""  # a published version that may be named alone
    aspects: tuple[str, ...] = _ASPECTS
    default_resolution: str = ""  # "" = the schema has no such field
    flags: tuple[str, ...] = ()
    safety: bool = False

    def fields(self) -> set[str]:
        named = {"prompt", "image_input", "aspect_ratio", "output_format", *self.flags}
        return (
            named
            | ({"resolution"} if self.default_resolution else set())
            | ({"safety_filter_level"} if self.safety else set())
        )


MODELS = {
    "google/nano-banana": Model(prices={"1K": 39_000}, max_references=10),
    "google/nano-banana-2": Model(
        prices={"1K": 67_000, "2K": 101_000, "4K": 151_000},
        max_references=14,
        version="2de9ad5b0425fb05efd2cac4ed145259675cfcd7ff80acd99042b460fe1c665e",
        aspects=(*_ASPECTS, "1:4", "1:8", "4:1", "8:1"),
        default_resolution="1K",
        flags=("google_search", "image_search"),
    ),
    "google/nano-banana-pro": Model(
        prices={"1K": 150_000, "2K": 150_000, "4K": 300_000},
        max_references=14,
        version="f5318740f60d79bf0c480216aaf9ca7614977553170eacd19ff8cbcda2409ac8",
        default_resolution="2K",
        flags=("allow_fallback_model",),
        safety=True,
    ),
}


class Invalid(Exception):  # the 422 on its way out of the emulator, never further
    """The request does not pass validation: the field, and what is wrong with it."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(field, text)


def prefer_wait_s(call: Call) -> float | None:
    """Read how long the caller wants to be held; None = not at all."""
    prefer = call.headers.get("prefer", "")
    if not prefer:
        return None
    found = re.fullmatch(r"wait(?:=(\d{1,3}))?", prefer.strip())
    if found is None or not 1 <= int(found[1] or 60) <= 60:
        raise Invalid("Prefer", "must be wait or wait=n with n from 1 to 60")
    return float(found[1] or 60)


def cancel_after_s(call: Call) -> float | None:
    """Read the deadline of the prediction, from its creation; None = there is none."""
    text = call.headers.get("cancel-after", "")
    if not text:
        return None
    found = _DURATION.fullmatch(text + "s" if text.isdecimal() else text)
    life_s = (
        sum(int(part or 0) * unit_s for part, unit_s in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0
    )
    if life_s < 5:
        raise Invalid("Cancel-After", "must be a duration of at least 5 seconds")
    return float(life_s)


def named_version(body: dict[str, object]) -> tuple[str, str]:
    """Find model and version of ``POST /v1/predictions``: ``owner/name``, ``owner/name:<hash>`` or ``<hash>``."""
    given = body.get("version")
    if isinstance(given, str) and given in MODELS:
        return given, "hidden"
    found = _VERSION.fullmatch(given) if isinstance(given, str) else None
    if found:
        by_hash = {model.version: name for name, model in MODELS.items() if model.version}
        return found["model"] or by_hash.get(found["hash"], ""), found["hash"]
    raise Invalid("version", "The specified version does not exist (or perhaps you don't have permission to use it?)")


def validate(body: dict[str, object], name: str, *, by_version: bool) -> Asked:
    """Check a create against the schema of a model there is.

    Raises:
        Invalid: what is wrong, in Replicate's words as far as they are known.
    """
    model = MODELS[name]
    known = {"input", "webhook", "webhook_events_filter", "stream"} | ({"version"} if by_version else set())
    _only(body, known, "")
    fields = body.get("input")
    if not isinstance(fields, dict):
        raise Invalid("input", "input is required")
    _only(fields, model.fields(), "input.")
    for flag in model.flags:
        if not isinstance(fields.get(flag, False), bool):
            raise Invalid(f"input.{flag}", "must be a boolean")
    if model.safety:
        _choice(fields, "safety_filter_level", _FILTERS, "block_only_high")
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise Invalid("input", "prompt is required")
    aspect = _choice(fields, "aspect_ratio", model.aspects, "match_input_image")
    return Asked(
        model=name,
        prompt=prompt,
        references=_references(fields, model),
        aspect="auto" if aspect == "match_input_image" else aspect,
        resolution=_choice(fields, "resolution", tuple(model.prices), model.default_resolution or "1K"),
        output_format=_choice(fields, "output_format", ("jpg", "png"), "jpg"),
        callback_url=_callback(body),
    )


def _only(given: dict[str, object], known: set[str], prefix: str) -> None:
    for field in given:
        if field not in known:
            raise Invalid(prefix + field, "Additional property is not allowed")


def _choice(fields: dict[str, object], field: str, allowed: tuple[str, ...], default: str) -> str:
    value = fields.get(field, default)
    if not isinstance(value, str) or value not in allowed:
        listed = ", ".join(f'"{choice}"' for choice in allowed)
        raise Invalid(f"input.{field}", f"must be one of the following: {listed}")
    return value


def _references(fields: dict[str, object], model: Model) -> tuple[str, ...]:
    given = fields.get("image_input", [])
    if not isinstance(given, list) or not all(isinstance(url, str) and _is_uri(url) for url in given):
        raise Invalid("input.image_input", "Does not match format 'uri'")
    if len(given) > model.max_references:
        raise Invalid("input.image_input", f"Array must have at most {model.max_references} items")
    return tuple(given)


def _is_uri(text: str) -> bool:
    return re.fullmatch(r"https?://[^\s/]+\S*|data:[^,\s]*,\S*", text) is not None


def _callback(body: dict[str, object]) -> str:
    """Give the URL that the end of the job is told to: HTTPS, or plain on this machine."""
    url, events = body.get("webhook", ""), body.get("webhook_events_filter", list(_EVENTS))
    if not isinstance(events, list) or not all(event in _EVENTS for event in events):
        raise Invalid("webhook_events_filter", f"must be some of {', '.join(_EVENTS)}")
    if not isinstance(url, str):
        raise Invalid("webhook", "must be an HTTPS URL")
    if not url:
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Invalid("webhook", "must be an HTTPS URL") from None
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)):
        raise Invalid("webhook", "must be an HTTPS URL")
    return url if "completed" in events else ""
