"""What Apertis' emulator accepts: the fields of the image call and of the chat call.

Strict where the real thing may be lax: unknown fields are refused.
"""

from typing import Literal

import msgspec

from adapters.sandbox.accepting import Asked
from adapters.sandbox.openaistyle import Turned, choice, identity, inline_bytes, is_inline

# Apertis counts tokens and publishes no price per image.  Nano Banana 2: the comparison that bydawn started from;
# the others: Google's list price.
PRICES = {
    "gemini-2.5-flash-image": {"1K": 39_000},
    "gemini-3.1-flash-image-preview": {"1K": 55_000, "2K": 85_000, "4K": 125_000},
    "gemini-3-pro-image-preview": {"1K": 134_000, "2K": 134_000, "4K": 240_000},
}
_SIZES = {
    "1024x1024": "1:1",
    "848x1264": "2:3",
    "1264x848": "3:2",
    "896x1200": "3:4",
    "1200x896": "4:3",
    "928x1152": "4:5",
    "1152x928": "5:4",
    "768x1376": "9:16",
    "1376x768": "16:9",
    "1584x672": "21:9",
}
_TIERS = {"1K": 1, "2K": 2, "4K": 4}
_IMAGE_FIELDS = {"model", "prompt", "n", "size", "quality", "response_format", "user"}
_CHAT_FIELDS = {"model", "messages", "max_tokens", "n", "stream", "user", "modalities", "image_config"}
_MAX_REFERENCES = 14
_MAX_IMAGE = 20_000_000


class Wanted(msgspec.Struct, frozen=True):
    """A validated request, and how the image is to be answered."""

    asked: Asked
    form: Literal["b64_json", "url", "chat"]


def image(body: dict[str, object]) -> Wanted:
    """Check a call of the image endpoint.

    Raises:
        Turned: with the status and words that Apertis has for it.
    """
    model = _model(body, _IMAGE_FIELDS)
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise _wrong("prompt", code="missing_parameter")
    if body.get("n", 1) != 1:
        raise _wrong("n")
    form = choice(body, "response_format", ("url", "b64_json"), _wrong("response_format"))
    resolution, aspect = _size(body.get("size", "auto"), model)
    asked = Asked(model, prompt, (), aspect, resolution, "png")
    return Wanted(asked, "url" if form == "url" else "b64_json")


def chat(body: dict[str, object]) -> Wanted:
    """Check a call of the chat endpoint; raises :class:`Turned`."""
    model = _model(body, _CHAT_FIELDS)
    if body.get("stream") or body.get("n", 1) != 1:
        raise _wrong("stream")
    try:
        sent = msgspec.convert(body, _Chat)
    except msgspec.ValidationError:
        raise _wrong("messages") from None
    prompt, references = "", []
    for part in sent.messages[-1].content if sent.messages else ():
        if part.type == "text" and part.text:
            prompt = part.text
        elif part.type == "image_url" and part.image_url is not None and _is_image(part.image_url.url):
            references.append(identity(part.image_url.url))
        else:
            raise _wrong("messages", code="invalid_image")
    if not prompt or len(references) > _MAX_REFERENCES:
        raise _wrong("messages")
    config = sent.image_config
    if config.image_size not in PRICES[model] or config.aspect_ratio not in ("auto", *_SIZES.values()):
        raise _wrong("image_config")
    return Wanted(Asked(model, prompt, tuple(references), config.aspect_ratio, config.image_size, "png"), "chat")


def _is_image(url: str) -> bool:
    return is_inline(url) and inline_bytes(url) <= _MAX_IMAGE


class _ImageUrl(msgspec.Struct, frozen=True):
    url: str


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    text: str = ""
    image_url: _ImageUrl | None = None


class _Message(msgspec.Struct, frozen=True):
    role: Literal["user"]
    content: list[_Part]


class _Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    image_size: str = "1K"
    aspect_ratio: str = "auto"


class _Chat(msgspec.Struct, frozen=True):
    messages: list[_Message]
    image_config: _Config = _Config()


def _model(body: dict[str, object], fields: set[str]) -> str:
    for field in body:
        if field not in fields:
            raise _wrong(field)
    model = body.get("model")
    if not isinstance(model, str) or model not in PRICES:
        raise Turned(404, f"The model {model} does not exist", kind="invalid_request_error", code="model_not_found")
    return model


def _size(size: object, model: str) -> tuple[str, str]:
    if size == "auto":
        return "1K", "1:1"
    for tier in PRICES[model]:
        for pixels, aspect in _SIZES.items():
            width, _, height = pixels.partition("x")
            if size == f"{int(width) * _TIERS[tier]}x{int(height) * _TIERS[tier]}":
                return tier, aspect
    raise _wrong("size")


def _wrong(field: str, *, code: str = "invalid_parameter") -> Turned:
    return Turned(400, f"{field} is not accepted", kind="invalid_request_error", code=code, param=field)
