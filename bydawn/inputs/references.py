"""Reference images of a row: URLs, ``|`` or ``;`` between them, in order.

A URL that itself contains one of these characters is given as a JSON list (``["https://…;x=1"]``), which is how
lists arrive from JSONL too.
"""

import re

import msgspec

_SEPARATOR = re.compile(r"[|;]")
_MAX_URL_CHARS = 4096
# Host of at least one character, no white space or control character anywhere.
_URL = re.compile(r"https?://[^/?#\s\x00-\x1f\x7f@]+(?:[/?#][^\s\x00-\x1f\x7f]*)?", re.IGNORECASE)
_WITH_LOGIN = re.compile(r"https?://[^/?#\s]*@", re.IGNORECASE)
_list = msgspec.json.Decoder(list[str])


class BadReference(ValueError):
    """A reference that cannot be used, in words for the user."""


def parse_references(cell: str) -> tuple[str, ...]:
    """Split and check the references of one cell.

    Raises:
        BadReference: for the first one that is not a usable URL.
    """
    cell = cell.strip()
    if not cell:
        return ()
    if cell.startswith("["):
        try:
            parts = _list.decode(cell)
        except msgspec.DecodeError as exc:
            raise BadReference("not a JSON list of URLs") from exc
    else:
        parts = _SEPARATOR.split(cell)
    references = tuple(part.strip() for part in parts if part.strip())
    for reference in references:
        problem = reference_problem(reference)
        if problem:
            raise BadReference(problem)
    return references


def reference_problem(reference: str) -> str:
    """Say why ``reference`` cannot be used; empty when it can."""
    shown = reference if len(reference) <= 80 else reference[:77] + "..."
    if _URL.fullmatch(reference):
        return f"URL longer than {_MAX_URL_CHARS:,} characters" if len(reference) > _MAX_URL_CHARS else ""
    if _WITH_LOGIN.match(reference):
        return "a URL with a user name or password in it: give one that needs no login"
    scheme, colon, _ = reference.partition("://")
    if reference.lower().startswith("data:"):
        return "data: URLs are not uploaded yet: give an http or https URL"
    if colon and scheme.lower() in ("http", "https"):
        return f"{shown!r} is not a valid URL"
    if colon:
        return f"{shown!r} is not an http or https URL"
    return f"{shown!r} is a local file, and local files are not uploaded yet: give a URL"
