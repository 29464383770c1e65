"""The laws of callbacks, for every provider that has them: who signed it is believed, and nobody else.

The emulators sign as the providers' documents say; each codec's check is its own.
"""

from typing import cast

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adapters.base import Accepted, Callbacks, Codec, Context, ImageRequest, MalformedReply, Secret
from adapters.reading import is_job_id
from adapters.registry import PROVIDERS, codec, load
from adapters.sandbox.base import CallsBack, Emulator, SignsForAccount, Webhook
from adapters.sandbox.wirefmt import EmulatorSettings
from tests.adapters.inprocess import ORIGIN, START_US, S, ask, sandbox

KEY = "whsec_c2FuZGJveCBzZWNyZXQ="
ENDED_US = START_US + 60 * S


class Sample(msgspec.Struct, frozen=True):
    """A callback of one provider, and what it was signed with."""

    codec: Callbacks
    job: str
    hook: Webhook
    secret: Secret


def emulator(provider: str, settings: EmulatorSettings) -> Emulator:
    build = cast("type[Emulator]", load(PROVIDERS[provider].emulator))
    return build(settings)  # type: ignore[call-arg]  # every emulator takes its settings


def sample(provider: str, key: str = KEY) -> Sample:
    """Buy an image from the emulator, and take the callback that it owes when the job has ended."""
    settings = msgspec.structs.replace(sandbox(), webhook_key=key)
    shop, dialect = emulator(provider, settings), codec(provider)
    url = "https://hooks.example/callback/a/1-2-3/0123"
    ctx = Context(Secret("sandbox"), f"{ORIGIN}/{provider}", reference="bd-1", callback_url=url)
    outcome = dialect.read_submit(ask(shop, dialect.build_submit(ImageRequest("a kettle"), ctx)))
    assert isinstance(outcome, Accepted)
    (job,) = settings.jobs.due_callbacks(provider, ENDED_US, 10)
    secret = shop.webhook_secret(job.account) if isinstance(shop, SignsForAccount) else key
    assert isinstance(shop, CallsBack)
    hook = shop.webhook(job, ENDED_US)
    assert hook.url == url
    assert isinstance(dialect, Callbacks)
    return Sample(dialect, outcome.job, hook, Secret(secret))


def verifies(given: Sample, *, body: bytes | None = None, at_us: int = ENDED_US, **changes: object) -> bool:
    headers = cast(dict[str, str], changes.get("headers", given.hook.headers))
    secrets = cast(list[Secret], changes.get("secrets", [given.secret]))
    lower = {name.lower(): value for name, value in headers.items()}
    sent = given.hook.body if body is None else body
    return given.codec.verify_callback(lower, sent, secrets=secrets, now_s=at_us / 1e6)


def signs(provider: str) -> str:
    fact = codec(provider).capabilities.callback
    return fact.value if fact is not None else ""


CALLING = [provider for provider in PROVIDERS if isinstance(codec(provider), Callbacks)]
SIGNING = [provider for provider in CALLING if signs(provider) in ("signed", "id-signed")]


def test_the_record_says_who_calls_back() -> None:
    told = [provider for provider in PROVIDERS if codec(provider).capabilities.callback is not None]
    assert told == CALLING
    assert "replicate" in SIGNING


@pytest.mark.parametrize("provider", CALLING)
def test_a_callback_names_the_job_that_was_bought(provider: str) -> None:
    found = sample(provider)
    assert found.codec.read_callback(found.hook.body) == found.job
    assert verifies(found)


@pytest.mark.parametrize("provider", SIGNING)
def test_another_secret_is_refused_and_one_of_several_is_enough(provider: str) -> None:
    found = sample(provider)
    other = Secret("whsec_YW5vdGhlciBzZWNyZXQh")
    assert not verifies(found, secrets=[other])
    assert not verifies(found, secrets=[])
    assert verifies(found, secrets=[other, found.secret])
    assert verifies(found, secrets=[found.secret, other])


@pytest.mark.parametrize("provider", SIGNING)
@pytest.mark.parametrize("apart_s", [-86_400, -1_000, 1_000, 86_400])
def test_an_old_callback_and_one_from_the_future_are_refused(provider: str, apart_s: int) -> None:
    found = sample(provider)
    assert not verifies(found, at_us=ENDED_US + apart_s * S)
    assert verifies(found, at_us=ENDED_US + 60 * S)


@pytest.mark.parametrize("provider", [provider for provider in SIGNING if signs(provider) == "signed"])
@given(data=st.data())
def test_any_changed_byte_of_the_body_is_noticed(provider: str, data: st.DataObject) -> None:
    found = sample(provider)
    body = bytearray(found.hook.body)
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))
    assert not verifies(found, body=bytes(body))
    assert not verifies(found, body=found.hook.body + b" ")


@pytest.mark.parametrize("provider", SIGNING)
@given(data=st.data())
def test_any_changed_header_of_the_signature_is_noticed(provider: str, data: st.DataObject) -> None:
    found = sample(provider)
    names = sorted(name for name in found.hook.headers if name.lower() != "content-type")
    name = data.draw(st.sampled_from(names))
    value = data.draw(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200))
    assume(value.strip() != found.hook.headers[name])
    changed = found.hook.headers | {name: value}
    # A header may hold several signatures: one that was added changes nothing.
    assume(found.hook.headers[name] not in value)
    assert not verifies(found, headers=changed)
    assert not verifies(found, headers={left: found.hook.headers[left] for left in names if left != name})


@pytest.mark.parametrize("provider", CALLING)
@given(
    body=st.binary(max_size=300) | st.sampled_from([b"{}", b"[]", b"null", b'{"id":1}', b'{"data":{"taskId":"../x"}}']),
    headers=st.dictionaries(
        st.sampled_from(
            [
                *("webhook-id", "webhook-timestamp", "webhook-signature"),
                *("x-webhook-timestamp", "x-webhook-signature"),
                *("x-toapis-webhook-id", "x-toapis-webhook-timestamp", "x-toapis-webhook-signature"),
            ]
        ),
        st.text(max_size=60),
    ),
    secret=st.text(max_size=40),
)
def test_garbage_is_refused_and_nothing_else_happens(
    provider: str, body: bytes, headers: dict[str, str], secret: str
) -> None:
    dialect = cast(Callbacks, codec(provider))
    verified = dialect.verify_callback(headers, body, secrets=[Secret(secret)], now_s=ENDED_US / 1e6)
    assert verified is (signs(provider) == "unsigned")
    try:
        job = dialect.read_callback(body)
    except MalformedReply:
        return
    assert is_job_id(job)


@pytest.mark.parametrize("provider", CALLING)
def test_a_request_without_an_address_asks_for_no_callback(provider: str) -> None:
    dialect: Codec = codec(provider)
    ctx = Context(Secret("sandbox"), f"{ORIGIN}/{provider}", reference="bd-1")
    assert b"callback" not in dialect.build_submit(ImageRequest("a kettle"), ctx).body.lower()
