"""The other end of the wire in a simulated night: the emulated providers, what is on its way to them, their bill.

It outlives every process.  It has a clock of its own: the machine's wall clock may jump, this one does not.
"""

from collections.abc import Callable, Sequence
from email.utils import formatdate
from urllib.parse import parse_qsl, urlsplit

import msgspec

from adapters.base import HttpCall
from adapters.sandbox.base import Call, Reply
from adapters.sandbox.house import BillLine, House
from adapters.sandbox.limits import TokenBuckets
from adapters.sandbox.wirefmt import EmulatorSettings
from tests.simulation.weather import LaggingJobs, Weather
from tests.simulation.wire import ORIGIN

_DAY_US = 86_400_000_000
_CREATES_BATCH = ":batchGenerateContent"


class FarEnd:
    """``created`` are the names of the batch files that were made into a batch."""

    def __init__(self, providers: Sequence[str], *, weather: Weather, seed: int, served: Callable[[int], None]) -> None:
        """``served`` is told the time after each request that had an effect or not."""
        self._weather = weather
        self._served = served
        self._pending: list[tuple[int, HttpCall]] = []
        self._handled_us = 0  # when the request arrived that is being answered
        self.created: set[str] = set()
        self.house = House(
            EmulatorSettings(
                jobs=LaggingJobs(weather.listing_lag_s, lambda: self._handled_us),
                limits=TokenBuckets(100.0),
                files_origin=ORIGIN,
                chaos=weather.chaos,
                latency_s=2.0,
                rate_factor=100.0,
                seed=seed,
                small_px=64,
                small_page=3,  # so that listings have many pages
            ),
            providers,
        )

    def serve(self, call: HttpCall, now_us: int, *, since_start_s: float) -> Reply:
        """Let a request arrive, after those that were on their way for longer."""
        self._arrive(now_us)
        if since_start_s < self._weather.listings_fail_s and _asks_for_doubt(call):
            return Reply(503, {}, b"busy")
        return self._handle(call, now_us)

    def arrive_later(self, call: HttpCall, at_us: int) -> None:
        self._pending.append((at_us, call))

    def bill(self, now_us: int) -> list[BillLine]:
        """What the providers charge when everything has ended, and all that was on its way has arrived."""
        self._arrive(now_us + _DAY_US)
        return list(self.house.bill(0, now_us + _DAY_US))

    def _arrive(self, now_us: int) -> None:
        due = sorted((entry for entry in self._pending if entry[0] <= now_us), key=lambda entry: entry[0])
        self._pending = [entry for entry in self._pending if entry[0] > now_us]
        for at_us, late in due:
            self._handle(late, at_us)

    def _handle(self, call: HttpCall, now_us: int) -> Reply:
        self._handled_us = now_us
        parts = urlsplit(call.url)
        headers = {name.lower(): value for name, value in call.headers.items()}
        reply = self.house.handle(
            Call(call.method, parts.path, dict(parse_qsl(parts.query)), headers, call.body, ORIGIN), now_us
        )
        if parts.path.endswith(_CREATES_BATCH):
            self.created.add(msgspec.json.decode(call.body)["batch"]["displayName"])
        self._served(now_us)
        return msgspec.structs.replace(reply, headers={**reply.headers, "date": formatdate(now_us / 1e6, usegmt=True)})


def _asks_for_doubt(call: HttpCall) -> bool:
    """Whether it is a listing or a lookup: what recovery asks."""
    path = urlsplit(call.url).path
    if call.method == "GET":
        return path.endswith(("/predictions", "/batches")) or "history" in path or "/bd-" in path
    return path.startswith("/wavespeed/") and path.endswith("/predictions")
