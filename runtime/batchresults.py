"""Reads the results of a batch: a file of any size, line by line, so that memory holds one line at a time."""

from collections.abc import Awaitable, Callable, Iterator

from adapters.base import HttpCall, MalformedReply, Unreadable
from adapters.batchfile import BatchFiles, LineResult, NoResults
from runtime.ports import Wire, WireError

_LINE_BYTES = 160 << 20  # of one line of results: a 4K image in base64, twice


async def read_results(
    codec: BatchFiles,
    call: HttpCall,
    wire: Wire,
    take: Callable[[LineResult], Awaitable[None]],
    unread: Callable[[str], None],
) -> NoResults | None:
    """Hand on line after line; None when the file was read to its end.

    ``unread`` hears why, of each line that cannot be read.
    """
    lines = _Lines(_LINE_BYTES)

    async def one(line: bytes | None) -> None:
        if line is None:
            unread("it is too long")
            return
        try:
            result = codec.read_line(line)
        except MalformedReply as exc:
            unread(str(exc))
            return
        await take(result)

    async def sink(chunk: bytes) -> None:
        for line in lines.feed(chunk):
            await one(line)

    try:
        reply = await wire.stream(call, sink)
    except WireError as exc:
        return Unreadable(detail=str(exc))
    if reply.status != 200:
        return codec.read_no_results(reply)
    for line in lines.feed(b"\n"):  # the last one may come without its end
        await one(line)
    return None


class _Lines:
    """Puts pieces together to lines; one that is longer than ``limit`` becomes None, without being held."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begun = bytearray()
        self._too_long = False

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        """Yield each line that ends in this piece, without its line feed; empty ones are left out."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._append(chunk[start:end])
            start = end + 1
            line, self._begun = self._begun, bytearray()
            too_long, self._too_long = self._too_long, False
            if too_long:
                yield None
            elif line.strip():
                yield bytes(line)
        self._append(chunk[start:])

    def _append(self, piece: bytes) -> None:
        if self._too_long or len(self._begun) + len(piece) > self._limit:
            self._too_long = True
            self._begun.clear()
        else:
            self._begun += piece
