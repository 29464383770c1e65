"""Numbers and times as people read them.  Pure text in, text out; what scripts read never passes through here."""

import json
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from unicodedata import category, east_asian_width

MICRO = 1_000_000

_OUR_COLOURS = re.compile(r"(\x1b\[(?:[0-2]|3[1-3])m)")


def dollars(microusd: int, places: int | None = None) -> str:
    """``$0.06``, ``$0.0455``, ``$12.30``, ``$1,204.77``: cents, and below ten dollars as exact as needed."""
    if places is None:
        places = _places(microusd)
    sign = "-" if microusd < 0 else ""
    return f"{sign}${abs(microusd) / MICRO:,.{places}f}"


def dollar_column(amounts: Iterable[int]) -> list[str]:
    """The same number of places for all, so that the points stand in one line."""
    amounts = list(amounts)
    places = common_places(amounts)
    return [dollars(amount, places) for amount in amounts]


def common_places(amounts: Iterable[int]) -> int:
    """The number of places for amounts that stand in one output, so that equal ones look equal."""
    amounts = list(amounts)
    return 2 if any(abs(a) >= 10 * MICRO for a in amounts) else max(map(_places, amounts), default=2)


def _places(microusd: int) -> int:
    if abs(microusd) >= 10 * MICRO or microusd % 10_000 == 0:
        return 2
    return 3 if microusd % 1_000 == 0 else 4


def count(number: int) -> str:
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """``1 task``, ``1,632 tasks``; for nouns that take an s."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def size(octets: int) -> str:
    """``830 B``, ``12.4 KB``, ``3.1 GB``."""
    value = float(octets)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """``0.8 s``, ``42 s``, ``3 min 20 s``, ``2 h 05 min``, ``3 d 4 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def local(at_us: int) -> datetime:
    """The moment on the wall clock of the person who reads."""
    # By whole numbers: a float holds microseconds of this century only nearly.
    return datetime.fromtimestamp(at_us // MICRO).astimezone() + timedelta(microseconds=at_us % MICRO)


def moment(at_us: int) -> str:
    """``2026-11-22 08:43:46 CET``."""
    return f"{local(at_us):%Y-%m-%d %H:%M:%S %Z}"


def clock_time(at_us: int) -> str:
    """``08:43:46.120``; what stands above it gives the day and the zone."""
    at = local(at_us)
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03}"


def percent(part: int, whole: int) -> str:
    """Never rounds up to 100 %: that is said only when it is so."""
    if whole <= 0:
        return "-"
    share = 100 * part / whole
    return "100%" if part >= whole else f"{min(share, 99.9):.1f}%" if share >= 99 else f"{share:.0f}%"


def plain(text: str) -> str:
    """Make text from outside fit for a terminal: control characters could move the cursor or rewrite what is above."""
    return "".join(char if char.isprintable() else "�" if char not in "\t\r\n" else " " for char in text)


def harmless(text: str) -> str:
    """The same for lines that are ready: line ends stay, and so do the colours that we ourselves use, by which nothing
    is ever said alone."""
    if text.isprintable():
        return text
    parts = _OUR_COLOURS.split(text)  # every second part is a colour
    return "".join(part if at % 2 else _uncontrolled(part) for at, part in enumerate(parts))


def _uncontrolled(text: str) -> str:
    return "".join(char if char.isprintable() or char in "\t\n" else "�" for char in text)


def harmless_json(text: str) -> str:
    """The same for a line of JSON, which means what it meant: JSON itself spells only some control characters out, and
    a terminal obeys others, too."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def width(text: str) -> int:
    """Columns that ``text`` takes: wide East Asian characters two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if category(char) in ("Mn", "Me", "Cf") else 2 if east_asian_width(char) in "WF" else 1 for char in text
    )


def clip(text: str, columns: int) -> str:
    """Shorten to ``columns``, with a mark where something is missing."""
    if width(text) <= columns:
        return text
    kept = ""
    for char in text:
        if width(kept) + width(char) > columns - 1:
            break
        kept += char
    return kept + "…"
