"""One emulator alone, without a socket, under a clock of its own: a codec's call goes in, a whole answer comes out.

What the house does around its emulators (drawing, result files) is done here for one; faults are not.
"""

from collections.abc import Callable
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import msgspec

from adapters.base import HttpCall, HttpReply
from adapters.registry import Entry, load
from adapters.sandbox.base import Call, Embeds, Emulator, Reply
from adapters.sandbox.jobs import MemoryJobs
from adapters.sandbox.limits import TokenBuckets
from adapters.sandbox.picture import draw
from adapters.sandbox.wirefmt import EmulatorSettings

_ORIGIN = "http://127.0.0.1:8700"
_UNLIMITED = 1_000.0


class Solo:
    """``now_us`` is moved by whoever uses it; an answer that takes its time moves it too."""

    def __init__(self, entry: Entry, *, now_us: int) -> None:
        self.settings = EmulatorSettings(
            jobs=MemoryJobs(),
            limits=TokenBuckets(_UNLIMITED),
            files_origin=_ORIGIN,
            rate_factor=_UNLIMITED,
            small_px=64,
        )
        self.emulator = cast(Callable[[EmulatorSettings], Emulator], load(entry.emulator))(self.settings)
        self.now_us = now_us

    @property
    def base_url(self) -> str:
        return f"{_ORIGIN}/{self.emulator.name}"

    def seen(self, call: HttpCall) -> Call:
        """The call as it reaches the emulator.

        Raises:
            ValueError: it goes elsewhere.
        """
        if not call.url.startswith(self.base_url + "/"):
            raise ValueError(f"{call!r} does not go to {self.base_url}")
        parts = urlsplit(call.url.removeprefix(self.base_url))
        headers = {header.lower(): value for header, value in call.headers.items()}
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return Call(call.method, parts.path, query, {"user-agent": "bydawn"} | headers, call.body, self.base_url)

    def send(self, call: HttpCall) -> HttpReply:
        """Send a call and wait for its whole answer."""
        reply = self._whole(self.emulator.handle(self.seen(call), self.now_us))
        self.now_us += round(reply.delay_s * 1_000_000)
        return HttpReply(reply.status, reply.headers, reply.body)

    def image(self, url: str) -> bytes:
        """Draw the result that an address of this emulator leads to.

        Raises:
            ValueError: it leads to none.
        """
        name = urlsplit(url).path.rpartition("/")[2].rpartition(".")[0]
        job = self.settings.jobs.get(self.emulator.name, name)
        if job is None or not url.startswith(f"{_ORIGIN}/files/"):
            raise ValueError("no result of this emulator")
        return draw(job, short_side=self.settings.small_px)

    def _whole(self, reply: Reply) -> Reply:
        if reply.late is not None:
            return msgspec.structs.replace(reply, body=reply.late(), late=None)
        job = self.settings.jobs.get(self.emulator.name, reply.draws) if reply.draws else None
        if job is None or not isinstance(self.emulator, Embeds):
            return reply
        return self.emulator.embed(reply, draw(job, short_side=self.settings.small_px))
