"""JSONL and JSON arrays: one object per row, all values text exactly as written.

Numbers keep their spelling (``1.50`` stays ``1.50``), ``null`` is an empty cell, lists and objects stay JSON
text.  An array is cut into its elements without reading it whole, so a broken element is one bad row.
"""

import re
from collections.abc import Iterator

import msgspec

from bydawn.errors import UserError
from bydawn.inputs.rows import MAX_CELL_CHARS, Row
from bydawn.inputs.source import Source, bounded_lines

_CHUNK = 1 << 18
_EXCERPT_CHARS = 200
_MAX_ELEMENT_CHARS = 4 * MAX_CELL_CHARS

_all_text = msgspec.json.Decoder(dict[str, str])
_any_value = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)
# A whole string is one token, so that brackets inside it do not count, and so is an object without brackets inside,
# which most rows are; a lone quote is a string that the chunk cut.  The quantifiers are possessive, or a cut object
# would be tried in all its parts.
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TOKEN = re.compile(rf'{_STRING}|\{{(?:[^][{{}}"]++|{_STRING})*+\}}|[][{{}},"]', re.DOTALL)


class JsonReader:
    """Rows of a JSONL file or a JSON array.  Columns are only known from the rows."""

    columns: tuple[str, ...] = ()

    def __init__(self, source: Source, *, array: bool) -> None:
        self._source = source
        self._array = array

    def rows(self) -> Iterator[Row]:
        texts = self._elements() if self._array else self._lines()
        return (_row(number, text) for number, text in enumerate(texts, 1))

    def _lines(self) -> Iterator[str]:
        with self._source.text(newline="\n") as text:
            yield from (line for line in bounded_lines(text) if not line.isspace())

    def _elements(self) -> Iterator[str]:
        with self._source.text(newline="") as text:
            yield from split_array(iter(lambda: text.read(_CHUNK), ""), where=self._source.where)


def _row(number: int, text: str) -> Row:
    try:
        return Row(number, _all_text.decode(text))
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        pass  # some value is not text; or the line is broken, which the slower way below finds out
    try:
        return Row(number, {name: _cell(value) for name, value in _any_value.decode(text).items()})
    except msgspec.ValidationError:
        return Row(number, {}, "not a JSON object", text.strip()[:_EXCERPT_CHARS])
    except msgspec.DecodeError as exc:
        return Row(number, {}, f"not JSON: {exc}", text.strip()[:_EXCERPT_CHARS])
    except RecursionError:
        return Row(number, {}, "nested too deeply", text.strip()[:_EXCERPT_CHARS])
    except UnicodeEncodeError:
        return Row(number, {}, "bytes that are not UTF-8", text.strip()[:_EXCERPT_CHARS])


def _cell(value: msgspec.Raw) -> str:
    raw = bytes(value)
    if raw.startswith(b'"'):
        return _string.decode(raw)
    return "" if raw == b"null" else raw.decode()


def split_array(chunks: Iterator[str], *, where: str) -> Iterator[str]:
    """Cut a JSON array into the text of its elements, whatever stands in them.

    Raises:
        UserError: when it is no array, when it never ends, or when text follows it.
    """
    buffer = ""
    start = position = depth = 0  # of the element that is being read; of the scan; of the brackets
    done = False
    for chunk in chunks:
        buffer = buffer[start:] + chunk
        position -= start
        start = 0
        if depth == 0 and not done:
            position = len(buffer) - len(buffer.lstrip())
            if position == len(buffer):
                continue
            if buffer[position] != "[":
                raise _broken("the file is not a JSON array", where)
        for token in _TOKEN.finditer(buffer, position):
            kind = token.group() if token.end() - token.start() == 1 else ""
            if done or kind == '"':
                position = token.start()
                break
            position = token.end()
            if kind in ("[", "{"):
                depth += 1
                if depth == 1:
                    start = position
            elif kind in ("]", "}"):
                depth -= 1
                if depth == 0:
                    done = True
                    if buffer[start : token.start()].strip():
                        yield buffer[start : token.start()]
                    start = position
            elif kind == "," and depth == 1:
                yield buffer[start : token.start()]
                start = position
        else:
            position = len(buffer)
        if done and buffer[start:].strip():
            raise _broken("text follows the end of the array", where)
        if len(buffer) - start > _MAX_ELEMENT_CHARS:
            raise _broken(f"an element is longer than {_MAX_ELEMENT_CHARS:,} characters, or never ends", where)
    if not done:
        raise _broken("the array never ends" if depth else "the file is empty", where)


def _broken(what: str, where: str) -> UserError:
    return UserError(
        "BD-016", what, where=where, fix="the file must be one JSON array of objects; one per line is .jsonl"
    )
