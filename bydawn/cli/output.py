"""How commands speak: data to stdout, talk to stderr, tables that line up, JSON one object per line.

Colour and bold appear on a terminal only and never with ``NO_COLOR``; nothing is said by colour alone.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TypeAlias

import click
import msgspec

from bydawn.cli.formats import harmless, harmless_json, plain, width

Cell = str | int
ExceptionInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def line(text: str = "") -> None:
    """One line of data, for people: what comes from outside can colour it, and steer the terminal no further."""
    sys.stdout.write(harmless(text) + "\n")


def talk(text: str) -> None:
    """One line for the person, which a pipe does not see."""
    sys.stdout.flush()
    sys.stderr.write(harmless(text) + "\n")


class LogFormatter(logging.Formatter):
    """A record is a line: words of providers can neither begin another one nor steer the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (its name in logging)
        record.message = plain(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: "ExceptionInfo") -> str:  # noqa: N802
        return harmless(super().formatException(ei))


def log_to_stderr(level: int, form: str) -> None:
    """Show log records of this level and above to the person."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter(form))
    logging.basicConfig(level=level, handlers=[handler])


def json_line(kind: str, **fields: object) -> None:
    """One object, ``type`` first.  Amounts are micro-dollars, times are UTC microseconds."""
    sys.stdout.write(harmless_json(msgspec.json.encode({"type": kind, **fields}).decode()) + "\n")


def on_terminal() -> bool:
    return sys.stdout.isatty()


def strong(text: str) -> str:
    return _styled(text, bold=True)


def faint(text: str) -> str:
    return _styled(text, dim=True)


def good(text: str) -> str:
    return _styled(text, fg="green")


def bad(text: str) -> str:
    return _styled(text, fg="red")


def doubtful(text: str) -> str:
    return _styled(text, fg="yellow")


def _styled(text: str, *, fg: str | None = None, bold: bool | None = None, dim: bool | None = None) -> str:
    if not on_terminal() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, fg=fg, bold=bold, dim=dim)


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    right: Sequence[str] = (),
    paint: Mapping[str, Callable[[str], str]] | None = None,
    indent: int = 2,
) -> None:
    """Print rows under their heads; the columns named in ``right`` end in one line.

    Cells are cleaned: ids and reasons come from outside.  ``paint`` colours the cells that equal its keys, which
    is done last because colour codes take no room.
    """
    cells = [[plain(str(cell)) for cell in row] for row in rows]
    widths = [max([width(name), *(width(row[i]) for row in cells)]) for i, name in enumerate(head)]
    ends = [name in right for name in head]
    margin = " " * indent
    line(margin + strong("  ".join(map(_pad, head, widths, ends)).rstrip()))
    for row in cells:
        padded = [
            paint[cell](text) if paint and cell in paint else text
            for cell, text in zip(row, map(_pad, row, widths, ends), strict=True)
        ]
        line(margin + "  ".join(padded).rstrip())


def _pad(cell: str, space: int, end: bool) -> str:
    gap = " " * (space - width(cell))
    return gap + cell if end else cell + gap


def pairs(entries: Iterable[tuple[str, str]], *, indent: int = 2) -> None:
    """Print ``name  value`` lines with the values in one line; entries without a value are left out."""
    shown = [(name, text) for name, text in entries if text]
    space = max((len(name) for name, _ in shown), default=0)
    for name, text in shown:
        line(f"{' ' * indent}{faint(f'{name:<{space}}')}  {text}")


def state_paint() -> dict[str, Callable[[str], str]]:
    """Colours of the states of a task, for :func:`table`."""
    return {
        "succeeded": good,
        "failed": bad,
        "held": doubtful,
        "ambiguous": doubtful,
        "cancelled": faint,
        "queued": faint,
    }


class Ticker:
    """Says on stderr how far something is: one line that rewrites itself on a terminal, else a line per 30 s."""

    def __init__(self, label: str, *, quiet: bool = False) -> None:
        self._label = label
        self._quiet = quiet
        self._live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._next = time.monotonic() + (0.3 if self._live else 30.0)
        self._shown = False

    def __call__(self, done: int, total: int = 0) -> None:
        now = time.monotonic()
        if self._quiet or now < self._next:
            return
        text = f"{self._label} {done:,}" + (f" of {total:,}" if total else "")
        if self._live:
            sys.stderr.write(f"\r\x1b[K{text}")
            self._shown = True
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()
        self._next = now + (0.2 if self._live else 30.0)

    def done(self) -> None:
        """Remove the line."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False
