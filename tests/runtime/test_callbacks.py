"""Addresses and the gate: what is ours passes as a hint, and everything else is told nothing (SEC-1, REC-7)."""

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence

import msgspec
import pytest
import trio
from hypothesis import assume, given
from hypothesis import strategies as st

from adapters.base import (
    Codec,
    Context,
    HttpCall,
    HttpReply,
    ImageRequest,
    MalformedReply,
    Secret,
    SubmitOutcome,
    Unclear,
)
from adapters.capabilities import Capabilities
from runtime.callbacks import Addresses, Gate, Named, without_token
from runtime.gateway import Gateway, Submission
from runtime.inbox import Hint
from runtime.work import Work
from tests.runtime.fakes import CAPS, Bench, FakeProvider, known, run

BASE = "https://hooks.example/bydawn"
GOOD = {"x-signature": "by k1"}
BODY = b"job j7"


def keyed(text: str) -> str:
    return hmac.new(b"secret of the ledger", text.encode(), hashlib.sha256).hexdigest()[:32]


class Caller(FakeProvider):
    """A provider that signs with the name of its secret, and names the job in the body."""

    def verify_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: Sequence[Secret], now_s: float
    ) -> bool:
        return headers.get("x-signature") in [f"by {secret.reveal()}" for secret in secrets] and now_s < 1000.0

    def read_callback(self, body: bytes) -> str:
        head, _, job = body.partition(b" ")
        if head != b"job":
            raise MalformedReply("callback: no job")
        return job.decode("latin-1")


CALLER = Caller(caps=msgspec.structs.replace(CAPS, callback=known("signed")))


def gate(*secrets: str, codec: Codec | None = CALLER) -> Gate:
    return Gate(
        keyed=keyed,
        codec_of={"fake": codec, "fake eu/1": codec}.get,
        secrets={"fake": [Secret(secret) for secret in secrets]} if secrets else {},
    )


def path(account: str = "fake", batch: int = 1, n: int = 12, attempt: int = 3, *, base: str = BASE) -> str:
    return Addresses(base, keyed).url(account, batch, n, attempt).removeprefix("https://hooks.example")


@pytest.mark.parametrize("account", ["fake", "fake eu/1", "ü%2F-"])
@pytest.mark.parametrize("base", [BASE, BASE + "/", "https://hooks.example", "https://hooks.example/callback/x"])
def test_an_address_names_its_attempt_and_nothing_is_stored(account: str, base: str) -> None:
    assert gate().named(path(account, base=base)) == Named(account, 1, 12, 3)


def test_a_prefix_may_be_stripped_on_the_way() -> None:
    assert gate().named(path().removeprefix("/bydawn")) == Named("fake", 1, 12, 3)


@pytest.mark.parametrize(
    "forged",
    [
        "/callback/fake/1-12-3/" + "0" * 32,
        path().replace("1-12-3", "1-12-4"),
        path().replace("/fake/", "/other/"),
        path().replace("/callback/", "/callbacks/"),
        path()[:-1],
        path() + "0",
        path() + "/",
        path().upper(),
        "/callback/fake/1-12-3/",
        "/",
        "",
    ],
)
def test_any_other_path_names_nothing(forged: str) -> None:
    assert gate().named(forged) is None


def test_another_ledger_has_other_addresses() -> None:
    theirs = Gate(keyed=lambda text: keyed(text + "!"), codec_of=lambda name: CALLER, secrets={})
    assert theirs.named(path()) is None


@given(noise=st.text())
def test_garbage_for_a_path(noise: str) -> None:
    for forged in (noise, "/callback/" + noise, path()[:-5] + noise):
        assume(forged != path())
        assert gate().named(forged) is None


def test_the_text_of_a_named_attempt_has_no_token() -> None:
    """SEC-1: it is what logs show."""
    named = gate().named(path())
    assert named is not None
    assert named.text == "fake/1-12-3"


def test_a_signed_callback_is_a_hint() -> None:
    named = Named("fake", 1, 12, 3)
    assert gate("k1").hint(named, GOOD, BODY, now_s=1.0) == Hint("fake", 1, 12, 3, "j7")
    assert gate("k0", "k1").hint(named, GOOD, BODY, now_s=1.0) == Hint("fake", 1, 12, 3, "j7")


def test_without_a_secret_the_token_alone_will_do() -> None:
    assert gate().hint(Named("fake", 1, 12, 3), {}, BODY, now_s=1.0) == Hint("fake", 1, 12, 3, "j7")


@pytest.mark.parametrize(
    ("headers", "body", "now_s", "account", "why"),
    [
        ({}, BODY, 1.0, "fake", "signature"),
        ({"x-signature": "by k2"}, BODY, 1.0, "fake", "signature"),
        (GOOD, BODY, 2000.0, "fake", "signature"),
        (GOOD, b"garbage", 1.0, "fake", "cannot be read"),
        (GOOD, b"job ../../etc", 1.0, "fake", "no usable job"),
        (GOOD, b"job ", 1.0, "fake", "no usable job"),
        (GOOD, BODY, 1.0, "unknown", "no such account"),
    ],
)
def test_what_is_no_hint_is_told_apart_for_the_log(
    headers: dict[str, str], body: bytes, now_s: float, account: str, why: str
) -> None:
    refused = gate("k1").hint(Named(account, 1, 12, 3), headers, body, now_s=now_s)
    assert isinstance(refused, str)
    assert why in refused


def test_a_provider_that_never_calls_is_not_heard() -> None:
    silent = FakeProvider()
    refused = gate(codec=silent).hint(Named("fake", 1, 12, 3), {}, BODY, now_s=1.0)
    assert isinstance(refused, str)


def test_a_token_is_blanked_wherever_it_is_repeated() -> None:
    """SEC-1: replies are kept for dispute, and their words end up in events."""
    url = Addresses(BASE, keyed).url("fake", 1, 12, 3)
    token = url.rpartition("/")[2]
    said = f'{{"error": "cannot call {url}", "again": "{token}"}}'.encode()
    blanked = without_token(said, url)
    assert token.encode() not in blanked
    assert len(blanked) == len(said)
    assert without_token(said, "") == said


# --- the gateway ------------------------------------------------------------------------------------------------


class Echo(Caller):
    """Takes a call, and answers with an error that repeats it whole."""

    def __init__(self, caps: Capabilities) -> None:
        super().__init__(caps=caps)
        self.told: list[str] = []

    async def send(self, call: HttpCall, on_sent: Callable[[], None] | None = None) -> HttpReply:
        await trio.sleep(0.1)
        return HttpReply(500, {}, call.body)

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        self.told.append(ctx.callback_url)
        return HttpCall("POST", "submit/x", {}, f"cannot call {ctx.callback_url}".encode())

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        return Unclear(reply.body.decode())


def bought(
    caps: Capabilities, *, addresses: Addresses | None, provider: FakeProvider | None = None
) -> tuple[Echo, Work]:
    """Buy one image from a provider that repeats what it was told."""
    bench = Bench()
    echo = Echo(caps)
    account = msgspec.structs.replace(bench.account, codec=provider or echo)
    gateway = Gateway(bench.log, echo, bench.clock, "ledger", bench.spool, addresses=addresses)
    work = bench.work()

    async def go() -> None:
        done = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(gateway.run)
            gateway.start(Submission(work, account, "1:1", "only", 40_000, lambda at_us: (), lambda *_: done.set()))
            await done.wait()
            nursery.cancel_scope.cancel()

    run(go)
    return echo, work


def test_an_attempt_is_given_its_own_address_and_the_intent_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-1: the address is told to the provider and to nobody else."""
    addresses = Addresses(BASE, keyed)
    echo, work = bought(CALLER.capabilities, addresses=addresses)
    assert echo.told == [addresses.url("fake", 1, 1, 1)]
    assert work.attempt.callback
    assert "cannot call" in caplog.text
    assert echo.told[0].rpartition("/")[2] not in caplog.text


@pytest.mark.parametrize("silent", ["no webhook URL", "no codec for it", "no record of it"])
def test_who_cannot_call_is_given_no_address(silent: str) -> None:
    addresses = None if silent == "no webhook URL" else Addresses(BASE, keyed)
    caps = msgspec.structs.replace(CAPS, callback=None) if silent == "no record of it" else CALLER.capabilities
    provider = Silent(Echo(caps)) if silent == "no codec for it" else None
    echo, work = bought(caps, addresses=addresses, provider=provider)
    told = provider.echo.told if provider else echo.told
    assert told == [""]
    assert not work.attempt.callback


class Silent(FakeProvider):
    """The same provider, whose codec knows nothing of callbacks."""

    def __init__(self, echo: Echo) -> None:
        super().__init__(caps=echo.capabilities)
        self.echo = echo

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        return self.echo.build_submit(request, ctx)

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        return self.echo.read_submit(reply)
