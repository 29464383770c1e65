"""What Google's emulator accepts: the models, the body of ``generateContent``, and what its tokens cost.

Strict where the real thing may be lax: unknown fields are refused, as Google's JSON parser refuses them.  Names are
taken in both spellings, ``imageConfig`` and ``image_config``, as Google takes them.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping

import msgspec

from adapters.sandbox.accepting import Asked
from adapters.sandbox.base import Job

_ASPECTS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
_SIZES = {"512": "0.5K", "1K": "1K", "2K": "2K", "4K": "4K"}
_MEDIA = ("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif")
_MAX_INLINE = 7_000_000
_REFERENCE_TOKENS = 560
_UNUSED = frozenset({"temperature", "topP", "topK", "maxOutputTokens", "thinkingConfig"})
_CONFIG = frozenset({"candidateCount", "responseModalities", "imageConfig", "seed"}) | _UNUSED


class Refused(Exception):  # the 4xx on its way out of the emulator, never further
    """The request is not taken: code, status and message in Google's words, and the details beside them."""

    def __init__(self, code: int, status: str, message: str, *details: Mapping[str, object]) -> None:
        super().__init__(code, status, message)
        self.code = code
        self.status = status
        self.message = message
        self.details = details


class Model(msgspec.Struct, frozen=True):
    """Prices are thousandths of a micro-dollar per token; ``images`` are tokens by resolution."""

    images: dict[str, int]
    max_references: int
    told: int
    drawn: int
    enqueued: int  # tokens that may wait in batches at one time
    aspects: tuple[str, ...] = _ASPECTS
    sized: bool = True  # has the field imageSize


MODELS = {
    "gemini-2.5-flash-image": Model({"1K": 1_290}, 3, 300, 30_000, 3_000_000, sized=False),
    "gemini-3.1-flash-image": Model(
        {"0.5K": 747, "1K": 1_120, "2K": 1_680, "4K": 2_520},
        14,
        500,
        60_000,
        1_000_000,
        aspects=(*_ASPECTS, "1:4", "4:1", "1:8", "8:1"),
    ),
    "gemini-3-pro-image": Model({"1K": 1_120, "2K": 1_120, "4K": 2_000}, 14, 2_000, 120_000, 2_000_000),
}


# --- tokens and money ---------------------------------------------------------------------------------------


def prompt_tokens(prompt: str, references: int) -> int:
    """Estimate as a tokenizer might count: four bytes of text each."""
    return max(1, len(prompt.encode()) // 4) + references * _REFERENCE_TOKENS


def usage(job: Job, *, drawn: bool) -> dict[str, object]:
    """Count the tokens of a job; one that was blocked has drawn nothing."""
    told = prompt_tokens(job.prompt, len(job.references))
    image = MODELS[job.model].images[job.resolution] if drawn else 0
    counted: dict[str, object] = {"promptTokenCount": told, "totalTokenCount": told + image}
    if drawn:
        details = [{"modality": "IMAGE", "tokenCount": image}]
        counted |= {"candidatesTokenCount": image, "candidatesTokensDetails": details}
    return counted


def price(asked: Asked | Job, *, drawn: bool, half: bool) -> int:
    """Price a request in micro-dollars by its tokens, rounded up."""
    model = MODELS[asked.model]
    nanousd = prompt_tokens(asked.prompt, len(asked.references)) * model.told
    nanousd += model.images[asked.resolution] * model.drawn if drawn else 0
    return -(-nanousd // (2_000 if half else 1_000))


# --- the body -----------------------------------------------------------------------------------------------


def plain(value: object) -> object:
    """Spell the names of fields in camel case, all the way down."""
    if isinstance(value, dict):
        return {re.sub(r"_([a-z])", lambda found: found[1].upper(), name): plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def validate(body: object, name: str, file: Callable[[str], bytes]) -> Asked:
    """Check a body against what a model takes, which there is.

    References are the digests of their bytes: the same file is the same reference.

    Args:
        file: gives the bytes of an uploaded file by its address; raises Refused.

    Raises:
        Refused: as Google words it.
    """
    model = MODELS[name]
    fields = _object(body, "request", {"model", "contents", "generationConfig", "tools", "safetySettings"})
    contents = fields.get("contents")
    if not isinstance(contents, list) or not contents:
        raise invalid("* GenerateContentRequest.contents: contents is not specified")
    prompt: list[str] = []
    references: list[str] = []
    for content in contents:
        parts = _object(content, "contents", {"role", "parts"}).get("parts")
        for part in parts if isinstance(parts, list) else [parts]:
            _read_part(part, prompt, references, file)
    if not "".join(prompt).strip():
        raise invalid("The prompt is empty.")
    if len(references) > model.max_references:
        raise invalid(f"At most {model.max_references} images are supported.")
    config = _object(fields.get("generationConfig", {}), "generation_config", _CONFIG)
    for tool in _list(fields.get("tools", [])):
        _object(tool, "tools", {"googleSearch"})
    aspect, resolution = _image_config(config.get("imageConfig", {}), model)
    _numbers(config)
    if not aspect:
        aspect = "auto" if references else "1:1"
    return Asked(name, "\n".join(prompt), tuple(references), aspect, resolution, "jpg")


def _read_part(part: object, prompt: list[str], references: list[str], file: Callable[[str], bytes]) -> None:
    fields = _object(part, "contents.parts", {"text", "inlineData", "fileData"})
    match fields:
        case {"text": str(text)}:
            prompt.append(text)
        case {"inlineData": {"mimeType": str(kind), "data": str(data)}}:
            references.append(_digest(_inline(kind, data)))
        case {"fileData": {"fileUri": str(uri)}}:
            references.append(_digest(file(uri)))
        case _:
            raise invalid("contents.parts must not be empty.")


def _inline(kind: str, data: str) -> bytes:
    if kind not in _MEDIA:
        raise invalid(f"Unsupported MIME type: {kind}")
    try:
        found = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Invalid value at 'contents[0].parts' (TYPE_BYTES), Base64 decoding failed") from None
    if not found or len(found) > _MAX_INLINE:
        raise invalid("Unable to process input image.")
    return found


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _image_config(value: object, model: Model) -> tuple[str, str]:
    config = _object(value, "generation_config.image_config", {"aspectRatio", "imageSize"})
    aspect = config.get("aspectRatio", "")
    if not isinstance(aspect, str) or (aspect and aspect not in model.aspects):
        raise invalid(f"aspect_ratio must be one of {', '.join(model.aspects)}.")
    size = config.get("imageSize", "1K")
    if not model.sized and "imageSize" in config:
        raise invalid("image_size is not supported for this model.")
    if not isinstance(size, str) or _SIZES.get(size) not in model.images:
        raise invalid("image_size must be one of 1K, 2K, 4K.")
    return aspect, _SIZES[size]


def _numbers(config: Mapping[str, object]) -> None:
    seed = config.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not -(2**31) <= seed < 2**31:
        raise invalid("Invalid value at 'generation_config.seed' (TYPE_INT32)")
    if config.get("candidateCount", 1) != 1:
        raise invalid("Multiple candidates is not enabled for this model")
    if "IMAGE" not in _list(config.get("responseModalities", ["IMAGE"])):
        raise invalid("This emulator draws images only: ask for the modality IMAGE.")


def _object(value: object, where: str, known: frozenset[str] | set[str]) -> dict[str, object]:
    if not isinstance(value, dict):
        raise invalid(f"Invalid value at '{where}'")
    for name in value:
        if name not in known:
            raise invalid(f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field.")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise invalid("Invalid JSON payload received. A list is expected.")
    return value


def invalid(message: str) -> Refused:
    """The answer to a request that is wrong."""
    return Refused(400, "INVALID_ARGUMENT", message)
