"""What the emulators with an OpenAI-style image call share: refusals in the envelope, the image inside the answer."""

import base64
import hashlib
import re
from urllib.parse import urlsplit

import msgspec

from adapters.reading import from_base64
from adapters.sandbox.base import Call, Reply
from adapters.sandbox.wirefmt import json_object, json_reply

_DATA = re.compile(r"data:image/(png|jpeg|webp|gif);base64,(?P<data>[A-Za-z0-9+/]+={0,2})")
_UNREACHABLE = "missing.example"


class Turned(Exception):  # a 4xx on its way out of an emulator, never further
    """The request is turned away: the status, and what stands in the error envelope."""

    def __init__(self, status: int, message: str, *, kind: str, code: str | None = None, param: str = "") -> None:
        super().__init__(status, message)
        self.status, self.message, self.kind, self.code, self.param = status, message, kind, code, param


def error(turned: Turned, headers: dict[str, str] | None = None) -> Reply:
    """Answer with the envelope."""
    said = {"message": turned.message, "type": turned.kind, "param": turned.param or None, "code": turned.code}
    return json_reply(turned.status, {"error": said}, headers)


def read_body(call: Call, turned: Turned) -> dict[str, object]:
    """Read the request: a JSON object that calls itself one, or it is turned away."""
    body = json_object(call.body)
    if body is None or not call.headers.get("content-type", "").startswith("application/json"):
        raise turned
    return body


def is_url(reference: str) -> bool:
    """Whether it is an http(s) URL."""
    return re.fullmatch(r"https?://[\w.-]+(:[0-9]{1,5})?([/?#]\S*)?", reference) is not None


def is_inline(reference: str) -> bool:
    """Whether it is an image in base64."""
    return _DATA.fullmatch(reference) is not None


def identity(reference: str) -> str:
    """What defines a reference image: a URL itself, the digest of the bytes that came in the request."""
    found = _DATA.fullmatch(reference)
    return reference if found is None else f"sha256:{hashlib.sha256(from_base64(found['data'])).hexdigest()}"


def is_reachable(url: str) -> bool:
    """Whether the provider could fetch it: one host is known to be out of reach."""
    return urlsplit(url).hostname != _UNREACHABLE


def inline_bytes(reference: str) -> int:
    """How large an image in base64 is; 0 of a URL."""
    found = _DATA.fullmatch(reference)
    return 0 if found is None else len(found["data"]) * 3 // 4


def choice(body: dict[str, object], field: str, allowed: tuple[str, ...], turned: Turned) -> str:
    """Read one of a set; the first is the default."""
    value = body.get(field, allowed[0])
    if not isinstance(value, str) or value not in allowed:
        raise turned
    return value


def wire_text(body: dict[str, object]) -> str:
    """The request as text for the job table: images that came in it stand there by their digest."""
    return _DATA.sub(lambda found: identity(found[0]), msgspec.json.encode(body).decode())


def with_image(reply: Reply, picture: bytes) -> Reply:
    """Put the picture into ``data[0].b64_json``."""
    body = msgspec.json.decode(reply.body, type=dict[str, object])
    data = msgspec.convert(body["data"], list[dict[str, object]])
    data[0]["b64_json"] = base64.b64encode(picture).decode()
    return msgspec.structs.replace(reply, body=msgspec.json.encode({**body, "data": data}))
