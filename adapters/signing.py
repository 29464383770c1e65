"""Signatures of callbacks: what the schemes of several providers have in common.

All are an HMAC-SHA256 that any of our secrets may have made (after a rotation there are two), and a time that must be
near ours, so that a callback that was overheard is not good for ever.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable

_STAMP = re.compile(r"[0-9]{1,12}")


def is_recent(stamp: str, now_s: float, *, tolerance_s: float) -> bool:
    """Tell whether a time in whole seconds since 1970 is near, before or after: clocks differ in both directions."""
    return _STAMP.fullmatch(stamp) is not None and abs(now_s - int(stamp)) <= tolerance_s


def is_signed(message: bytes, given: Iterable[bytes], keys: Iterable[bytes]) -> bool:
    """Tell whether any of the given MACs is that of the message under any of the keys; each in constant time."""
    expected = [hmac.digest(key, message, hashlib.sha256) for key in keys if key]
    return any(hmac.compare_digest(mac, one) for one in given for mac in expected)
