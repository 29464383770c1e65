"""What Segmind's emulator accepts: the models with their fields, and the questions of the history.

Strict where the real thing may be lax: unknown fields are refused.
"""

import re
from collections.abc import Mapping
from datetime import date

import msgspec

from adapters.sandbox.accepting import Asked
from adapters.sandbox.base import Call

_ASPECTS = ("1:1", "2:3", "3:2", "4:3", "3:4", "4:5", "5:4", "16:9", "9:16", "21:9")


class Model(msgspec.Struct, frozen=True):
    """The fields and prices of one slug."""

    prices: dict[str, int]  # micro-dollars by resolution
    max_references: int
    aspects: tuple[str, ...] = _ASPECTS
    whole: bool = True  # the newer models take all fields, the first one four

    def fields(self) -> set[str]:
        first = {"prompt", "image_urls", "aspect_ratio", "response_modalities"}
        rest = {"output_resolution", "output_format", "seed", "web_search", "thinking_level", "safety_tolerance"}
        return first | rest if self.whole else first


MODELS = {
    "nano-banana": Model(prices={"1K": 40_000}, max_references=10, whole=False),
    "nano-banana-2": Model(
        prices={"1K": 84_000, "2K": 126_000, "4K": 168_000},
        max_references=14,
        aspects=(*_ASPECTS, "1:4", "4:1", "1:8", "8:1"),
    ),
    "nano-banana-pro": Model(prices={"1K": 134_000, "2K": 134_000, "4K": 240_000}, max_references=14),
}


class Refused(Exception):  # the 4xx on its way out of the emulator, never further
    """The request is not taken: the status, and what Segmind says about it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)


def only(method: str, call: Call) -> None:
    """Let one verb pass."""
    if call.method != method:
        raise Refused(405, "Method Not Allowed")


def validate(body: dict[str, object], slug: str) -> Asked:
    """Check a submission against the fields of a model there is.

    Raises:
        Refused: with the status and words that Segmind has for it.
    """
    model = MODELS[slug]
    for field in body:
        if field not in model.fields():
            raise Refused(400, f"Unsupported parameter: {field}")
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise Refused(400, "Missing required field: prompt")
    if not isinstance(body.get("web_search", False), bool):
        raise _not_acceptable("web_search")
    for field, smallest in (("seed", -1), ("safety_tolerance", 0)):
        number = body.get(field, 1)
        if not isinstance(number, int) or isinstance(number, bool) or not smallest <= number < 2**31:
            raise _not_acceptable(field)
    _choice(body, "thinking_level", ("minimal", "high"))
    _choice(body, "response_modalities", ("TEXT_AND_IMAGE", "IMAGE"))
    return Asked(
        model=slug,
        prompt=prompt,
        references=_references(body, model),
        aspect=_choice(body, "aspect_ratio", model.aspects),
        resolution=_choice(body, "output_resolution", tuple(model.prices)),
        output_format=_choice(body, "output_format", ("jpg", "png")),
    )


def _choice(body: dict[str, object], field: str, allowed: tuple[str, ...]) -> str:
    """Read one of a set; the first is the default."""
    value = body.get(field, allowed[0])
    if not isinstance(value, str) or value not in allowed:
        raise _not_acceptable(field)
    return value


def _references(body: dict[str, object], model: Model) -> tuple[str, ...]:
    given = body.get("image_urls", [])
    if not isinstance(given, list) or not all(isinstance(url, str) and _is_url(url) for url in given):
        raise _not_acceptable("image_urls")
    if len(given) > model.max_references:
        raise _not_acceptable("image_urls")
    return tuple(given)


def _not_acceptable(field: str) -> Refused:
    return Refused(406, f"Parameter {field} is not acceptable")


def _is_url(text: str) -> bool:
    return re.fullmatch(r"https?://[^\s/]+\S*", text) is not None


def is_data(text: str) -> bool:
    """Tell a base64 data URL."""
    return re.match(r"data:[\w.+/-]+;base64,", text) is not None


def number(query: Mapping[str, str], field: str, default: int, largest: int) -> int:
    """Read a count from 1 to ``largest``."""
    text = query.get(field, str(default))
    if re.fullmatch(r"[0-9]{1,9}", text) is None or not 1 <= int(text) <= largest:
        raise Refused(400, f"{field} must be a number from 1 to {largest}")
    return int(text)


def day(query: Mapping[str, str], field: str, default: date) -> date:
    """Read a day."""
    text = query.get(field, default.isoformat())
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise Refused(400, f"{field} must be YYYY-MM-DD") from None
    if not 1970 < found.year < 2200:
        raise Refused(400, f"{field} is not of this time")
    return found
