"""Uploads as the emulated providers take them: the parts of a form, and the address that a file is given.

Nothing of a file is kept: only its digest is needed to give the same file the same address again.
"""

import hashlib
import re

import msgspec

from adapters.sandbox.base import Call

_BOUNDARY = re.compile(r"multipart/form-data;.*\bboundary=\"?([A-Za-z0-9'()+_,./:=?-]{1,70})\"?", re.IGNORECASE)
_NAME = re.compile(r'\bname="([^"]*)"')
_FILE_NAME = re.compile(r'\bfilename="([^"]*)"')
_EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif"}


class Part(msgspec.Struct, frozen=True):
    """One field of a form; ``file_name`` is empty when it is no file."""

    data: bytes
    file_name: str = ""
    media_type: str = ""


def read_form(call: Call) -> dict[str, Part] | None:
    """Read a ``multipart/form-data`` body by field name; None when it is none."""
    found = _BOUNDARY.fullmatch(call.headers.get("content-type", ""))
    if found is None:
        return None
    first, *chunks = (b"\r\n" + call.body).split(b"\r\n--" + found[1].encode())
    if first or not chunks or not chunks[-1].startswith(b"--"):
        return None
    parts = {}
    for chunk in chunks[:-1]:
        head, gap, data = chunk.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = _headers(head)
        disposition = headers.get("content-disposition", "")
        name = _NAME.search(disposition)
        if not gap or name is None:
            return None
        file_name = _FILE_NAME.search(disposition)
        parts[name[1]] = Part(data, file_name[1] if file_name else "", headers.get("content-type", ""))
    return parts


def _headers(head: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n"))
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def image_type(data: bytes) -> str:
    """Tell the media type of an image by its first bytes; empty when it is none that the providers take."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return "image/gif" if data.startswith((b"GIF87a", b"GIF89a")) else ""


def file_name(data: bytes) -> str:
    """Name an uploaded image by its content, as it appears at the end of its address."""
    return f"{hashlib.sha256(data).hexdigest()[:32]}.{_EXTENSIONS.get(image_type(data), 'bin')}"
