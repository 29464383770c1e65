"""What BytePlus' emulator accepts: the fields of the image call.

Strict where the real thing may be lax: unknown fields are refused, and sizes outside the published table.
"""

import msgspec

from adapters.sandbox.accepting import Asked
from adapters.sandbox.openaistyle import Turned, choice, identity, inline_bytes, is_inline, is_reachable, is_url

_SIZES = {
    "1K": ("1024x1024", "832x1248", "1248x832", "864x1152", "1152x864", "736x1312", "1312x736", "1568x672"),
    "2K": ("2048x2048", "1664x2496", "2496x1664", "1728x2304", "2304x1728", "1600x2848", "2848x1600", "3136x1344"),
    "4K": ("4096x4096", "3328x4992", "4992x3328", "3520x4704", "4704x3520", "3040x5504", "5504x3040", "6240x2656"),
}
_ASPECTS = ("1:1", "2:3", "3:2", "3:4", "4:3", "9:16", "16:9", "21:9")
_MAX_IMAGE = 10_000_000
_FIELDS = {
    *("model", "prompt", "image", "size", "response_format", "output_format", "watermark", "stream"),
    *("sequential_image_generation", "sequential_image_generation_options"),
}


class _Model(msgspec.Struct, frozen=True):
    tiers: tuple[str, ...]
    formats: bool = False  # whether it knows output_format
    max_references: int = 14


_MODELS = {
    "seedream-4-0-250828": _Model(("1K", "2K", "4K")),
    "seedream-4-5-251128": _Model(("2K", "4K")),
    "seedream-5-0-260128": _Model(("2K",), formats=True),
    "dola-seedream-5-0-pro-260628": _Model(("2K",), formats=True, max_references=10),
}


class Wanted(msgspec.Struct, frozen=True):
    """A validated request, the size in pixels, and how the image is to be answered."""

    asked: Asked
    width: int
    height: int
    as_url: bool


def validate(body: dict[str, object]) -> Wanted:
    """Check an image call whose ``null`` fields are gone.

    Raises:
        Turned: with the status, code and words that ModelArk has for it.
    """
    for field in body:
        if field not in _FIELDS:
            raise _wrong(field)
    name, prompt = body.get("model"), body.get("prompt")
    model = _MODELS.get(name) if isinstance(name, str) else None
    if not isinstance(name, str) or model is None:
        why = f"The model or endpoint {name} does not exist"
        raise Turned(404, why, kind="NotFound", code="InvalidEndpointOrModel.NotFound")
    if not isinstance(prompt, str) or not prompt:
        raise Turned(400, "The request is missing prompt", kind="BadRequest", code="MissingParameter", param="prompt")
    if body.get("sequential_image_generation", "disabled") != "disabled":
        raise _wrong("sequential_image_generation")
    if body.get("stream", False) is not False:
        raise _wrong("stream")
    if not isinstance(body.get("watermark", True), bool):
        raise _wrong("watermark")
    if "output_format" in body and not model.formats:
        raise _wrong("output_format")
    tier, place = _size(body.get("size", model.tiers[0]), model)
    width, _, height = _SIZES[tier][place].partition("x")
    asked = Asked(
        model=name,
        prompt=prompt,
        references=_references(body.get("image", []), model),
        aspect=_ASPECTS[place],
        resolution=tier,
        output_format="png" if _choice(body, "output_format", "jpeg", "png") == "png" else "jpg",
    )
    return Wanted(asked, int(width), int(height), as_url=_choice(body, "response_format", "url", "b64_json") == "url")


def _size(size: object, model: _Model) -> tuple[str, int]:
    """Find the tier and the place of the aspect: a pair of pixels, or the word for a square."""
    for tier in model.tiers:
        if size == tier:
            return tier, 0
        for place, pair in enumerate(_SIZES[tier]):
            if size == pair:
                return tier, place
    raise _wrong("size")


def _references(given: object, model: _Model) -> tuple[str, ...]:
    images = [given] if isinstance(given, str) else given
    if not isinstance(images, list) or len(images) > model.max_references:
        raise _wrong("image")
    for image in images:
        if not isinstance(image, str) or not (is_inline(image) or is_url(image)) or inline_bytes(image) > _MAX_IMAGE:
            raise _wrong("image")
        if is_url(image) and not is_reachable(image):
            raise _wrong("image", f"The image {image} could not be downloaded")
    return tuple(identity(image) for image in images)


def _choice(body: dict[str, object], field: str, *allowed: str) -> str:
    return choice(body, field, allowed, _wrong(field))


def _wrong(field: str, why: str = "") -> Turned:
    why = why or f"The parameter {field} is not valid"
    return Turned(400, why, kind="BadRequest", code="InvalidParameter", param=field)
