"""P3: our wire against stock httpx, on this machine, in one interleaved run.

    python -m tests.bench.bench_http [--rounds 3] [--tasks 600] [--requests 6000]

A *task* is what the runtime does per image: one POST, two polls with 10 ms before each, one download of 100 KB.
The server is an asyncio process of its own that parses as little as it can; it is never the limit.  Prints one JSON
line per measurement and one with the two ratios of P3:

    tasks/s of HttpWire / tasks/s of a loop over stock httpx, both on trio at concurrency 50      bar 3, stretch 4
    requests/s of HttpWire at 500 in flight / at 10                                               bar 0.6, stretch 0.8
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import httpx
import trio

from adapters.base import HttpCall
from runtime.ports import FetchRules
from runtime.wire import HttpWire

IMAGE = bytes(100_000)
POLL_PAUSE_S = 0.01
HERE = FetchRules(hosts=(), loopback=True)


# --- the server, in its own process -----------------------------------------------------------------------


class Server(asyncio.Protocol):
    small = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 24\r\n\r\n" + b'{"id":"j1","state":"ok"}'
    )
    large = b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: %d\r\n\r\n" % len(IMAGE) + IMAGE

    def __init__(self) -> None:
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            body = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + body:
                return
            self.buffer = self.buffer[end + 4 + body :]
            self.transport.write(self.large if head.startswith(b"get /file") else self.small)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# --- the two clients --------------------------------------------------------------------------------------

Work = Callable[[], Awaitable[None]]


async def sink(chunk: bytes) -> None:
    pass


def wire_task(wire: HttpWire, url: str) -> Work:
    async def task() -> None:
        await wire.send(HttpCall("POST", f"{url}/submit", {"authorization": "Bearer sandbox"}, b'{"prompt":"a cat"}'))
        for _ in range(2):
            await trio.sleep(POLL_PAUSE_S)
            await wire.send(HttpCall("GET", f"{url}/job", {"authorization": "Bearer sandbox"}))
        await wire.fetch(f"{url}/file", sink, HERE)

    return task


def httpx_task(client: httpx.AsyncClient, url: str) -> Work:
    async def task() -> None:
        headers = {"authorization": "Bearer sandbox"}
        await client.post(f"{url}/submit", headers=headers, content=b'{"prompt":"a cat"}')
        for _ in range(2):
            await trio.sleep(POLL_PAUSE_S)
            await client.get(f"{url}/job", headers=headers)
        async with client.stream("GET", f"{url}/file") as response:
            async for chunk in response.aiter_bytes():
                await sink(chunk)

    return task


async def rate(work: Work, *, total: int, concurrency: int) -> float:
    """Run ``work`` ``total`` times by ``concurrency`` workers; gives runs per second, opening connections included."""
    left = total

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await work()

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(concurrency):
            nursery.start_soon(worker)
    return total / (time.perf_counter() - start)


async def stock_tasks(url: str, total: int) -> float:
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:
        return await rate(httpx_task(client, url), total=total, concurrency=50)


async def wire_tasks(url: str, total: int) -> float:
    wire = HttpWire()
    try:
        return await rate(wire_task(wire, url), total=total, concurrency=50)
    finally:
        await wire.aclose()


async def wire_requests(url: str, total: int, concurrency: int) -> float:
    wire = HttpWire()
    call = HttpCall("GET", f"{url}/job", {"authorization": "Bearer sandbox"})

    async def request() -> None:
        await wire.send(call)

    try:
        return await rate(request, total=total, concurrency=concurrency)
    finally:
        await wire.aclose()


def measure(url: str, *, rounds: int, tasks: int, requests: int) -> None:
    seen: dict[str, list[float]] = {}
    runs: dict[str, Callable[[], float]] = {
        "httpx tasks/s at 50": lambda: trio.run(stock_tasks, url, max(50, tasks // 4)),
        "wire tasks/s at 50": lambda: trio.run(wire_tasks, url, tasks),
        "wire requests/s at 10": lambda: trio.run(wire_requests, url, requests, 10),
        "wire requests/s at 500": lambda: trio.run(wire_requests, url, requests, 500),
    }
    for _ in range(rounds):
        for name, run in runs.items():
            seen.setdefault(name, []).append(run())
    medians = {name: statistics.median(values) for name, values in seen.items()}
    for name, values in seen.items():
        print(json.dumps({"bench": name, "median": round(medians[name], 1), "all": [round(v, 1) for v in values]}))
    ratios = {
        "bench": "P3",
        "tasks wire/httpx": round(medians["wire tasks/s at 50"] / medians["httpx tasks/s at 50"], 2),
        "requests 500/10": round(medians["wire requests/s at 500"] / medians["wire requests/s at 10"], 2),
    }
    print(json.dumps(ratios))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--requests", type=int, default=6000)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve())
        return
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.bench_http", "--serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        measure(url, rounds=args.rounds, tasks=args.tasks, requests=args.requests)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
