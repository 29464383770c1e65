"""What the simulator's wire meets in the contract suite of all wires (``tests/runtime/test_wire.py``)."""

import math
from urllib.parse import urlsplit

import msgspec
import trio

from adapters.base import HttpCall
from adapters.sandbox.base import Reply
from tests.runtime.servers import Seen
from tests.simulation.weather import FAIR, Weather
from tests.simulation.wire import ORIGIN, Dice, SimWire


class _NoDice:
    """No delay, no accident."""

    def random(self) -> float:
        return 1.0

    def uniform(self, a: float, b: float) -> float:
        return 0.0


class SimWorld:
    """A wire with a place that behaves as the path of the URL says."""

    def __init__(self, *, max_reply_bytes: int) -> None:
        self.random: Dice = _NoDice()
        self.weather: Weather = FAIR
        self.wire = SimWire(self, max_reply_bytes=max_reply_bytes)
        self._too_large = bytes(max_reply_bytes + 1)
        self._seen = 0

    def url(self, path: str) -> str:
        return ("http://nobody.test" if path == "/nobody" else ORIGIN) + path

    async def wait_seen(self, n: int) -> None:
        while self._seen < n:
            await trio.lowlevel.checkpoint()

    def seen(self) -> int:
        return self._seen

    # --- the other end ---

    def alive(self) -> None:
        """It never dies here."""

    def sending(self) -> None:
        """Nobody minds."""

    def arrive_later(self, call: HttpCall, after_s: float) -> None:
        raise AssertionError("nothing is late in fair weather")

    def serve(self, call: HttpCall) -> Reply:
        self._seen += 1
        parts = urlsplit(call.url)
        match parts.path:
            case "/echo":
                target = parts.path + (f"?{parts.query}" if parts.query else "")
                headers = {name.lower(): value for name, value in call.headers.items()}
                seen = Seen(call.method, target, headers, call.body, 1)
                return Reply(200, {"X-Request-Id": "r1"}, msgspec.json.encode(seen))
            case "/redirect":
                return Reply(302, {"location": "/echo"}, b"moved")
            case "/loop":
                return Reply(302, {"location": "/loop"}, b"")
            case "/big":
                return Reply(200, {}, self._too_large)
            case "/cut":
                return Reply(200, {}, b"01234", transport="cut")
            case "/reset":
                return Reply(200, {}, b"", transport="reset")
            case "/silent":
                return Reply(200, {}, b"", delay_s=math.inf)
            case path:
                return Reply(int(path.removeprefix("/status/")), {}, b"{}")
