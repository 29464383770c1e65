"""What WaveSpeed's emulator accepts: the models with their fields and prices, and the questions of the listing.

Strict where the real thing may be lax: unknown fields and values outside the documented sets are refused.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from adapters.sandbox.accepting import Asked
from adapters.sandbox.wirefmt import takes_callbacks

_TEN = ("1:1", "3:2", "2:3", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
_FOURTEEN = (*_TEN, "1:4", "4:1", "1:8", "8:1")
_SEARCH_MICROUSD = 14_000  # for each kind of search that is switched on
_STATUSES = ("completed", "failed", "processing")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RESOLUTIONS = {"0.5k": "0.5K", "1k": "1K", "2k": "2K", "4k": "4K"}


class Model(msgspec.Struct, frozen=True):
    """The request schema and prices of one path."""

    prices: dict[str, int]  # micro-dollars by resolution, the default one first
    max_references: int = 0  # 0 = takes none, and needs none
    aspects: tuple[str, ...] = _FOURTEEN
    sized: bool = True  # has a field for the resolution
    flags: tuple[str, ...] = ("enable_web_search", "enable_image_search")

    @property
    def kind(self) -> str:
        return "image-to-image" if self.max_references else "text-to-image"

    def properties(self) -> dict[str, dict[str, object]]:
        """The fields of the request, as the catalogue shows them."""
        fields: dict[str, dict[str, object]] = {
            "prompt": {"type": "string"},
            "aspect_ratio": {"type": "string", "enum": list(self.aspects)},
            "output_format": {"type": "string", "enum": ["png", "jpeg"], "default": "png"},
        }
        if self.max_references:
            fields["images"] = {"type": "array", "maxItems": self.max_references}
        if self.sized:
            sizes = list(self.prices)
            fields["resolution"] = {"type": "string", "enum": sizes, "default": sizes[0]}
        for flag in (*self.flags, "enable_sync_mode"):
            fields[flag] = {"type": "boolean", "default": False}
        return fields


def _pair(path: str, edit: str, text: Model, max_references: int = 14) -> dict[str, Model]:
    return {path: text, edit: msgspec.structs.replace(text, max_references=max_references)}


_BANANA_2 = Model({"1k": 70_000, "0.5k": 45_000, "2k": 105_000, "4k": 140_000})
_FAST = Model({"2k": 45_000, "4k": 50_000}, flags=("enable_web_search",))
_SUCCESSOR = Model({"1k": 70_000, "2k": 105_000, "4k": 140_000})
_PRO = Model({"1k": 140_000, "2k": 140_000, "4k": 240_000}, aspects=_TEN, flags=())
_FIRST = Model({"1k": 38_000}, aspects=_TEN, sized=False, flags=("enable_base64_output",))

MODELS = {
    **_pair("google/nano-banana-2/text-to-image", "google/nano-banana-2/edit", _BANANA_2),
    **_pair("google/nano-banana-2/text-to-image-fast", "google/nano-banana-2/edit-fast", _FAST),
    **_pair("google/nano-banana-2.1/text-to-image", "google/nano-banana-2.1/edit", _SUCCESSOR),
    **_pair("google/nano-banana-pro/text-to-image", "google/nano-banana-pro/edit", _PRO),
    **_pair("google/gemini-2.5-flash-image/text-to-image", "google/gemini-2.5-flash-image/edit", _FIRST, 10),
}


class Wanted(msgspec.Struct, frozen=True):
    """A validated submission, what it costs, and whether the caller waits for its end."""

    asked: Asked
    price_microusd: int
    sync: bool


class Window(msgspec.Struct, frozen=True):
    """A validated question to the listing."""

    page: int
    size: int
    model: str
    status: str
    since_us: int
    until_us: int


class Invalid(Exception):  # the 400 on its way out of the emulator, never further
    """The request is not valid; the text says why."""


def validate(body: Mapping[str, object], path: str) -> Wanted:
    """Check a submission against the schema of a model there is.

    Raises:
        Invalid: what is wrong.
    """
    model = MODELS[path]
    for field in body:
        if field not in model.properties():
            raise Invalid(f"property {field} is not allowed")
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise Invalid("prompt is required")
    switches = {flag: body.get(flag, False) for flag in (*model.flags, "enable_sync_mode")}
    for flag, value in switches.items():
        if not isinstance(value, bool):
            raise Invalid(f"{flag} must be a boolean")
    if switches.get("enable_base64_output"):
        raise Invalid("enable_base64_output is not served here")
    size = _choice(body, "resolution", tuple(model.prices))
    searches = sum(bool(switches.get(flag)) for flag in ("enable_web_search", "enable_image_search"))
    asked = Asked(
        model=path,
        prompt=prompt,
        references=_references(body, model),
        aspect=_choice(body, "aspect_ratio", model.aspects) if "aspect_ratio" in body else "auto",
        resolution=_RESOLUTIONS[size],
        output_format="jpg" if _choice(body, "output_format", ("png", "jpeg")) == "jpeg" else "png",
    )
    return Wanted(asked, model.prices[size] + searches * _SEARCH_MICROUSD, sync=bool(switches["enable_sync_mode"]))


def _choice(body: Mapping[str, object], field: str, allowed: tuple[str, ...]) -> str:
    """Read one of a set; the first is the default."""
    value = body.get(field, allowed[0])
    if not isinstance(value, str) or value not in allowed:
        raise Invalid(f"{field} must be one of {', '.join(allowed)}")
    return value


def _references(body: Mapping[str, object], model: Model) -> tuple[str, ...]:
    given = body.get("images", [])
    if not model.max_references:
        return ()
    if not isinstance(given, list) or not all(isinstance(url, str) and _is_image(url) for url in given):
        raise Invalid("images must be URLs of images")
    if not 1 <= len(given) <= model.max_references:
        raise Invalid(f"images must have between 1 and {model.max_references} items")
    return tuple(given)


def _is_image(text: str) -> bool:
    return re.fullmatch(r"https?://[^\s/]+\S*|data:image/[\w.+-]+;base64,\S+", text) is not None


def callback_url(query: Mapping[str, str]) -> str:
    """Read where the end of the task is told to: HTTPS, or plain on this machine."""
    url = query.get("webhook", "")
    if url and not takes_callbacks(url):
        raise Invalid("webhook must be an HTTPS URL")
    return url


def window(body: Mapping[str, object], now_us: int) -> Window:
    """Read a question to the listing; without bounds it asks for everything until now."""
    known = {"page", "page_size", "model", "status", "created_after", "created_before"}
    if not body.keys() <= known:
        raise Invalid(f"only {', '.join(sorted(known))} are known")
    model, status = body.get("model", ""), body.get("status", "")
    if not isinstance(model, str) or not isinstance(status, str) or status not in ("", *_STATUSES):
        raise Invalid("model and status must be names")
    return Window(
        page=_number(body, "page", 1, 1_000_000_000),
        size=_number(body, "page_size", 100, 100),
        model=model,
        status=status,
        since_us=_time(body, "created_after", 0),
        until_us=_time(body, "created_before", now_us),
    )


def _number(body: Mapping[str, object], field: str, default: int, largest: int) -> int:
    value = body.get(field, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
        raise Invalid(f"{field} must be a number from 1 to {largest}")
    return value


def _time(body: Mapping[str, object], field: str, default: int) -> int:
    if field not in body:
        return default
    value = body[field]
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Invalid(f"{field} must be an ISO 8601 time with its zone")
    return (moment - _EPOCH) // timedelta(microseconds=1)
