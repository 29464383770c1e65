"""What the synchronous providers with an OpenAI-style image call share: the error envelope, the image in an answer.

    {"data": [{"b64_json": "..."} or {"url": "..."}]}        the finished image
    {"error": {"message", "type", "param", "code"}}          why there is none

Functions only: which status and code prove that nothing was bought, each codec says for its own provider.
"""

import msgspec

from adapters.base import HttpReply, ImageRequest, Standing
from adapters.reading import decode_or_none, from_base64, seconds, words
from adapters.references import local_file
from adapters.wording import is_policy

# Base64 of the largest image of a size class, and room for the words around it.  A PNG of noise is the worst case.
_REPLY_MIB = {"0.5K": 4, "1K": 12, "2K": 32, "4K": 96}


class Problem(msgspec.Struct, frozen=True):
    """An error in the provider's words; all empty when the body is no error envelope."""

    message: str = ""
    kind: str = ""
    code: str = ""
    param: str = ""

    def __bool__(self) -> bool:
        return bool(self.message or self.kind or self.code)

    @property
    def text(self) -> str:
        """For people: the message, with the code where there is one."""
        return words(": ".join(part for part in (self.code or self.kind, self.message) if part))

    @property
    def names_policy(self) -> bool:
        return is_policy(f"{self.kind} {self.code} {self.message}".replace("_", " "))


class _Inner(msgspec.Struct, frozen=True):
    message: msgspec.Raw = msgspec.Raw(b"null")
    type: msgspec.Raw = msgspec.Raw(b"null")
    error_type: msgspec.Raw = msgspec.Raw(b"null")
    code: msgspec.Raw = msgspec.Raw(b"null")
    param: msgspec.Raw = msgspec.Raw(b"null")


class _Envelope(msgspec.Struct, frozen=True):
    error: _Inner
    error_type: msgspec.Raw = msgspec.Raw(b"null")  # Together: inside or beside is not documented


class _Item(msgspec.Struct, frozen=True):
    b64_json: str | None = None
    url: str | None = None


class _Data(msgspec.Struct, frozen=True):
    data: list[msgspec.Raw]


def problem_of(body: bytes | msgspec.Raw) -> Problem:
    """Read an error envelope; an empty problem when the body is none."""
    envelope = decode_or_none(body, _Envelope)
    if envelope is None:
        return Problem()
    inner = envelope.error
    return Problem(
        message=_text(inner.message),
        kind=_text(inner.type) or _text(inner.error_type) or _text(envelope.error_type),
        code=_text(inner.code),
        param=_text(inner.param),
    )


def standing_of(reply: HttpReply) -> Standing:
    """Read an answer to the free question that is no success.  A 403 without the envelope is somebody in front of the
    API and says nothing of the key."""
    problem = problem_of(reply.body)
    text = problem.text
    match reply.status:
        case 401:
            return Standing("rejected", text)
        case 403 if problem:
            return Standing("rejected", text)
        case 402:
            return Standing("no_credit", text)
        case _:
            return Standing("unreadable", words(f"status {reply.status} {text}"))


def image_of(body: bytes) -> tuple[str, bytes]:
    """Find the first image of an answer.

    Returns:
        ``(url, b"")``, ``("", data)``, or ``("", b"")`` when there is nothing usable.
    """
    answer = decode_or_none(body, _Data)
    item = decode_or_none(answer.data[0], _Item) if answer is not None and answer.data else None
    if item is None:
        return "", b""
    if item.b64_json:
        return "", embedded(item.b64_json)
    url = item.url or ""
    if url.startswith("data:"):
        return "", embedded(url)
    return (url, b"") if url.startswith(("https://", "http://")) else ("", b"")


def embedded(text: str) -> bytes:
    """Decode an image that stands in a JSON string: base64, bare or as a ``data:`` URI, maybe in lines."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    return from_base64("".join(text.split()))


def files_misfit(request: ImageRequest, most: int, title: str) -> str | None:
    """Say that the local references are too large to travel in one request; None when they are not."""
    size = sum(file.size for file in map(local_file, request.references) if file is not None)
    return f"the references have {size:,} bytes together, {title} takes {most:,}" if size > most else None


def reply_limit(resolution: str) -> int:
    """How many bytes an answer with the image inside may have (SEC-4)."""
    return _REPLY_MIB[resolution] << 20


def wait_s(reply: HttpReply, *headers: str) -> float | None:
    """Read the wait from the first of these headers that says one in seconds."""
    told = (seconds(reply.headers[name]) for name in headers if name in reply.headers)
    return next((wait for wait in told if wait is not None), None)


def _text(raw: msgspec.Raw) -> str:
    """Read what should be a string; some send a code as a number."""
    value = decode_or_none(raw, object)
    return str(value) if isinstance(value, str | int) else ""
