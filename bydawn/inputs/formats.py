"""Which format an input has: by its extension, standard input by its first characters.

Three decisions are made once per file and hold for every row: the format, the delimiter of a CSV, and whether
a TSV is quoted.
"""

import csv
import re
from typing import Literal, TypeAlias

import msgspec

from bydawn.errors import UserError
from bydawn.inputs.source import Source, bounded_lines

FormatName: TypeAlias = Literal["csv", "tsv", "jsonl", "json"]

_BY_EXTENSION: dict[str, FormatName] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
}
_DELIMITERS = ",;\t|"
_SAMPLE_LINES = 50
# A field that opens with a quote and is closed by the quote that belongs to it; a quote inside is doubled.
_QUOTED_FIELD = re.compile(r'"(?:[^"]|"")*"')


class Format(msgspec.Struct, frozen=True):
    """``delimiter`` is set for tables; ``quoted`` tells whether quotes around a field are taken off."""

    name: FormatName
    delimiter: str = ""
    quoted: bool = True


def find_format(source: Source, *, name: str) -> Format:
    """Decide how to read ``source``; ``name`` is the file's name, empty for standard input."""
    kind = _from_name(name, where=source.where) if name else _from_text(source.head())
    match kind:
        case "csv":
            return Format("csv", _sniff_delimiter(source.head()))
        case "tsv":
            return Format("tsv", "\t", quoted=_is_quoted_tsv(source))
        case "jsonl" | "json":
            return Format(kind)


def _from_name(name: str, *, where: str) -> FormatName:
    stem = name.lower().removesuffix(".gz")
    extension = "." + stem.rpartition(".")[2] if "." in stem else ""
    found = _BY_EXTENSION.get(extension)
    if found is None:
        raise UserError(
            "BD-011",
            f"files that end in {extension!r} are not read" if extension else "the file name has no extension",
            where=where,
            why="the format is told by the extension",
            fix="save it as .csv, .tsv, .jsonl or .json (each also .gz), or pipe it in: run - < FILE",
        )
    return found


def _from_text(head: str) -> FormatName:
    start = head.lstrip()[:1]
    if start == "[":
        return "json"
    if start == "{":
        return "jsonl"
    return "tsv" if "\t" in head.partition("\n")[0] else "csv"


def _sniff_delimiter(head: str) -> str:
    """Take the delimiter that gives most sample records as many fields as the header, then the most fields.

    ``csv.Sniffer`` was tried: it guesses letters on one-column tables of prose.
    """
    lines = head.splitlines(keepends=True)
    if len(lines) > 1 and len(head) >= 1 << 16:
        lines.pop()  # it may be cut
    best, best_score = ",", (0.0, 0)
    for delimiter in _DELIMITERS:
        counts: list[int] = []
        records = csv.reader(iter(lines[:_SAMPLE_LINES]), delimiter=delimiter)
        try:
            counts.extend(len(record) for record in records if record)
        except csv.Error:
            continue
        if not counts or counts[0] < 2:
            continue
        score = (counts.count(counts[0]) / len(counts), counts[0])
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _is_quoted_tsv(source: Source) -> bool:
    """Quoted only when every field that begins with a quote ends with the one that closes it.

    One prompt such as ``"G I G G L E" painted on a wall`` proves that quotes are part of the text.
    """
    with source.text(newline="\n") as text:
        for line in bounded_lines(text):
            if '"' not in line:
                continue
            for field in line.rstrip("\r\n").split("\t"):
                if field.startswith('"') and not _QUOTED_FIELD.fullmatch(field):
                    return False
    return True
