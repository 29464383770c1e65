"""CSV and TSV: a header, then one record per row, all cells text exactly as written.

A record that cannot be read becomes a row with a problem, and the reading goes on after it.  The hard case is a
quote that is never closed: it would swallow the rest of the file and hide every other mistake.  So the record
is given up, its first line alone is named, and the lines it swallowed are read again as rows of their own.
"""

import csv
from collections import deque
from collections.abc import Iterator
from typing import TextIO

from bydawn.errors import UserError
from bydawn.inputs.formats import Format
from bydawn.inputs.rows import MAX_CELL_CHARS, Row
from bydawn.inputs.source import Source, bounded_lines

_EXCERPT_CHARS = 200


class TableReader:
    """Rows of a table.  The header is read at once, rows as often as asked."""

    def __init__(self, source: Source, form: Format) -> None:
        self._source = source
        self._form = form
        # The limit is global in the csv module; setting it is idempotent and only ever raises it.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_CHARS))
        self.columns = self._header()

    def rows(self) -> Iterator[Row]:
        records = self._quoted() if self._form.quoted else self._plain()
        columns = self.columns
        width = len(columns)
        next(records, None)  # the header
        for number, (fields, problem) in enumerate(records, 1):
            if len(fields) == width and not problem:
                yield Row(number, dict(zip(columns, fields)))  # noqa: B905  # the lengths are equal
            else:
                yield Row(number, {}, problem or _count_problem(len(fields), width), fields[0][:_EXCERPT_CHARS])

    def _header(self) -> tuple[str, ...]:
        first, problem = next(self._quoted() if self._form.quoted else self._plain(), ([], ""))
        names = [name.strip() for name in first]
        if problem or not any(names):
            raise UserError(
                "BD-013",
                "the table has no header",
                where=self._source.where,
                why=problem or "the first line names no column",
                fix="the first line must name the columns, for example: id,prompt",
            )
        names = [name or f"column{place}" for place, name in enumerate(names, 1)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(
                "BD-013",
                f"the header has the same column twice: {', '.join(twice)}",
                where=self._source.where,
                fix="rename one of them",
            )
        return tuple(names)

    def _plain(self) -> Iterator[tuple[list[str], str]]:
        delimiter = self._form.delimiter
        with self._source.text(newline="\n") as text:
            for line in bounded_lines(text):
                line = line.rstrip("\n").removesuffix("\r")
                if line:
                    yield line.split(delimiter), ""

    def _quoted(self) -> Iterator[tuple[list[str], str]]:
        with self._source.text(newline="") as text:
            lines = _Lines(text)
            taken = lines.taken
            records = csv.reader(lines.feed(), delimiter=self._form.delimiter, strict=True)
            while True:
                try:
                    for fields in records:
                        taken.clear()
                        if fields:
                            yield fields, ""
                    return
                except csv.Error as exc:
                    first, *swallowed = taken
                    lines.put_back(swallowed)
                    # A new one, or it would go on inside the broken record.
                    records = csv.reader(lines.feed(), delimiter=self._form.delimiter, strict=True)
                    yield [first.rstrip("\r\n")], _quote_problem(exc, several=bool(swallowed))


class _Lines:
    """Lines of a text that remembers those taken for the current record and takes them back."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._back: deque[str] = deque()
        self.taken: list[str] = []

    def put_back(self, lines: list[str]) -> None:
        self._back.extendleft(reversed(lines))
        self.taken.clear()

    def feed(self) -> Iterator[str]:
        while self._back:
            self.taken.append(self._back.popleft())
            yield self.taken[-1]
        for line in bounded_lines(self._text):
            self.taken.append(line)
            yield line


def _count_problem(found: int, width: int) -> str:
    fields = "1 field" if found == 1 else f"{found} fields"
    return f"{fields}, the header has {width}"


def _quote_problem(exc: csv.Error, *, several: bool) -> str:
    text = str(exc)
    if "field limit" in text:
        return f"a cell is longer than {MAX_CELL_CHARS:,} characters, or a quote is never closed"
    if several or "unexpected end" in text:
        return "a quote is opened and not closed properly (a quote inside a quoted cell is written twice)"
    return "text follows a closing quote (a quote inside a quoted cell is written twice)"
