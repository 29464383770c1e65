"""Reading what people write: money, durations, rates, deadlines, lists.

Each reader takes the text and where it stands (``--budget``, ``BYDAWN_BUDGET``), and raises a
:class:`~bydawn.errors.UserError` that shows the form.  Nothing here knows which options there are.
"""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta, tzinfo
from datetime import time as time_of_day
from decimal import Decimal
from typing import TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from adapters.capabilities import Rate
from bydawn.errors import UserError

_MONEY = re.compile(r"\$?(\d{1,9}(?:\.\d{1,6})?)", re.ASCII)
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,4})?)\s*%", re.ASCII)
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", re.IGNORECASE | re.ASCII)
_RATE = re.compile(r"(\d{1,9})\s*/\s*(\d*(?:\.\d+)?)\s*(s|sec|second|m|min|minute|h|hour)", re.IGNORECASE | re.ASCII)
_TIME = re.compile(r"(\d{1,2}):(\d{2})(?:\s+(\S+))?", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "h": 3600}

_Word = TypeVar("_Word", bound=str)


def money(text: str, *, where: str) -> int:
    """Read dollars as micro-dollars, exactly: ``250``, ``$0.75``."""
    match = _MONEY.fullmatch(text.strip())
    # Seven decimals are refused and not rounded: nobody should have to wonder which way.
    if match is None:
        raise _unreadable(text, where, "write dollars, for example 250 or 0.75 (at most six decimals)")
    return int(Decimal(match[1]) * 1_000_000)


def duration_s(text: str, *, where: str) -> float:
    """Read ``90s``, ``20m``, ``8h``, ``1d12h``."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise _unreadable(text, where, "write a duration, for example 90s, 20m, 8h or 1d12h")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return days * 86_400 + hours * 3_600 + minutes * 60 + seconds


def rate(text: str, *, where: str) -> Rate:
    """Read ``18/10s``, ``600/min``: so many calls in so much time."""
    match = _RATE.fullmatch(text.strip())
    if match is not None:
        count, per_s = int(match[1]), float(match[2] or 1) * _UNIT_S[match[3][0].lower()]
        if count > 0 and per_s > 0:
            return Rate(count=count, per_s=per_s)
    raise _unreadable(text, where, "write calls per time, for example 18/10s or 600/min")


def whole(text: str, *, where: str, least: int = 0) -> int:
    """Read a whole number."""
    if re.fullmatch(r"\d{1,12}", text.strip(), re.ASCII) and int(text) >= least:
        return int(text)
    raise _unreadable(text, where, f"write a whole number, at least {least}")


def part(text: str, *, where: str) -> tuple[int, int]:
    """Read ``N`` or ``P%``: so many, or so many millionths of all; the other one is 0."""
    match = _PERCENT.fullmatch(text.strip())
    ppm = int(Decimal(match[1]) * 10_000) if match is not None else 0
    if 0 < ppm <= 1_000_000:
        return 0, ppm
    if match is None and re.fullmatch(r"\d{1,12}", text.strip(), re.ASCII) and int(text):
        return int(text), 0
    raise _unreadable(text, where, "write a whole number, at least 1, or a share, for example 5% or 0.5%")


def listed(text: str) -> tuple[str, ...]:
    """Read ``a,b`` as its parts, each once, in order."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def one_of(text: str, choices: Iterable[_Word], *, where: str) -> _Word:
    """Read one of a few words."""
    known = tuple(choices)
    for word in known:
        if text == word:
            return word
    raise _unreadable(text, where, "write one of " + ", ".join(known))


def yes(text: str, *, where: str) -> bool:
    """Read a switch."""
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("", "0", "false", "no", "off"):
        return False
    raise _unreadable(text, where, "write true or false")


def moment_us(text: str, *, where: str, now_us: int, zone: tzinfo) -> int:
    """Read a moment ahead, as UTC microseconds.

    ``07:00`` is the next seven o'clock in ``zone``, ``07:00 Europe/Berlin`` there, ``8h`` eight hours from now;
    an ISO date and time without an offset is in ``zone``.
    """
    text = text.strip()
    now = datetime.fromtimestamp(now_us / 1e6, zone)
    if match := _TIME.fullmatch(text):
        return _next(match, now, where=where, text=text)
    if re.fullmatch(r"(\d+(\.\d+)?[dhms])+", text, re.IGNORECASE | re.ASCII):
        return now_us + round(duration_s(text, where=where) * 1_000_000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise _unreadable(text, where, "write 07:00, 07:00 Europe/Berlin, 8h or 2026-11-23T07:00") from exc
    moment_at = round((moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp() * 1_000_000)
    if moment_at <= now_us:
        raise _unreadable(text, where, f"this is in the past: it is {now:%Y-%m-%d %H:%M %Z} now")
    return moment_at


def _next(match: re.Match[str], now: datetime, *, where: str, text: str) -> int:
    zone = now.tzinfo
    if match[3]:
        try:
            zone = ZoneInfo(match[3])
        except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise _unreadable(text, where, f"the time zone {match[3]!r} is not known; Europe/Berlin is one") from exc
    try:
        wanted = time_of_day(int(match[1]), int(match[2]), tzinfo=zone)
    except ValueError as exc:
        raise _unreadable(text, where, "hours go from 00 to 23, minutes from 00 to 59") from exc
    there = now.astimezone(zone)
    moment = datetime.combine(there.date(), wanted)
    # Compared as instants: in the night of a clock change, wall clocks lie.
    if moment.timestamp() <= now.timestamp():
        moment = datetime.combine(there.date() + timedelta(days=1), wanted)
    return round(moment.timestamp() * 1_000_000)


def _unreadable(text: str, where: str, fix: str) -> UserError:
    return UserError("BD-020", f"{text!r} cannot be read", where=where, fix=fix)
