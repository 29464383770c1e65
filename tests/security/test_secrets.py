"""Keys, webhook secrets, tokens of callbacks, addresses of results: where they must not be, everywhere else (SEC-1).

One life with as much of the program as possible, each secret recognisable; then all that it printed and left behind is
searched for them, in plain and in the usual disguises.
"""

import base64
import io
import os
import re
import socket
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import trio
from sqlite_utils import Database
from trio.testing import trio_test

from adapters.base import Context, HttpCall, Secret
from adapters.registry import PROVIDERS, codec
from bydawn.cli.main import main
from bydawn.opening import keyed_by
from ledger.reader import Reader
from runtime.callbacks import Addresses
from runtime.wire import HttpWire
from tests.ports import free_port
from tests.runtime.servers import Seen, http, serve
from tests.system.shop import PATIENCE_S, Shop, prompts, sandbox, wait

KEY = "sandbox-K3y0fTheL1fe-9f8e7d6c5b4a"
WRONG = "wrong-K3y0fNobody-1a2b3c4d5e6f"
WEBHOOK = "whsec_V2ViSG9va1NlY3JldE9mVGhlTGlmZQ=="
PROXY = "Pr0xyPassw0rdOfTheLife"
PROVIDERS_HERE = "kie,replicate,together"


class Life(NamedTuple):
    shop: Shop
    printed: str


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """The life of a user with keys, a proxy with a password, and secrets of webhooks; searched, and left as it is."""
    place = tmp_path_factory.mktemp("life")
    work = place / "work"
    work.mkdir()
    with sandbox(place / "providers", latency=0.6, webhook_key=WEBHOOK) as url, Shop(work, url) as shop:
        shop.leave_practice(**dict.fromkeys(PROVIDERS_HERE.split(","), KEY))
        shop.env |= {f"BYDAWN_WEBHOOK_SECRET_{name}": WEBHOOK for name in ("KIE", "REPLICATE")}
        shop.env |= {"HTTPS_PROXY": f"http://user:{PROXY}@127.0.0.1:9", "BYDAWN_DEBUG": "1"}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(work)
            for name, value in shop.env.items():
                patch.setenv(name, value)
            printed = live(shop)
        yield Life(shop, printed)


def disguises(secret: str) -> list[bytes]:
    """A secret as it could be written down."""
    whole = secret.encode()
    b64 = base64.b64encode(whole).rstrip(b"=")
    forms = [whole, whole.hex().encode(), b64, urllib.parse.quote(secret, safe="").encode(), whole[::-1]]
    return [*forms, whole.split(b"-", 1)[-1], secret.encode("utf-16-le")]


def wait_open(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    with socket.socket() as probe:
        while probe.connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def live(shop: Shop) -> str:
    """Do everything once; returns all that was printed."""
    port = free_port()
    printed: list[str] = []

    def do(*arguments: str) -> None:
        done = shop.run(*arguments)
        assert "internal error" not in done.err, done.err
        printed.append(done.out + done.err)

    def look(*arguments: str) -> None:
        """In this process, which takes a tenth of the time."""
        told = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
        with redirect_stdout(told), redirect_stderr(told):
            main(list(arguments))
        told.seek(0)
        printed.append(told.read())
        assert "internal error" not in printed[-1], printed[-1]

    table = shop.table("pots.jsonl", [*prompts("secret life", 24), "a blocked picture, please"])
    do("serve", "--port", str(port))  # there is no ledger yet
    buy = ("run", table, "--provider", PROVIDERS_HERE, "--budget", "50", "--max-at-risk", "40", "-vvv")
    called = (*buy, "--webhook-url", f"http://127.0.0.1:{port}/hook")
    do("plan", table, "--provider", PROVIDERS_HERE, "--save", "plan.json")
    # Killed when all is bought and some is home: nothing is in doubt that would have to be waited for.
    killed = shop.run(*called, fault="completion_recorded:20")
    assert killed.code == -9, killed.err
    printed.append(killed.out + killed.err)
    receiver = shop.start("serve", "--port", str(port), "--dashboard-port", str(free_port()))
    wait_open(port)
    printed += [reply.text + repr(reply.headers) for reply in strangers(shop, port)]
    do(*buy, "--json")
    for reading in (("status",), ("log",), ("tasks",), ("show", "pots/#1"), ("show", "pots/#25"), ("providers",)):
        look(*reading, "--json")
        look(*reading)
    look("export", "pots", "--format", "jsonl")
    look("export", "pots", "--format", "csv", "-o", "pots.csv")
    look("export", "pots", "--format", "openai")
    look("verify", "--seal", "head.json")
    look("verify", "--json", "--against", "head.json")
    look("replay", "pots")
    look("replay", "pots", "--json", "--diff", "10", "200")
    look("resolve", "pots")
    look("ledger", "backup", "copy.db")
    look("doctor")
    do("providers", "check", "--provider", PROVIDERS_HERE)
    shop.env |= {"KIE_API_KEY": WRONG, "REPLICATE_API_TOKEN": WRONG, "TOGETHER_API_KEY": WRONG}
    do("providers", "check", "--provider", PROVIDERS_HERE, "--json")
    do("run", table, "--provider", PROVIDERS_HERE, "--budget", "50", "--name", "refused", "-vvv")
    printed += [reply.text + repr(reply.headers) for reply in shown(shop)]
    receiver.terminate()
    done = wait(receiver)
    assert "callback for" in done.err
    return "\n".join((*printed, done.out, done.err))


def strangers(shop: Shop, port: int) -> list[httpx.Response]:
    """What the receiver says to a good token with a bad signature, and to a bad token."""
    good = Addresses(f"http://127.0.0.1:{port}", keyed_by(shop.ledger)).url("kie", 1, 1, 1)
    with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
        return [client.post(url, content=b"{}") for url in (good, good[:-4] + "0000")]


def shown(shop: Shop) -> list[httpx.Response]:
    """Each page of the dashboard."""
    address = httpx.URL(shop.ledger.with_name("bydawn.db.dashboard").read_text().strip())
    with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
        replies = [client.get(address.copy_with(path=path)) for path in ("/status.json", "/metrics", "/dashboard.js")]
        replies.append(client.get(address, follow_redirects=True))
    assert {reply.status_code for reply in replies} == {200}
    return replies


def test_a_whole_life_tells_no_secret(life: Life) -> None:
    """SEC-1: whatever was printed, logged, recorded, exported or left lying."""
    shop, printed = life
    left = {path: path.read_bytes() for path in shop.folder.rglob("*") if path.is_file()}
    names = {path.name for path in left}
    assert {"bydawn.db", "copy.db", "pots.csv", "plan.json", "head.json", "manifest.jsonl", "errors.jsonl"} <= names
    key_file = left.pop(shop.ledger.with_name("bydawn.db.key"))
    copied = left.pop(shop.folder / "copy.db.key", b"")
    places = {**left, Path("printed"): printed.encode()}

    keyed = keyed_by(shop.ledger)
    tokens = [
        Addresses("", keyed).url(attempt.account, 1, n, number).rpartition("/")[2]
        for n, state in enumerate(shop.tasks("pots"), 1)
        for number, attempt in enumerate(state.attempts, 1)
    ]
    assert len(tokens) >= 24
    secrets = [
        *disguises(KEY),
        *disguises(WRONG),
        *disguises(WEBHOOK),
        *disguises(PROXY),
        key_file,
        key_file.hex().encode(),
    ]
    secrets += [token.encode() for token in tokens]
    assert copied in (b"", key_file)
    for path, data in places.items():
        for secret in secrets:
            assert secret not in data, f"{secret!r} in {path}"


def test_the_providers_of_practice_keep_no_key_either(life: Life) -> None:
    """SEC-1: they know addresses of callbacks, as those they play do; keys they tell apart by a digest."""
    kept = [path.read_bytes() for path in (life.shop.folder.parent / "providers").rglob("*") if path.is_file()]
    assert any(b"secret life" in data for data in kept), "the jobs are there"
    for secret in (*disguises(KEY), *disguises(WRONG), *disguises(PROXY)):
        assert not any(secret in data for data in kept)


def test_addresses_of_results_stand_in_texts_that_can_be_erased_and_nowhere_else(life: Life) -> None:
    """SEC-1, SEC-8: an address is as good as the image; raw answers hold it too."""
    shop, printed = life
    with Reader(shop.ledger) as reader:
        texts = [text for row in range(1, 2000) if (text := reader.payload(row))]
    addresses = [text for text in texts if "/files/" in text]
    assert len(addresses) >= 10
    where = {path for path in shop.folder.rglob("*") if path.is_file() and b"/files/" in path.read_bytes()}
    assert {path.name.partition(".db")[0] for path in where} <= {"bydawn", "copy"}
    assert "/files/" not in printed
    events = events_of(shop.ledger)
    assert "attempt_intended" in events
    assert "/files/" not in events


def events_of(ledger: Path) -> str:
    """All events, as they are on record."""
    return "\n".join(f"{row[0]} {row[1]}" for row in Database(ledger).execute("SELECT type, data FROM events"))


# --- what providers say back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
@trio_test
async def test_no_provider_can_make_us_write_our_key_down(provider: str) -> None:
    """SEC-1: "Incorrect API key provided: ...": an answer repeats what we sent, and its words are kept and shown."""

    async def parrot(seen: Seen, stream: trio.abc.Stream) -> None:
        said = " ".join([*seen.headers.values(), seen.target])
        await stream.send_all(http(401, said.encode(), x_echo=said))

    wire = HttpWire()
    async with serve(parrot) as server:
        call = codec(provider).build_check(Context(key=Secret(KEY), base_url=server.url))
        reply = await wire.send(call)
    assert KEY in repr(call.headers)
    assert KEY not in repr(reply)
    assert b"-" * len(KEY) in reply.body
    await wire.aclose()


@trio_test
async def test_what_is_no_key_is_left_as_it_came() -> None:
    body = b"idempotent-1234567890 application/json abc"

    async def answer(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(http(200, body))

    wire = HttpWire()
    headers = {"idempotency-key": "idempotent-1234567890", "accept": "application/json", "x-api-key": "abc"}
    async with serve(answer) as server:
        assert (await wire.send(HttpCall("GET", server.url, headers))).body == body
    await wire.aclose()


def test_a_secret_does_not_print_itself() -> None:
    secret = Secret(KEY)
    context = Context(key=secret)
    call = HttpCall("GET", f"https://x.example/?key={KEY}", {"authorization": KEY}, KEY.encode())
    assert KEY not in "".join(map(repr, (secret, context, call))) + str(secret) + f"{secret}{context}"
    with pytest.raises(TypeError):
        os.fspath(secret)  # type: ignore[call-overload]
    assert re.search("K3y", str([secret])) is None
