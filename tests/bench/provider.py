"""A provider that is never the limit: an asyncio process that speaks as much of Kie as a batch needs.

The sandbox of ``--sandbox`` draws pictures and keeps a bill, which costs more than the client under test.  This one
answers from constants.  A job id carries the time of its creation, so that the server has no state about jobs and
survives its own restart:

    POST /api/v1/jobs/createTask             a new job
    GET  /api/v1/jobs/recordInfo?taskId=J    waiting until the job is ``latency`` old, then a result URL
    GET  /api/v1/chat/credit                 plenty
    GET  /file/J.jpg                         one JPEG, made different for each job by a comment in its head
    GET  /bench/stats                        what was asked since the last look, with the first time of each kind

Times are CLOCK_MONOTONIC, which all processes of a machine share, so a benchmark can subtract its own.
"""

import argparse
import asyncio
import io
import json
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CREDITS = 12  # a job: $0.06


class Stats(msgspec.Struct):
    """Counts by kind of request, and the time of the first of each (seconds, monotonic)."""

    submits: int = 0
    polls: int = 0
    checks: int = 0
    files: int = 0
    first_s: dict[str, float] = {}


class Provider:
    """A running server, as a benchmark holds it."""

    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self.process = process
        self.url = url

    def stats(self) -> Stats:
        """What was asked since the last call."""
        with urllib.request.urlopen(f"{self.url}/bench/stats") as reply:
            return msgspec.json.decode(reply.read(), type=Stats)


@contextmanager
def provider(*, latency_s: float, side: int = 1024, image_bytes: int = 100_000) -> Iterator[Provider]:
    """Start a server of its own process; it ends with the block."""
    command = [sys.executable, "-m", "tests.bench.provider", "--latency", str(latency_s)]
    command += ["--side", str(side), "--image-bytes", str(image_bytes)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield Provider(process, f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.kill()
        process.wait()


def picture(side: int, wanted_bytes: int) -> bytes:
    """A JPEG of about that size with the texture of a photograph: soft shapes, and grain until it is large enough."""
    random.seed(1)
    coarse = Image.frombytes("RGB", (side // 32, side // 32), random.randbytes(3 * (side // 32) ** 2))
    soft = coarse.resize((side, side), Image.Resampling.BICUBIC)
    grain = Image.frombytes("RGB", (side, side), random.randbytes(3 * side * side))
    low, high, best = 0.0, 1.0, b""
    for _ in range(10):
        share = (low + high) / 2
        out = io.BytesIO()
        Image.blend(soft, grain, share).save(out, "JPEG", quality=80)
        best = out.getvalue()
        low, high = (share, high) if len(best) < wanted_bytes else (low, share)
    return best


class Server(asyncio.Protocol):
    """One connection."""

    def __init__(self, latency_s: float, image: bytes, stats: list[Stats], url: str) -> None:
        self._latency_s = latency_s
        self._image = image
        self._stats = stats
        self._url = url
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            at = head.lower().find(b"content-length:")
            body = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + body:
                return
            self._buffer = self._buffer[end + 4 + body :]
            self._answer(head.split(b" ", 2)[1].decode())

    def _answer(self, path: str) -> None:
        stats = self._stats[0]
        now = time.monotonic()
        if path.endswith("/createTask"):
            stats.submits += 1
            kind, data = "submit", b'{"taskId":"%d-%d"}' % (int(now * 1e6), random.getrandbits(40))
        elif "/recordInfo" in path:
            stats.polls += 1
            kind, data = "poll", self._record(path.rpartition("=")[2], now)
        elif path.startswith("/file/"):
            stats.files += 1
            stats.first_s.setdefault("file", now)
            self._send_image(path.encode())
            return
        elif path.endswith("/credit"):
            stats.checks += 1
            kind, data = "check", b"1000000"
        else:
            self._send(b"application/json", json.dumps(msgspec.to_builtins(stats)).encode())
            self._stats[0] = Stats(first_s={})
            return
        stats.first_s.setdefault(kind, now)
        self._send(b"application/json", b'{"code":200,"msg":"success","data":%s}' % data)

    def _record(self, job: str, now: float) -> bytes:
        made_s = int(job.partition("-")[0]) / 1e6
        if now < made_s + self._latency_s:
            return b'{"taskId":"%s","state":"generating"}' % job.encode()
        found = {
            "taskId": job,
            "state": "success",
            "resultJson": json.dumps({"resultUrls": [f"{self._url}/file/{job}.jpg"]}),
            "creditsConsumed": CREDITS,
        }
        return json.dumps(found).encode()

    def _send_image(self, name: bytes) -> None:
        image = self._image
        comment = b"\xff\xfe" + (len(name) + 2).to_bytes(2, "big") + name
        head = b"HTTP/1.1 200 OK\r\ncontent-type: image/jpeg\r\ncontent-length: %d\r\n\r\n" % (
            len(image) + len(comment)
        )
        self._transport.writelines((head, image[:2], comment, memoryview(image)[2:]))

    def _send(self, kind: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (kind, len(body))
        self._transport.write(head + body)


async def _serve(latency_s: float, image: bytes) -> None:
    stats = [Stats(first_s={})]
    url = [""]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(latency_s, image, stats, url[0]), "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    url[0] = f"http://127.0.0.1:{port}"
    print(port, flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=1.0)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--image-bytes", type=int, default=100_000)
    args = parser.parse_args()
    asyncio.run(_serve(args.latency, picture(args.side, args.image_bytes)))


if __name__ == "__main__":
    main()
