"""What Toapis' emulator accepts: the models with their fields, and what they cost.

Strict where the pages name a set: unknown fields, fields of other models and values outside the sets are refused.
"""

import re

import msgspec

from adapters.sandbox.accepting import Asked
from adapters.sandbox.base import Call
from adapters.sandbox.wirefmt import json_object, takes_callbacks

_ASPECTS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
_FIELDS = {
    *("model", "prompt", "size", "n", "metadata", "image_urls", "response_format"),
    *("client_business_id", "callback_url"),
}
_MAX_REFERENCES = 14


class Model(msgspec.Struct, frozen=True):
    """The fields and prices of one model."""

    prices: dict[str, int]  # micro-dollars by resolution
    aspects: tuple[str, ...] = _ASPECTS
    flags: tuple[str, ...] = ()  # of ``metadata``
    orientation: bool = True
    max_prompt: int = 0


# Only those of the 3.1 model at 1K to 4K are told anywhere; the others stand for whatever they may be.
MODELS = {
    "gemini-2.5-flash-image-preview": Model(
        prices={"1K": 20_000},
        aspects=("1:1", "2:3", "3:2", "3:4", "4:3", "9:16", "16:9"),
        max_prompt=1_000,
    ),
    "gemini-3.1-flash-image-preview": Model(
        prices={"0.5K": 45_000, "1K": 65_000, "2K": 98_000, "4K": 145_000},
        aspects=(*_ASPECTS, "1:4", "1:8", "4:1", "8:1"),
        flags=("google_search", "google_image_search"),
        orientation=False,
    ),
    "gemini-3-pro-image-preview": Model(prices={"1K": 100_000, "2K": 100_000, "4K": 180_000}),
}
_ALIASES = {"nano-banana": "gemini-2.5-flash-image-preview", "nano-banana-pro": "gemini-3-pro-image-preview"}


class Invalid(Exception):  # the 400 on its way out of the emulator, never further
    """The request does not pass validation; the text is what Toapis would say."""


def validate(call: Call, *, callback_origin: str) -> Asked:
    """Check a generation.

    Raises:
        Invalid: what is wrong.
    """
    body = json_object(call.body)
    if body is None or not call.headers.get("content-type", "").startswith("application/json"):
        raise Invalid("the body must be a JSON object")
    _only(body, _FIELDS, "")
    name = body.get("model")
    name = _ALIASES.get(name, name) if isinstance(name, str) else ""
    model = MODELS.get(name)
    if model is None:
        raise Invalid("model is not supported")
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise Invalid("prompt is required")
    if model.max_prompt and len(prompt) > model.max_prompt:
        raise Invalid(f"prompt exceeds {model.max_prompt} characters")
    if type(body.get("n", 1)) is not int or body.get("n", 1) != 1:  # true is 1 to Python, and no number to Toapis
        raise Invalid("n must be 1, and a bare number")
    if body.get("response_format", "url") != "url":
        raise Invalid("response_format must be url")
    if not isinstance(body.get("client_business_id", ""), str):
        raise Invalid("client_business_id must be a string")
    metadata = _metadata(body, model)
    return Asked(
        model=name,
        prompt=prompt,
        references=_references(body),
        aspect=_choice(body, "size", model.aspects, "1:1"),
        resolution=_choice(metadata, "resolution", tuple(model.prices), "1K"),
        output_format="jpg",
        callback_url=_callback(body, callback_origin),
    )


def _only(given: dict[str, object], known: set[str], prefix: str) -> None:
    for field in given:
        if field not in known:
            raise Invalid(f"{prefix}{field} is not a field of this model")


def _metadata(body: dict[str, object], model: Model) -> dict[str, object]:
    metadata = body.get("metadata", {})
    if not isinstance(metadata, dict):
        raise Invalid("metadata must be an object")
    _only(metadata, {"resolution", "client_business_id", *model.flags} | _orientation(model), "metadata.")
    for flag in model.flags:
        if not isinstance(metadata.get(flag, False), bool):
            raise Invalid(f"metadata.{flag} must be a boolean")
    if metadata.get("google_image_search") and not metadata.get("google_search"):
        raise Invalid("metadata.google_image_search needs google_search")
    _choice(metadata, "orientation", ("landscape", "portrait"), "landscape")
    return metadata


def _orientation(model: Model) -> set[str]:
    return {"orientation"} if model.orientation else set()


def _choice(fields: dict[str, object], field: str, allowed: tuple[str, ...], default: str) -> str:
    value = fields.get(field, default)
    if not isinstance(value, str) or value not in allowed:
        raise Invalid(f"{field} must be one of {', '.join(allowed)}")
    return value


def _references(body: dict[str, object]) -> tuple[str, ...]:
    """Read the references: objects with an ``url`` by the page, plain strings in its samples."""
    given = body.get("image_urls", [])
    if not isinstance(given, list):
        raise Invalid("image_urls must be a list")
    if len(given) > _MAX_REFERENCES:
        raise Invalid(f"image_urls takes at most {_MAX_REFERENCES} images")
    urls = []
    for item in given:
        url = item.get("url") if isinstance(item, dict) else item
        if not isinstance(url, str) or re.fullmatch(r"https?://[^\s/]+\S*", url) is None:
            raise Invalid("image_urls takes URLs only, no base64: upload the image first")
        urls.append(url)
    return tuple(urls)


def _callback(body: dict[str, object], origin: str) -> str:
    """Read where the end is told to: HTTPS (or plain on this machine), of the origin that the key is bound to."""
    url = body.get("callback_url", "")
    if url == "":
        return ""
    if not isinstance(url, str) or not takes_callbacks(url):
        raise Invalid("callback_url must be an HTTPS URL")
    if origin and not f"{url}/".startswith(origin + "/"):
        raise Invalid("callback_url must have the origin of the token's default callback")
    return url
