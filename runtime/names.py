"""File names for people: safe, the same every time, and computed for one task without looking at the others.

The name rule.  A text is used as it is when it is *plain*: ASCII letters in lower case, digits, ``. _ -``, beginning
with a letter or digit, not ending with a dot, at most 100 characters, no device name of Windows, and not itself ending
like a suffix (``-`` and 8 hex digits).  Every other text is cleaned and gets ``-`` and the first 8 hex digits of its
SHA-256.  The parts that fanning out adds to a task id are spelt for files first: ``.16:9`` as ``.16x9``, ``.2K`` as
``.2k``; a text that holds such a spelling by itself counts as not plain, so that the two never meet.  So on any file
system, also one that ignores case or normalises Unicode:

* two plain texts differ by more than case, because they have none;
* a plain one never equals a suffixed one;
* two suffixed ones are equal only if 32 bits of SHA-256 agree *and* the cleaned texts do, within one folder.

Upper case always gets the suffix, because whether another task differs by case only can't be known here.

The folder rule.  Task ``n`` lies in block ``(n - 1) // 1000``.  If the *first* import of the batch sealed at most 1,000
tasks, block 0 is ``images/`` itself; every other block is ``images/NNNNN``.  Both depend only on ``n`` and on that
first total, which never changes, so no file moves when a batch grows: it grows new folders.

A superseded version keeps ``.v<version>`` after the name.  A task whose id ends so by itself (``mug.v1`` is variant 1
of ``mug``) keeps its plain name; should a rejected ``mug`` want the same one, the store leaves the first file alone.
"""

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

FOLDER_SIZE = 1000
MAX_NAME_BYTES = 100
EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}

# Unicode 3.2, which Python keeps for IDNA: a newer Python must not give old tasks other names (RES-7).
_unicode = unicodedata.ucd_3_2_0

_PLAIN = re.compile(r"[a-z0-9][a-z0-9._-]*(?<!\.)")
_SUFFIX = re.compile(r"-[0-9a-f]{8}$")
_SUFFIX_LENGTH = 9
_ASPECT = re.compile(r"\.(\d+):(\d+)(?=\.|$)")
_RESOLUTION = re.compile(r"\.(0\.5|[124])K(?=\.|$)")
_SPELT = re.compile(r"\.\d+x\d+(?=\.|$)|\.(?:0\.5|[124])k(?=\.|$)")
_DEVICES = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$"}) | {
    f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³"
}
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")
_NOT_A_FIELD = {"{{": "{", "}}": "}"}


class TemplateError(ValueError):
    """The name template cannot be used; the text says why, for the user."""


def safe_name(text: str) -> str:
    """Turn any text into a file name without ending; distinct texts give names that differ by more than case."""
    spelt = _RESOLUTION.sub(r".\1k", _ASPECT.sub(r".\1x\2", text))
    if _is_plain(spelt) and not _SPELT.search(text):
        return spelt
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[: _SUFFIX_LENGTH - 1]
    return f"{_cleaned(text, MAX_NAME_BYTES - _SUFFIX_LENGTH)}-{digest}"


def render(template: str, fields: Mapping[str, str]) -> str:
    """Fill ``{field}`` places; ``{{`` and ``}}`` are braces.  The result goes through :func:`safe_name`.

    Raises:
        TemplateError: a field that is not there, or a lone brace.
    """

    def fill(match: re.Match[str]) -> str:
        if match[0] in _NOT_A_FIELD:
            return _NOT_A_FIELD[match[0]]
        if match[1] is None:
            raise TemplateError(f"a lone {match[0]!r}; write {match[0] * 2!r} for the brace itself")
        try:
            return fields[match[1]]
        except KeyError:
            raise TemplateError(f"no field or column {match[1]!r}; there are: {', '.join(fields)}") from None

    return _FIELD.sub(fill, template)


def folder(n: int, first_total: int) -> Path:
    """Return the folder of task ``n`` (from 1); ``first_total`` is what the batch's first seal counted."""
    block = (n - 1) // FOLDER_SIZE
    if block == 0 and first_total <= FOLDER_SIZE:
        return Path("images")
    return Path("images", f"{block:05d}")


def image_name(text: str, *, n: int, first_total: int) -> Path:
    """Return where the image of a task is linked, relative to the batch's folder and without its ending.

    Args:
        text: the task id, or what the name template gives for it.
    """
    return folder(n, first_total) / safe_name(text)


def with_ending(name: Path, media_type: str) -> Path:
    """Add the ending of a media type; ``Path.with_suffix`` would eat what follows the last dot of a name."""
    return name.with_name(f"{name.name}.{EXTENSIONS[media_type]}")


def _is_plain(text: str) -> bool:
    return (
        len(text) <= MAX_NAME_BYTES
        and _PLAIN.fullmatch(text) is not None
        and _SUFFIX.search(text) is None
        and text.partition(".")[0] not in _DEVICES
    )


def _cleaned(text: str, max_bytes: int) -> str:
    """Keep letters and digits of every script; what is left of a text is for people, the suffix tells it apart."""
    text = _unicode.normalize("NFC", text)
    kept = "".join(char if char in "._" or _unicode.category(char)[0] in "LN" else "-" for char in text)
    kept = re.sub(r"-{2,}", "-", kept).lstrip(".-_")
    kept = kept.encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore").rstrip(".-_")
    if not kept:
        return "task"
    return f"_{kept}"[:max_bytes] if kept.partition(".")[0].casefold() in _DEVICES else kept
