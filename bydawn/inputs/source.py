"""The bytes of an input: opened as often as needed, digested each time, decoded to text.

An input is read at least twice (everything is checked before anything is staged), so standard input is first
copied to a private temporary file.  The digest is over the bytes as given, compressed or not: the second
reading must give the same one, or the file changed under us.

Knows nothing of rows and formats.
"""

import codecs
import gzip
import hashlib
import io
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, TextIO

from bydawn.errors import UserError

_CHUNK = 1 << 20
MAX_LINE_CHARS = 16 << 20
_GZIP_MAGIC = b"\x1f\x8b"

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class _Digesting(io.RawIOBase):
    """Digests every byte that passes."""

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int] | bytearray") -> int:  # type: ignore[override]  # as io calls it
        count = self._raw.readinto(buffer) or 0
        self.sha256.update(memoryview(buffer)[:count])
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class Source:
    """One input.  ``where`` names it in messages; ``close`` removes the copy of standard input."""

    def __init__(self, path: Path, *, where: str, encoding: str = "", temporary: bool = False) -> None:
        self.where = where
        self.digest = ""  # SHA-256 of the bytes, hex, once it was read to the end
        self._path = path
        self._temporary = temporary
        head = self._head(4096)
        self.compressed = head.startswith(_GZIP_MAGIC)
        self.encoding = self._encoding(encoding)
        self.lenient = False  # decode what is not UTF-8 to lone surrogates, so that each bad row can be named

    @property
    def name(self) -> str:
        return self._path.name

    def close(self) -> None:
        if self._temporary:
            self._path.unlink(missing_ok=True)

    def head(self, size: int = 1 << 16) -> str:
        """Return the first characters of the text."""
        with self.text(newline="") as text:
            return text.read(size)

    @contextmanager
    def text(self, *, newline: str) -> Iterator[io.TextIOWrapper]:
        """Open the text.  When the reader went to the end, the bytes are known to be those of the first time."""
        try:
            raw = _Digesting(io.FileIO(os.fspath(self._path), "r"))
        except OSError as exc:
            raise self._unreadable(exc) from exc
        binary: BinaryIO = io.BufferedReader(raw, _CHUNK)
        if self.compressed:
            binary = io.BufferedReader(gzip.GzipFile(fileobj=binary), _CHUNK)
        errors = "surrogateescape" if self.lenient else "strict"
        try:
            with raw, io.TextIOWrapper(binary, self.encoding, errors=errors, newline=newline) as text:
                yield text
                if not text.read(1):
                    self._remember(raw.sha256.hexdigest())
        except (gzip.BadGzipFile, zlib.error, EOFError) as exc:
            raise UserError(
                "BD-012", "the archive is damaged", where=self.where, why=str(exc), fix="compress the table again"
            ) from exc
        except UnicodeError as exc:
            raise self._undecodable(exc) from exc
        except OSError as exc:
            raise self._unreadable(exc) from exc

    def survey(self) -> None:
        """Read all once: fix the digest, and find out whether the text can be decoded throughout."""
        try:
            self._read_all()
        except UserError as exc:
            if not isinstance(exc.__cause__, UnicodeError) or not self.encoding.startswith("utf-8"):
                raise
            self.lenient = True
            self._read_all()

    def _read_all(self) -> None:
        with self.text(newline="") as text:
            while text.read(_CHUNK):
                pass

    def _remember(self, digest: str) -> None:
        if self.digest and digest != self.digest:
            raise UserError(
                "BD-017",
                "the input changed while it was being read",
                where=self.where,
                why="its bytes differ from those that were checked",
                fix="run the same command again when nothing writes to the file",
            )
        self.digest = digest

    def _head(self, size: int) -> bytes:
        try:
            with open(self._path, "rb") as file:
                return file.read(size)
        except OSError as exc:
            raise self._unreadable(exc) from exc

    def _encoding(self, asked: str) -> str:
        if asked:
            try:
                name = codecs.lookup(asked).name
            except LookupError as exc:
                raise UserError(
                    "BD-020",
                    f"encoding {asked!r} is not known",
                    where="--encoding",
                    fix="for example utf-8, cp1252, latin-1, utf-16, shift_jis",
                ) from exc
            return "utf-8-sig" if name == "utf-8" else name
        head = self._head(4)
        if self.compressed:
            try:
                with gzip.open(self._path) as file:
                    head = file.read(4)
            except (OSError, EOFError, zlib.error) as exc:
                raise UserError("BD-012", "the archive is damaged", where=self.where, why=str(exc)) from exc
        return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")

    def _unreadable(self, exc: OSError) -> UserError:
        return UserError(
            "BD-010",
            "the input cannot be read",
            where=self.where,
            why=exc.strerror or str(exc),
            fix="check the path; `-` reads standard input",
        )

    def _undecodable(self, exc: UnicodeError) -> UserError:
        return UserError(
            "BD-012",
            f"the text is not {self.encoding}",
            where=self.where,
            why=str(exc),
            fix="save the table as UTF-8, or name its encoding: --encoding cp1252",
        )


def bounded_lines(text: TextIO) -> Iterator[str]:
    """Iterate over lines, of which none is held beyond a bound: a small archive can hold one of many gigabytes.

    What is longer comes in pieces.  No row is so long, and none of the pieces passes for one: they are bad rows.
    """
    return iter(partial(text.readline, MAX_LINE_CHARS), "")


def copy_stream(stream: BinaryIO) -> Path:
    """Copy standard input to a temporary file that only this user may read."""
    descriptor, name = tempfile.mkstemp(prefix="bydawn-input-")
    with os.fdopen(descriptor, "wb") as copy:
        while chunk := stream.read(_CHUNK):
            copy.write(chunk)
    return Path(name)
