"""Rate limits as a provider enforces them: one token bucket per account and kind of call.

A bucket holds at most one window's worth of calls and refills evenly, which is the documented rate plus one
burst.  ``factor`` stretches every limit (a rehearsal need not take the whole night).  Lost on restart, as at a
provider that restarts.
"""


class TokenBuckets:
    """All buckets of one sandbox."""

    def __init__(self, factor: float = 1.0) -> None:
        self._factor = factor
        self._buckets: dict[str, tuple[float, int]] = {}  # name -> tokens left, as of when

    def take(self, bucket: str, *, count: int, per_s: float, now_us: int) -> float:
        """Take one token; returns 0.0, or the seconds until there is one (and takes none)."""
        size = max(1.0, count * self._factor)
        rate = size / per_s
        tokens, at_us = self._buckets.get(bucket, (size, now_us))
        tokens = min(size, tokens + rate * max(0, now_us - at_us) / 1_000_000)
        # The tolerance keeps a caller that waits exactly the answered time from losing to rounding.
        granted = tokens >= 1.0 - 1e-6
        self._buckets[bucket] = (max(0.0, tokens - 1.0) if granted else tokens, max(now_us, at_us))
        return 0.0 if granted else (1.0 - tokens) / rate
