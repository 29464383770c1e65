"""The sandbox over real sockets: the skin, the faults that need a connection, callbacks, and kill -9."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from adapters.base import Accepted, Context, Finished, HttpCall, HttpReply, ImageRequest, Secret
from adapters.kie import KIE
from adapters.sandbox.__main__ import main
from adapters.sandbox.base import Job, Webhook
from adapters.sandbox.faults import ChaosProfile
from adapters.sandbox.front import serve_front
from adapters.sandbox.house import House
from adapters.sandbox.jobs import MemoryJobs, SqliteJobs
from adapters.sandbox.limits import TokenBuckets
from adapters.sandbox.picture import read_digest
from adapters.sandbox.server import Arrivals, SandboxBusy, SandboxSettings, serve
from adapters.sandbox.webhooks import deliver_callbacks, now_us, post
from adapters.sandbox.wirefmt import EmulatorSettings
from tests.ports import free_port

ROOT = Path(__file__).parent.parent.parent
TIMEOUT_S = 60.0


@asynccontextmanager
async def sandbox(directory: Path, **changes: object) -> AsyncIterator[tuple[httpx.AsyncClient, Context]]:
    """A sandbox in this process, a client and a context for it."""
    plain = SandboxSettings(directory=directory, latency_s=0.05, rate_factor=1e6, providers=("kie",))
    ports: list[int] = []
    ready = trio.Event()

    def started(port: int) -> None:
        ports.append(port)
        ready.set()

    with trio.fail_after(TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, msgspec.structs.replace(plain, **changes), started)
            await ready.wait()
            base_url = f"http://127.0.0.1:{ports[0]}"
            async with httpx.AsyncClient(base_url=base_url, trust_env=False) as client:
                yield client, Context(key=Secret("sandbox-one"), base_url=f"{base_url}/kie")
            nursery.cancel_scope.cancel()


async def send(client: httpx.AsyncClient, call: HttpCall) -> HttpReply:
    reply = await client.request(call.method, call.url, headers=call.headers, content=call.body)
    return HttpReply(reply.status_code, dict(reply.headers), reply.content)


async def wait_finished(client: httpx.AsyncClient, job: str, ctx: Context) -> Finished:
    while True:
        outcome = KIE.read_poll(await send(client, KIE.build_poll(job, ctx)))
        if isinstance(outcome, Finished):
            return outcome
        await trio.sleep(0.01)


async def bill(client: httpx.AsyncClient, after: int = 0) -> list[dict[str, object]]:
    text = (await client.get("/sandbox/bill", params={"after": after})).text
    return [json.loads(line) for line in text.splitlines()]


def test_a_task_goes_through_the_server(tmp_path: Path) -> None:
    async def run() -> None:
        async with sandbox(tmp_path / "box") as (client, ctx):
            about = (await client.get("/sandbox")).json()
            assert about == {
                "bydawn_sandbox": 1,
                "providers": ["kie"],
                "rate_factor": 1e6,
                "latency_s": 0.05,
                "quarantine_s": 3.0,
                "pid": os.getpid(),
            }
            accepted = KIE.read_submit(await send(client, KIE.build_submit(ImageRequest("a mug ☕"), ctx)))
            assert isinstance(accepted, Accepted)
            finished = await wait_finished(client, accepted.job, ctx)
            picture = await client.get(finished.url)
            assert picture.headers["content-type"] == "image/jpeg"
            (line,) = await bill(client)
            assert (line["prompt"], line["charged_microusd"], line["job"]) == ("a mug ☕", 40_000, accepted.job)
            assert read_digest(picture.content).hex() == line["digest"]
            assert await bill(client, after=1) == []
            seen = (await client.get("/sandbox/requests")).json()
            assert seen["requests"] >= 3  # submitted, polled, fetched
            assert (await client.get("/sandbox/requests?after=1")).json()["first_us"] >= seen["first_us"] > 0
            assert (await client.get(f"/sandbox/requests?after={seen['requests']}")).json() == {**seen, "first_us": 0}

    trio.run(run)


def test_the_first_request_after_so_many_is_known_for_a_while() -> None:
    arrivals = Arrivals()
    assert (arrivals.count, arrivals.first_after(0)) == (0, 0)
    for n in range(10_001):
        arrivals.note(1_000 + n)
    assert arrivals.count == 10_001
    assert [arrivals.first_after(n) for n in (0, 1, 10_000, 10_001)] == [0, 1_001, 11_000, 0]


def test_requests_nobody_can_serve_are_refused(tmp_path: Path) -> None:
    async def run() -> None:
        async with sandbox(tmp_path) as (client, _):
            assert (await client.get("/sandbox/bill?after=x")).status_code == 400
            assert (await client.get("/sandbox/requests?after=x")).status_code == 400
            assert (await client.get("/elsewhere")).status_code == 404
            assert (await client.post("/kie/api", content=b"x" * (16 * 1024 * 1024 + 1))).status_code == 413

    trio.run(run)


@pytest.mark.parametrize(
    ("chaos", "errors"),
    [
        (ChaosProfile(reset_after=1.0), (httpx.ReadError, httpx.WriteError)),
        (ChaosProfile(cut_reply=1.0), (httpx.RemoteProtocolError,)),
    ],
)
def test_an_answer_can_be_lost_after_acceptance(
    tmp_path: Path, chaos: ChaosProfile, errors: tuple[type[Exception], ...]
) -> None:
    async def run() -> None:
        async with sandbox(tmp_path, chaos=chaos) as (client, ctx):
            with pytest.raises(errors):
                await send(client, KIE.build_submit(ImageRequest("a mug"), ctx))
            assert [line["prompt"] for line in await bill(client)] == ["a mug"]

    trio.run(run)


def test_a_reset_is_a_real_one(tmp_path: Path) -> None:
    async def run() -> None:
        async with sandbox(tmp_path, chaos=ChaosProfile(reset_after=1.0)) as (client, ctx):
            stream = await trio.open_tcp_stream("127.0.0.1", client.base_url.port or 0)
            call = KIE.build_check(ctx)
            head = "".join(f"{name}: {value}\r\n" for name, value in call.headers.items())
            await stream.send_all(f"GET /kie/api/v1/chat/credit HTTP/1.1\r\nhost: x\r\n{head}\r\n".encode())
            with pytest.raises(trio.BrokenResourceError) as caught:
                await stream.receive_some()
            assert isinstance(caught.value.__cause__, ConnectionResetError)
            await stream.aclose()

    trio.run(run)


def test_a_slow_answer_comes_all_the_same(tmp_path: Path) -> None:
    async def run() -> None:
        async with sandbox(tmp_path, chaos=ChaosProfile(slow_reply=1.0, slow_s=0.01)) as (client, ctx):
            assert KIE.read_check(await send(client, KIE.build_check(ctx))).state == "ok"

    trio.run(run)


def test_a_client_that_leaves_early_harms_nobody(tmp_path: Path) -> None:
    async def run() -> None:
        async with sandbox(tmp_path) as (client, ctx):
            port = client.base_url.port or 0
            for beginning in (b"", b"POST /kie/x HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf"):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await stream.send_all(beginning)
                await stream.aclose()
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"GET /sandbox HTTP/1.1\r\nhost: x\r\n\r\n")
            assert await stream.receive_some()  # the front is at work on this connection when it is reset
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()
            assert KIE.read_check(await send(client, KIE.build_check(ctx))).state == "ok"

    trio.run(run)


def test_a_long_bill_comes_whole(tmp_path: Path) -> None:
    jobs = SqliteJobs(tmp_path / "sandbox.db")
    for number in range(1, 1_002):
        jobs.add(Job(f"j{number}", "kie", "a", "m", "{}", "p", (), "1:1", "1K", "jpg", number, number, number + 1, 5))
    jobs.close()

    async def run() -> None:
        async with sandbox(tmp_path) as (client, _):
            assert [line["n"] for line in await bill(client)] == list(range(1, 1_002))
            assert [line["n"] for line in await bill(client, after=501)] == list(range(502, 1_002))

    trio.run(run)


def test_a_client_that_closes_its_half_ends_the_connection(tmp_path: Path) -> None:
    async def run() -> None:
        async with sandbox(tmp_path) as (client, _):
            stream = await trio.open_tcp_stream("127.0.0.1", client.base_url.port or 0)
            await stream.send_all(b"GET /sandbox HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
            await stream.send_eof()
            while await stream.receive_some():
                pass
            await stream.aclose()

    trio.run(run)


def test_a_front_with_nobody_behind_hangs_up() -> None:
    async def run() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        with trio.fail_after(TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_front, listeners, ("127.0.0.1", 1))
                stream = await trio.open_tcp_stream(*listeners[0].socket.getsockname())
                assert await stream.receive_some() == b""
                await stream.aclose()
                nursery.cancel_scope.cancel()

    trio.run(run)


def test_sigterm_ends_it_quietly(tmp_path: Path) -> None:
    def stop(port: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    trio.run(serve, SandboxSettings(directory=tmp_path, providers=("kie",)), stop)
    reopened = SqliteJobs(tmp_path / "sandbox.db")
    assert reopened.count() == 0
    reopened.close()


def test_it_leaves_when_nobody_asks_any_more(tmp_path: Path) -> None:
    async def run() -> None:
        asked: list[int] = []

        async def ask_once(client: httpx.AsyncClient, port: int) -> None:
            asked.append((await client.get(f"http://127.0.0.1:{port}/sandbox")).status_code)

        with trio.fail_after(TIMEOUT_S):
            async with httpx.AsyncClient(trust_env=False) as client, trio.open_nursery() as nursery:
                settings = SandboxSettings(directory=tmp_path, providers=("kie",), idle_exit_s=2.0)
                await serve(settings, lambda port: nursery.start_soon(ask_once, client, port))
        assert asked == [200]

    trio.run(run)


def test_a_directory_has_one_sandbox(tmp_path: Path) -> None:
    async def run() -> None:
        async with sandbox(tmp_path):
            with pytest.raises(SandboxBusy, match="another sandbox"):
                await serve(SandboxSettings(directory=tmp_path), lambda port: None)

    trio.run(run)


# --- callbacks --------------------------------------------------------------------------------------------


@asynccontextmanager
async def receiver(answer: bytes) -> AsyncIterator[tuple[int, trio.MemoryReceiveChannel[bytes]]]:
    """A raw receiver of callbacks that answers each with the same bytes."""
    into, requests = trio.open_memory_channel[bytes](10)

    async def handle(stream: trio.SocketStream) -> None:
        request = b""
        while b"\r\n\r\n" not in request or not request.endswith(b"}"):
            chunk = await stream.receive_some(4096)
            if not chunk or chunk.startswith(b"\x16\x03"):  # left, or speaks TLS to a plain port
                break
            request += chunk
        await into.send(request)
        await stream.send_all(answer)
        await stream.aclose()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield listeners[0].socket.getsockname()[1], requests
        nursery.cancel_scope.cancel()


def test_callbacks_arrive_signed_and_whole(tmp_path: Path) -> None:
    async def run() -> None:
        async with (
            receiver(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n") as (port, requests),
            sandbox(tmp_path, webhook_key="hush") as (client, ctx),
        ):
            ctx = msgspec.structs.replace(ctx, callback_url=f"http://127.0.0.1:{port}/kie?ref=a1")
            accepted = KIE.read_submit(await send(client, KIE.build_submit(ImageRequest("a mug"), ctx)))
            assert isinstance(accepted, Accepted)
            head, _, body = (await requests.receive()).partition(b"\r\n\r\n")
            assert head.startswith(b"POST /kie?ref=a1 HTTP/1.1\r\n")
            assert b"x-webhook-signature: " in head
            told = KIE.read_poll(HttpReply(200, {}, body))
            assert isinstance(told, Finished)
            assert told.job == accepted.job

    trio.run(run)


def test_callbacks_go_out_in_any_number_and_once() -> None:
    async def run() -> None:
        jobs = MemoryJobs()
        house = House(EmulatorSettings(jobs=jobs, limits=TokenBuckets(), files_origin="http://x"), ("kie",))
        with trio.fail_after(TIMEOUT_S):
            async with receiver(b"HTTP/1.1 200 OK\r\n\r\n") as (port, requests), trio.open_nursery() as nursery:
                wire, url = '{"model":"m","input":{}}', f"http://127.0.0.1:{port}/"
                for n in range(1, 46):
                    job = Job(f"j{n}", "kie", "a", "m", wire, "p", (), "1:1", "1K", "jpg", n, n, n + 1, 5)
                    jobs.add(msgspec.structs.replace(job, callback_url=url))
                nursery.start_soon(deliver_callbacks, house)
                told = [json.loads((await requests.receive()).partition(b"\r\n\r\n")[2]) for _ in range(45)]
                assert sorted(hook["data"]["taskId"] for hook in told) == sorted(f"j{n}" for n in range(1, 46))
                while house.due_webhooks(now_us()):  # noqa: ASYNC110  # the table is the only witness
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
            assert requests.statistics().current_buffer_used == 0

    trio.run(run)


@pytest.mark.parametrize(
    ("answer", "url", "status"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", "http://127.0.0.1:{port}", 204),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "http://127.0.0.1:{port}/", 503),
        (b"", "http://127.0.0.1:{port}/", 0),
        (b"hello", "http://127.0.0.1:{port}/", 0),
        (b"y" * 10_000, "http://127.0.0.1:{port}/", 0),
        (b"HTTP/1.1 200 OK\r\n\r\n", "https://127.0.0.1:{port}/", 0),
        (b"", "http://127.0.0.1:1/", 0),
        (b"", "http://[::1/", 0),
        (b"", "http://127.0.0.1:{port}/ü", 0),
    ],
)
def test_the_receivers_answer_is_its_status_or_nothing(answer: bytes, url: str, status: int) -> None:
    async def run() -> None:
        with trio.fail_after(TIMEOUT_S):
            async with receiver(answer) as (port, _):
                hook = Webhook("kie", "j1", url.format(port=port), {}, b"{}")
                assert await post(hook) == status

    trio.run(run)


# --- the process ------------------------------------------------------------------------------------------


class Process:
    """``python -m adapters.sandbox`` as users start it."""

    def __init__(self, directory: Path, port: int = 0) -> None:
        command = [sys.executable, "-m", "adapters.sandbox", "--dir", str(directory), "--port", str(port)]
        options = ["--latency", "0.3", "--rate-factor", "1000", "--providers", "kie"]
        self.process = subprocess.Popen([*command, *options], cwd=ROOT, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        said = json.loads(self.process.stdout.readline())
        self.url: str = said["url"]
        assert said["pid"] == self.process.pid

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(TIMEOUT_S)


def ask(client: httpx.Client, call: HttpCall) -> HttpReply:
    reply = client.request(call.method, call.url, headers=call.headers, content=call.body)
    return HttpReply(reply.status_code, dict(reply.headers), reply.content)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_jobs_and_bill_survive_kill_9(tmp_path: Path) -> None:
    first = Process(tmp_path, port=free_port())
    with httpx.Client(trust_env=False) as client:
        ctx = Context(key=Secret("sandbox-one"), base_url=f"{first.url}/kie")
        jobs: list[str] = []
        for number in range(5):
            accepted = KIE.read_submit(ask(client, KIE.build_submit(ImageRequest(f"p{number}"), ctx)))
            assert isinstance(accepted, Accepted)
            jobs.append(accepted.job)
        assert first.end(signal.SIGKILL) == -signal.SIGKILL

        second = Process(tmp_path, port=int(first.url.rpartition(":")[2]))
        assert second.url == first.url

        def bill_lines() -> list[dict[str, object]]:
            return [json.loads(line) for line in client.get(f"{second.url}/sandbox/bill").text.splitlines()]

        assert [line["job"] for line in bill_lines()] == jobs
        later = KIE.read_submit(ask(client, KIE.build_submit(ImageRequest("p5"), ctx)))
        assert isinstance(later, Accepted)
        assert later.job not in jobs
        wait_until(lambda: all(line["state"] == "succeeded" for line in bill_lines()))
        assert [line["charged_microusd"] for line in bill_lines()] == [40_000] * 6
        for line in bill_lines():
            outcome = KIE.read_poll(ask(client, KIE.build_poll(str(line["job"]), ctx)))
            assert isinstance(outcome, Finished)
            assert read_digest(client.get(outcome.url).content).hex() == line["digest"]
    assert second.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    "arguments",
    [["--chaos", "drizzle"], ["--providers", "kei"], ["--port", "1", "--host", "203.0.113.1"], ["--dir", "/dev/null"]],
)
def test_a_sandbox_that_cannot_start_says_why(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dir", str(tmp_path), *arguments]) == 2
    assert capsys.readouterr().err.startswith("sandbox: ")
