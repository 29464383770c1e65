"""The receiver: what strangers can learn from it (nothing), and what it keeps (hints, before it answers)."""

import hashlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing
from starlette.types import Message

from adapters.base import Secret
from bydawn.errors import UserError
from bydawn.opening import keyed_by
from bydawn.receiver import Receiver, receive
from bydawn.webhooks import Place
from ledger.decisions import Append, Decision
from ledger.events import AccountOpened
from ledger.journal import Ledger
from ledger.streams import account_stream
from runtime.callbacks import MAX_BODY, Addresses
from runtime.inbox import Hint, hints, inbox_of
from tests.ports import free_port

BASE = "http://receiver.test"
HOOK = b'{"data":{"taskId":"job7"}}'


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A ledger in which two accounts are known."""
    path = tmp_path / "bydawn.db"
    with Ledger.create_or_open(path, create=True) as opened:
        opened.start_epoch(machine="m", pid=1, app_version="0", operator="o", command="run", at_us=1)
        for number, provider in enumerate(("kie", "segmind"), 1):
            event = AccountOpened(name=provider, provider=provider, fingerprint="f")
            opened.commit([Decision(appends=(Append(account_stream(number), 0, (event,)),), at_us=1)])
    return path


def made(ledger: Path, **secrets: str) -> Receiver:
    given = {provider: (Secret(secret),) for provider, secret in secrets.items()}
    return Receiver(ledger, keyed=keyed_by(ledger), secrets=given)


def address(ledger: Path, account: str = "kie", n: int = 12) -> str:
    return Addresses(BASE, keyed_by(ledger)).url(account, 1, n, 3)


def asked(receiver: Receiver, *calls: tuple[str, str, bytes]) -> list[httpx.Response]:
    """Send each (method, URL, body) to the application."""

    async def go() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=receiver.application())
        async with httpx.AsyncClient(transport=transport) as client:
            return [await client.request(method, url, content=body) for method, url, body in calls]

    return trio.run(go)


def kept(ledger: Path) -> list[Hint | None]:
    return [hint for _, hint in hints(inbox_of(ledger))]


def test_a_callback_is_kept_before_the_answer_and_duplicates_once(ledger: Path) -> None:
    receiver = made(ledger)
    replies = asked(receiver, *[("POST", address(ledger), HOOK)] * 3)
    assert [(reply.status_code, reply.content) for reply in replies] == [(200, b"")] * 3
    assert kept(ledger) == [Hint("kie", 1, 12, 3, "job7")]
    assert (receiver.taken, receiver.refused) == (3, 0)


def test_everything_else_gets_the_same_empty_answer(ledger: Path) -> None:
    """Forged token, forged signature, garbage, wrong account, wrong method: nobody learns which."""
    good = address(ledger)
    strangers = [
        ("POST", good[:-1] + ("0" if good[-1] != "0" else "1"), HOOK),
        ("POST", good.replace("/1-12-3/", "/1-13-3/"), HOOK),
        ("POST", address(ledger, "segmind"), HOOK),
        ("POST", address(ledger, "nobody"), HOOK),
        ("POST", good, b"garbage"),
        ("GET", good, b""),
        ("PUT", good, HOOK),
        ("OPTIONS", good, b""),
        ("GET", BASE + "/", b""),
        ("POST", BASE + "/healthz/x", b""),
        ("GET", BASE + "/callback/kie/1-12-3/", b""),
    ]
    replies = asked(made(ledger), *strangers) + asked(made(ledger, kie="secret"), ("POST", good, HOOK))
    assert {reply.status_code for reply in replies} == {404}
    assert {reply.content for reply in replies} == {b""}
    assert len({tuple(reply.headers.items()) for reply in replies}) == 1
    assert kept(ledger) == []


def test_a_body_is_bounded_told_or_not(ledger: Path) -> None:
    """SEC-4."""
    receiver = made(ledger)
    (told,) = asked(receiver, ("POST", address(ledger), b" " * (MAX_BODY + 1)))
    assert told.status_code == 413

    async def unending() -> Message:
        return {"type": "http.request", "body": b" " * 65_536, "more_body": True}

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    assert [status_of(receiver, address(ledger), body) for body in (unending, gone)] == [413, 400]
    assert (kept(ledger), receiver.refused) == ([], 3)


def test_a_body_that_does_not_end_is_given_up(ledger: Path) -> None:
    assert status_of(made(ledger), address(ledger), trio.sleep_forever) == 408


def status_of(receiver: Receiver, url: str, body: Callable[[], Awaitable[Message]]) -> int:
    """The status of the answer to a POST whose body comes as the test wants it."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    path = url.removeprefix(BASE)
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "headers": [],
        "query_string": b"",
    }

    async def go() -> None:
        await receiver.application()(scope, body, send)

    trio.run(go, clock=trio.testing.MockClock(autojump_threshold=0))
    status: int = sent[0]["status"]
    return status


def test_a_full_inbox_asks_to_come_again(ledger: Path) -> None:
    receiver = Receiver(ledger, keyed=keyed_by(ledger), secrets={}, most=2)
    replies = asked(receiver, *[("POST", address(ledger, n=n), HOOK) for n in (1, 2, 3, 1)])
    assert [reply.status_code for reply in replies] == [200, 200, 503, 200]


def test_a_folder_that_cannot_be_written_asks_to_come_again(ledger: Path) -> None:
    inbox_of(ledger).write_bytes(b"a file is in the way")
    (reply,) = asked(made(ledger), ("POST", address(ledger), HOOK))
    assert reply.status_code == 503


def test_logs_name_the_attempt_and_no_token(ledger: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SEC-1."""
    with caplog.at_level(logging.INFO):
        asked(made(ledger), ("POST", address(ledger), HOOK), ("POST", address(ledger), b"garbage"))
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name == "bydawn.receiver")
    assert "a callback for kie/1-12-3 was taken" in ours
    assert "a callback for kie/1-12-3 was refused" in ours
    assert address(ledger).rpartition("/")[2] not in ours


def test_health_is_told_and_proof_only_to_a_challenge(ledger: Path) -> None:
    receiver = made(ledger)
    challenge = hashlib.sha256(b"x").hexdigest()[:32]
    plain, proven, odd = asked(
        receiver,
        ("GET", BASE + "/healthz", b""),
        ("GET", f"{BASE}/healthz?challenge={challenge}", b""),
        ("GET", f"{BASE}/healthz?challenge=callback/kie/1-12-3", b""),
    )
    assert plain.text == proven.text == odd.text == "ok\n"
    assert proven.headers["x-bydawn-receiver"] == receiver.proof(challenge)
    assert "x-bydawn-receiver" not in plain.headers
    assert "x-bydawn-receiver" not in odd.headers


def test_a_ledger_that_went_away_makes_no_noise(ledger: Path) -> None:
    receiver, url = made(ledger), address(ledger)
    ledger.unlink()
    (reply,) = asked(receiver, ("POST", url, HOOK))
    assert (reply.status_code, reply.content) == (404, b"")


# --- listening --------------------------------------------------------------------------------------------------


def listening(body: Callable[[trio.Nursery, Place], Awaitable[None]]) -> None:
    async def go() -> None:
        async with trio.open_nursery() as nursery:
            await body(nursery, Place("127.0.0.1", free_port()))
            nursery.cancel_scope.cancel()

    trio.run(go)


def test_it_listens_over_a_socket(ledger: Path) -> None:
    said: list[str] = []

    async def body(nursery: trio.Nursery, place: Place) -> None:
        await nursery.start(receive, made(ledger), place, said.append)
        async with httpx.AsyncClient(trust_env=False) as client:
            url = address(ledger).replace(BASE, f"http://{place.text}")
            assert (await client.post(url, content=HOOK)).status_code == 200
            assert (await client.get(f"http://{place.text}/healthz")).text == "ok\n"
        assert said == [f"listening for callbacks at {place.text}"]

    listening(body)
    assert len(kept(ledger)) == 1


def test_one_of_the_same_ledger_waits_and_takes_over(ledger: Path) -> None:
    """So that `serve` and `run` stand in for each other."""
    said: list[str] = []
    took_over = trio.Event()

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            took_over.set()

    async def body(nursery: trio.Nursery, place: Place) -> None:
        async with trio.open_nursery() as first:
            await first.start(receive, made(ledger), place, lambda text: None)
            await nursery.start(partial(receive, made(ledger), place, say, look_again_s=0.01))
            assert len(said) == 1
            assert "another process of this ledger" in said[0]
            first.cancel_scope.cancel()
        with trio.fail_after(60):
            await took_over.wait()
        assert said[1] == f"listening for callbacks at {place.text}"

    listening(body)


async def hang_up(stream: trio.SocketStream) -> None:
    await stream.aclose()


def test_a_stranger_at_the_address_is_told(ledger: Path) -> None:
    async def body(nursery: trio.Nursery, place: Place) -> None:
        await nursery.start(trio.serve_tcp, hang_up, place.port)
        with pytest.raises(UserError) as refused:
            await receive(made(ledger), place, lambda text: None, look_again_s=0.01)
        assert refused.value.code == "BD-112"

    listening(body)


def test_an_address_of_another_machine_is_told(ledger: Path) -> None:
    async def body(nursery: trio.Nursery, place: Place) -> None:
        with pytest.raises(UserError) as refused:
            await receive(made(ledger), Place("192.0.2.1", place.port), lambda text: None)
        assert refused.value.code == "BD-112"

    listening(body)
