"""Local reference images: found by path or pattern, read once each, and known by their bytes from then on.

A file is judged here as strictly as a result of a provider: its type is told by its first bytes and not by its
name, its pixels are bounded before anything is decoded, and it must decode from start to end.  What only one
provider minds (its size, its type) is that provider's own refusal.

Kept per file: its digest, size and type, never its bytes.
"""

import hashlib
import os
import re
import stat
from bisect import bisect_left
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path

from adapters.references import LocalFile
from bydawn.inputs.copies import Fit
from runtime.images import BadImage, inspect

MAX_FILE_BYTES = 64 << 20  # bounds memory; a picture that a model looks at is far smaller
MAX_MATCHES = 100
_MAGIC = re.compile(r"[*?[]")
_SHOWN_CHARS = 80


class BadReference(ValueError):
    """A reference that cannot be used, in words for the user."""


class LocalFiles:
    """The files that an input refers to, each read when it is first named."""

    def __init__(self, fit: Fit | None = None) -> None:
        """``fit``: copies are used in place of files that some chosen provider would not take."""
        self._fit = fit
        self._known: dict[str, LocalFile | str] = {}  # by absolute path; a text says why it is not usable
        self._names: dict[str, list[str]] = {}
        self._sizes: dict[str, int] = {}  # of the usable ones, by digest
        self.places: dict[str, str] = {}
        """Where each usable file lies, by digest."""

    def __repr__(self) -> str:
        return f"<LocalFiles {self.count} files, {self.size} bytes>"

    @property
    def count(self) -> int:
        """How many different files are usable; the same bytes under two names are one file."""
        return len(self._sizes)

    @property
    def size(self) -> int:
        """Bytes of them all."""
        return sum(self._sizes.values())

    def find(self, text: str, *, folder: Path) -> tuple[LocalFile, ...]:
        """Return the file that ``text`` names, or those that it matches as a pattern, by name.

        Args:
            folder: where relative paths begin.

        Raises:
            BadReference: there is none, or one of them is not usable.
        """
        path = os.path.abspath(folder / text)
        if "\0" in path:
            raise BadReference(f"{shown_path(text)!r} is not a file name")
        if not _MAGIC.search(text) or os.path.lexists(path):
            return (self._read_once(path, text),)
        matches = self._matches(path)
        if not matches:
            raise BadReference(f"{shown_path(text)!r} matches no file")
        if len(matches) > MAX_MATCHES:
            raise BadReference(f"{shown_path(text)!r} matches {len(matches):,} files, {MAX_MATCHES} at most are taken")
        return tuple(self._read_once(match, Path(match).name) for match in matches)

    def _matches(self, pattern: str) -> list[str]:
        """Match as ``glob`` does, but list a folder once: a table may hold a pattern per row for one large folder."""
        folder, name = os.path.split(pattern)
        if _MAGIC.search(folder):
            return sorted(glob(pattern))
        if folder not in self._names:
            try:
                self._names[folder] = sorted(os.listdir(folder))
            except OSError:
                self._names[folder] = []
        names = self._names[folder]
        prefix = _MAGIC.split(name, maxsplit=1)[0]
        found = []
        for place in range(bisect_left(names, prefix), len(names)):
            if not names[place].startswith(prefix):
                break
            hidden = names[place].startswith(".") and not prefix
            if not hidden and fnmatchcase(names[place], name):
                found.append(os.path.join(folder, names[place]))
        return found

    def _read_once(self, path: str, text: str) -> LocalFile:
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = _read(path, self._fit)
            if isinstance(known, LocalFile):
                self._sizes[known.sha256] = known.size
                self.places[known.sha256] = known.path
        if isinstance(known, str):
            raise BadReference(f"{shown_path(text)!r} {known}")
        return known


def shown_path(path: str) -> str:
    """Cut a path for a message, in its middle: it ends with the name that the user looks for."""
    kept = (_SHOWN_CHARS - 3) // 2
    return path if len(path) <= _SHOWN_CHARS else f"{path[:kept]}...{path[-kept:]}"


def _read(path: str, fit: Fit | None = None) -> LocalFile | str:
    """Read and judge a file, or its copy that fits; a text says why it is not usable."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            return "is not a file"
        if found.st_size > MAX_FILE_BYTES:
            return f"has {found.st_size:,} bytes, at most {MAX_FILE_BYTES:,} are taken"
        with open(path, "rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return "is not there"
    except OSError as exc:
        return f"cannot be read: {exc.strerror}"
    if len(data) > MAX_FILE_BYTES:
        return f"grows while it is read, beyond {MAX_FILE_BYTES:,} bytes"
    verdict = inspect(data)
    if isinstance(verdict, BadImage):
        return f"is not an image that can be used: {verdict.reason}"
    file = LocalFile(hashlib.sha256(data).hexdigest(), len(data), verdict.media_type, path)
    if fit is None or fit.takes(file.media_type, file.size):
        return file
    copy = fit.copy(data, file.sha256)
    return file if copy is None else _read(str(copy))
