"""What every reader of replies needs: strict decoding, bounded words, times, money, ids.

Pure functions without any provider's knowledge.  The only exception they raise on what came from outside is
``MalformedReply``; what may honestly be missing is answered with ``None`` or an empty string.
"""

import base64
import binascii
import hashlib
import math
import re
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from adapters.base import HttpReply, MalformedReply, Standing, Throttled, UploadRefused

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_MAX_WAIT_S = 3600.0  # a longer pause than this is a broken clock at the other end, not advice
_MAX_WORDS = 300


def decode(body: bytes | msgspec.Raw, kind: type[T], what: str) -> T:
    """Decode JSON as ``kind``; ``what`` names the reply in the error, never its content."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise MalformedReply(f"{what}: not the documented JSON") from exc


def decode_or_none(body: bytes | msgspec.Raw, kind: type[T]) -> T | None:
    """Decode where the absence of a readable answer is an answer too (error bodies, optional parts)."""
    try:
        return decode(body, kind, "")
    except MalformedReply:
        return None


def words(text: str) -> str:
    """Cut a provider's free text to what a log line or a table cell can hold."""
    text = " ".join(text.split())
    return text if len(text) <= _MAX_WORDS else text[: _MAX_WORDS - 1] + "…"


def is_job_id(text: str) -> bool:
    """Tell whether this can be a job's id: it ends up in URLs, file names and the ledger."""
    return _JOB_ID.fullmatch(text) is not None


def is_web_address(text: str, *, plain: bool) -> bool:
    """Tell whether this is an address that can be asked: ``https``, and ``http`` too where ``plain``."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return (
        (parts.scheme == "https" or (plain and parts.scheme == "http"))
        and bool(parts.hostname)
        and text.isprintable()
        and " " not in text
    )


def upload_refused(title: str, status: int, text: str) -> UploadRefused:
    """Say that a file was not taken, from the status (or the code of an envelope) and the provider's words."""
    return UploadRefused(
        words(f"{title} took no file: status {status} {text}"),
        retryable=status in (408, 429) or status >= 500,
        account=status in (401, 402, 403),
    )


def storage_refused(title: str, status: int) -> UploadRefused:
    """Say that the storage behind an upload did not take a file.

    Its 401 and 403 are about the permit, which ran out or was for another file, and not about the account: a new one
    may do.
    """
    return UploadRefused(
        f"{title} took no file: HTTP {status}", retryable=status in (401, 403, 408, 429) or status >= 500
    )


def throttled(reply: HttpReply) -> Throttled:
    """Read an answer that says "too fast", with its ``Retry-After`` where that is a number of seconds."""
    return Throttled(seconds(reply.headers.get("retry-after", "")))


def seconds(text: str) -> float | None:
    """Read a plain number of seconds (``Retry-After: 30``); anything else says nothing."""
    text = text.strip()  # of more than float() does: it leaves some separators
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) is None:
        return None
    return min(float(text), _MAX_WAIT_S)


def to_us(moment: datetime) -> int:
    """Count microseconds since 1970; a time without a zone is taken as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_us(at_us: int) -> datetime:
    """Give the UTC time of a count of microseconds."""
    return _EPOCH + timedelta(microseconds=at_us)


def microusd(dollars: float | None) -> int | None:
    """Turn a charge in dollars into micro-dollars; an impossible one says nothing."""
    if dollars is None or not math.isfinite(dollars) or not 0 <= dollars < 1_000_000:
        return None
    return round(dollars * 1_000_000)


def credits_of(value: object) -> float | None:
    """Read a number of credits; an impossible one says nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Compared first: an integer of hundreds of digits is no float, not even an infinite one.
    return float(value) if -1e12 < value < 1e12 else None


def credit_standing(left: float, *, credit_microusd: int) -> Standing:
    """Tell the standing of an account by its credits, each of which is worth so much."""
    if left <= 0:
        return Standing("no_credit", "no credits left", balance=0.0, balance_microusd=0)
    return Standing("ok", balance=left, balance_microusd=round(left * credit_microusd))


def canonical_digest(value: object) -> str:
    """Digest a JSON value independently of the order of its keys."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def result_of(output: msgspec.Raw) -> tuple[str, bytes]:
    """Find the image in an ``output`` value: a URL, a data: URI, or a list whose first item is one.

    Returns:
        ``(url, b"")``, ``("", data)``, or ``("", b"")`` when there is nothing usable.
    """
    value = decode_or_none(output, object)
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, str):
        return "", b""
    if value.startswith(("https://", "http://")):
        return value, b""
    head, comma, encoded = value.partition(",")
    return "", from_base64(encoded) if comma and head.startswith("data:") and head.endswith(";base64") else b""


def from_base64(text: str) -> bytes:
    """Decode strict base64; empty when it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
