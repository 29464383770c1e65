"""What a batch leaves for other programs: ``manifest.jsonl``, ``errors.jsonl``, ``.bydawn``, and CSV exports.

All of it is a function of the ledger: no clock, no random, no order but the tasks' own, so that the files can be
deleted and rebuilt byte for byte (RES-7).  Lines are built one at a time and streamed to a temporary name, which is
synced and renamed; nobody sees half a manifest.

CSV is opened in spreadsheets, and its texts are a stranger's: a cell that a spreadsheet would run is neutralised here
(SEC-5), for every export.  JSON lines stay raw.
"""

import csv
import io
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import msgspec

from runtime.ports import Disk

MANIFEST = "manifest.jsonl"
ERRORS = "errors.jsonl"
MARKER = ".bydawn"

_WRITE_BYTES = 1 << 20
_ERROR_FIELDS = ("id", "row", "status", "error", "provider", "account", "model", "attempts", "cost_microusd")
# OWASP, CSV Injection (read 2026-11): also the full-width forms, which some spreadsheets fold to ASCII.
_FORMULA_STARTS = tuple("=+-@\t\r\n\0＝＋－＠")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class ManifestRow(msgspec.Struct, frozen=True, kw_only=True):
    """One task; the order of the fields is the order in the file.  None is written as null: not applicable.

    ``columns`` are the input's, in input order; they follow the fields of the manifest itself.
    """

    id: str
    row: str
    status: str
    file: str | None = None  # relative to the batch's folder
    sha256: str | None = None
    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    provider: str | None = None
    account: str | None = None
    model: str
    model_version: str | None = None
    version: int = 0  # of the result; 0 = no image
    review: str | None = None
    review_note: str | None = None
    flags: tuple[str, ...] = ()
    attempts: int = 0
    cost_microusd: int = 0
    shared_with: str | None = None  # the id of the task that was bought
    error: str | None = None
    seconds: float | None = None
    columns: Mapping[str, str] = {}


FIELDS = tuple(name for name in ManifestRow.__struct_fields__ if name != "columns")

_encoder = msgspec.json.Encoder()


def manifest_line(row: ManifestRow) -> bytes:
    """Spell one line of ``manifest.jsonl``, with its line feed."""
    return _line(row, FIELDS)


def error_line(row: ManifestRow) -> bytes | None:
    """Spell one line of ``errors.jsonl``; None for a task without an error."""
    return None if row.error is None else _line(row, _ERROR_FIELDS)


def write_lines(disk: Disk, path: Path, lines: Iterable[bytes]) -> None:
    """Write a file whole or not at all, holding no more than a piece of it in memory.  Blocking."""
    disk.make_dir(path.parent)
    part = path.with_name(path.name + ".part")
    disk.remove(part)  # of a run that was killed
    disk.append(part, b"")
    for piece in _pieces(lines):
        disk.append(part, piece)
    disk.sync(part)
    disk.rename(part, path)


# --- the marker -------------------------------------------------------------------------------------------


class Marker(msgspec.Struct, frozen=True):
    """Says whose folder this is, so that another ledger never writes into it."""

    ledger: str
    batch: int


class MarkerDamaged(Exception):
    """There is a marker and it cannot be read: the folder belongs to somebody, unknown whom."""


def write_marker(disk: Disk, root: Path, marker: Marker) -> None:
    write_lines(disk, root / MARKER, [_encoder.encode(marker) + b"\n"])


def read_marker(disk: Disk, root: Path) -> Marker | None:
    """Return the marker of a folder, None when it has none."""
    if not disk.exists(root / MARKER):
        return None
    try:
        return msgspec.json.decode(disk.read(root / MARKER), type=Marker)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise MarkerDamaged(f"{root / MARKER} is not readable as a marker") from exc


# --- CSV --------------------------------------------------------------------------------------------------


def csv_cell(value: object) -> str | int | float:
    """Turn a value into a cell that no spreadsheet runs.  Numbers stay numbers, also as text (``-12.5``)."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return value
    text = value if isinstance(value, str) else "|".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if text.startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(text):
        return "'" + text
    return text


def csv_writer(out: TextIO, *, end: str = "\r\n") -> Callable[[Iterable[object]], object]:
    """Return what writes a row.

    Every text is quoted, so that no separator of another locale (``;``) can begin a cell inside one (SEC-5).
    """
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator=end)
    return lambda row: writer.writerow([csv_cell(value) for value in row])


def csv_lines(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
    """Spell a CSV file line by line, header first."""
    out = io.StringIO()
    write = csv_writer(out)
    for row in itertools.chain((header,), rows):
        write(row)
        yield out.getvalue().encode("utf-8", "replace")
        out.seek(0)
        out.truncate()


def _line(row: ManifestRow, names: Sequence[str]) -> bytes:
    line: dict[str, object] = {name: getattr(row, name) for name in names}
    for column, value in row.columns.items():
        while column in line or column in FIELDS:
            column = f"input.{column}"
        line[column] = value
    return _encoder.encode(line) + b"\n"


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= _WRITE_BYTES:
            yield b"".join(held)
            held.clear()
            size = 0
    if held:
        yield b"".join(held)
