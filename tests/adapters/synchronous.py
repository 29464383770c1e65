"""What the tests of synchronous providers share: whole answers from an emulator, and garbage to read."""

import msgspec
from hypothesis import strategies as st

from adapters.base import HttpCall, HttpReply
from adapters.sandbox.base import Embeds, Emulator, Reply
from adapters.sandbox.picture import draw
from adapters.sandbox.wirefmt import EmulatorSettings
from tests.adapters.inprocess import START_US, raw


def buy(emulator: Emulator, world: EmulatorSettings, call: HttpCall, now_us: int = START_US) -> HttpReply:
    """Send a call and wait for its whole answer, the picture included."""
    reply = raw(emulator, call.method, call.url, now_us, headers=call.headers, body=call.body)
    return whole(emulator, world, reply)


def whole(emulator: Emulator, world: EmulatorSettings, reply: Reply) -> HttpReply:
    """Draw what the emulator left to the house."""
    job = world.jobs.get(emulator.name, reply.draws) if reply.draws else None
    if job is not None:
        assert isinstance(emulator, Embeds)
        reply = emulator.embed(reply, draw(job, short_side=world.small_px))
    return HttpReply(reply.status, reply.headers, reply.body)


def statuses(*documented: int) -> st.SearchStrategy[int]:
    return st.sampled_from([200, 201, 204, 302, *documented]) | st.integers(100, 599)


def bodies(fields: list[str]) -> st.SearchStrategy[bytes]:
    """Bytes, JSON, and JSON that is nearly an answer: an image, an error, or a listing with something wrong in it."""
    value = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(fields), inner, max_size=4),
        max_leaves=8,
    )
    image = st.fixed_dictionaries({"data": st.lists(st.dictionaries(st.sampled_from(["b64_json", "url"]), value))})
    error = st.fixed_dictionaries({"error": st.dictionaries(st.sampled_from(["message", "code", "type"]), value)})
    nested = st.just(b"[" * 5_000) | st.just(b'{"error":' * 5_000)
    return st.binary(max_size=60) | nested | st.builds(msgspec.json.encode, value | image | error)


HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "x-ratelimit-reset", "date", "content-type"]),
    st.text(max_size=12) | st.sampled_from(["7", "1.5", "-1", "1e9", "NaN", "٣", "9" * 40]),
)
