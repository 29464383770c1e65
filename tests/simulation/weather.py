"""How bad a simulated night is: what goes wrong on the wire, at the providers, and with the clock."""

from collections.abc import Callable

import msgspec

from adapters.sandbox.base import Job
from adapters.sandbox.faults import PROFILES, ChaosProfile
from adapters.sandbox.jobs import MemoryJobs


class Weather(msgspec.Struct, frozen=True):
    """Shares of requests, and times in seconds.

    ``late``: the connection breaks, and the request arrives up to ``late_s`` after that.  ``listings_fail_s``: so
    long from the start of each life, listings and lookups answer with a 5xx.  ``jumps``: how often an hour the wall
    clock is set wrong, by up to two hours either way.
    """

    chaos: ChaosProfile = PROFILES["none"]
    refused: float = 0.0  # the connection fails before a byte is sent
    lost_request: float = 0.0  # sent, never arrives
    lost_reply: float = 0.0  # served, the answer is lost
    late: float = 0.0
    late_s: float = 8.0
    listing_lag_s: float = 0.0
    listings_fail_s: float = 0.0
    jumps: float = 0.0


FAIR = Weather()
ROUGH = Weather(
    chaos=ChaosProfile(
        throttle=0.05,
        error_before=0.03,
        error_after=0.03,
        reset_after=0.03,
        fail_job=0.05,
        hook_lost=0.2,
        hook_twice=0.2,
    ),
    refused=0.03,
    lost_request=0.01,
    lost_reply=0.03,
)
SLOW = Weather(
    chaos=ChaosProfile(slow_reply=0.3, slow_s=40.0, cut_reply=0.05, hook_late=0.5), late=0.05, listing_lag_s=4.0
)
DARK = Weather(
    chaos=ChaosProfile(
        fail_job=0.2, truncated=0.1, wrong_bytes=0.1, blank=0.1, policy_job=0.05, hook_forged=0.5, hook_late=0.2
    ),
    lost_reply=0.15,
    late=0.1,
    listings_fail_s=45.0,
)
JUMPY = Weather(chaos=ROUGH.chaos, lost_reply=0.1, late=0.05, jumps=720.0)
WEATHERS = {"fair": FAIR, "rough": ROUGH, "slow": SLOW, "dark": DARK, "jumpy": JUMPY}


class LaggingJobs(MemoryJobs):
    """A job table whose listings do not show the newest jobs yet."""

    def __init__(self, lag_s: float, now_us: Callable[[], int]) -> None:
        super().__init__()
        self._lag_us = round(lag_s * 1e6)
        self._now_us = now_us

    def list(
        self, provider: str, account: str, *, since_us: int, until_us: int, limit: int, before_us: int | None = None
    ) -> list[Job]:
        return super().list(
            provider,
            account,
            since_us=since_us,
            until_us=min(until_us, self._now_us() - self._lag_us),
            limit=limit,
            before_us=before_us,
        )
