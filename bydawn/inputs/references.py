"""Reference images of a row: URLs, paths and patterns, ``|`` or ``;`` between them, in order.

One that itself contains one of these characters is given as a JSON list (``["https://…;x=1"]``), which is how
lists arrive from JSONL too.
"""

import re
from pathlib import Path

import msgspec

from bydawn.inputs.localfiles import BadReference, LocalFiles

_SEPARATOR = re.compile(r"[|;]")
_MAX_URL_CHARS = 4096
_SHOWN_CHARS = 80
# Host of at least one character, no white space or control character anywhere.
_URL = re.compile(r"https?://[^/?#\s\x00-\x1f\x7f@]+(?:[/?#][^\s\x00-\x1f\x7f]*)?", re.IGNORECASE)
_WITH_LOGIN = re.compile(r"https?://[^/?#\s]*@", re.IGNORECASE)
_list = msgspec.json.Decoder(list[str])


def parse_references(cell: str, files: LocalFiles, *, folder: Path) -> tuple[str, ...]:
    """Split the references of one cell and find each, in the form in which they stand in a request.

    Args:
        folder: where relative paths begin.

    Raises:
        BadReference: for the first one that is not usable.
    """
    cell = cell.strip()
    if cell.startswith("["):
        try:
            parts = _list.decode(cell)
        except msgspec.DecodeError as exc:
            raise BadReference("not a JSON list of texts") from exc
    else:
        parts = _SEPARATOR.split(cell)
    found: list[str] = []
    for part in parts:
        if part.strip():
            found += find_reference(part.strip(), files, folder=folder)
    return tuple(found)


def find_reference(reference: str, files: LocalFiles, *, folder: Path) -> tuple[str, ...]:
    """Return a URL as it is, and local files by their digests: several for a pattern.

    Raises:
        BadReference: it is not usable.
    """
    if _URL.fullmatch(reference):
        if len(reference) > _MAX_URL_CHARS:
            raise BadReference(f"URL longer than {_MAX_URL_CHARS:,} characters")
        return (reference,)
    if _WITH_LOGIN.match(reference):
        raise BadReference("a URL with a user name or password in it: give one that needs no login")
    if reference[:5].lower() == "data:":
        raise BadReference("a data: URL is not taken: save it as a file and give its path")
    scheme, colon, _ = reference.partition("://")
    if colon and scheme.lower() in ("http", "https"):
        raise BadReference(f"{_shown(reference)!r} is not a valid URL")
    if colon:
        raise BadReference(f"{_shown(reference)!r} is not an http or https URL")
    return tuple(file.text for file in files.find(reference, folder=folder))


def _shown(url: str) -> str:
    """Cut a URL for a message."""
    return url if len(url) <= _SHOWN_CHARS else url[: _SHOWN_CHARS - 3] + "..."
