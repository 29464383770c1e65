"""What emulators share: their settings, keys, and small pieces of HTTP.

An emulator is constructed with one :class:`EmulatorSettings` and nothing else.
"""

import hashlib
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from adapters.sandbox.base import Job, JobTable, Limits, Reply
from adapters.sandbox.faults import PROFILES, ChaosProfile


class EmulatorSettings(msgspec.Struct, frozen=True):
    """Everything an emulator is told from outside.

    ``files_origin`` is where result files are served (``http://127.0.0.1:8700``); results of ``job`` are at
    ``file_url(settings, job)``.  ``price_factor`` makes every charge so much dearer than the provider's price list, as
    if it had changed overnight.  ``small_px`` > 0 draws that many pixels on the shorter side (simulation), and
    ``small_page`` > 0 shows that many jobs on a page of a listing whose size is the provider's to choose.
    """

    jobs: JobTable
    limits: Limits
    files_origin: str
    chaos: ChaosProfile = PROFILES["none"]
    latency_s: float = 2.0
    rate_factor: float = 5.0
    price_factor: float = 1.0
    seed: int = 0
    small_px: int = 0
    small_page: int = 0
    webhook_key: str = ""  # signs callbacks where the provider does; empty = the user made no key


def file_url(settings: EmulatorSettings, job: Job) -> str:
    """Where the result of ``job`` can be fetched."""
    return f"{settings.files_origin}/files/{job.provider}/{job.id}.{job.output_format}"


def account_digest(key: str) -> str:
    """What is kept of a key: enough to tell accounts apart, nothing to use.

    An account may have several keys, as after a rotation: ``sandbox-x+2`` is another key of ``sandbox-x``.
    """
    account = key.partition("+")[0] if key.startswith("sandbox") else key
    return hashlib.sha256(b"sandbox account " + account.encode()).hexdigest()[:32]


def bearer(headers: Mapping[str, str]) -> str:
    """Take the key from an ``Authorization: Bearer`` header; empty when there is none."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def key_standing(key: str, *, looks_right: bool) -> Literal["good", "refused", "no_credit"]:
    """Judge a key by its text: ``sandbox...`` or the provider's own shape is good, ``wrong`` in it is refused,
    ``broke`` in it has no credit."""
    if not key or "wrong" in key or not (looks_right or key.startswith("sandbox")):
        return "refused"
    return "no_credit" if "broke" in key else "good"


def is_locked(key: str) -> bool:
    """Whether the models are not enabled for this key: ``locked`` in its text."""
    return "locked" in key


def takes_callbacks(url: str) -> bool:
    """Whether a strict provider would call this address back: HTTPS, or plain on this machine (a rehearsal)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    plain_here = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    return bool(parts.hostname) and (parts.scheme == "https" or plain_here)


def json_reply(status: int, value: object, headers: Mapping[str, str] | None = None) -> Reply:
    """Build a JSON answer."""
    return Reply(status, {"content-type": "application/json", **(headers or {})}, msgspec.json.encode(value))


def json_object(body: bytes) -> dict[str, object] | None:
    """Read a request body that must be a JSON object; None when it is not."""
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
