"""Little that unpacks to much, and streams that never end: replies, results, images, inputs, messages (SEC-4, SEC-9).

The bound is what is tested: memory by tracing it, time by a count of what would have to be gone over.
"""

import contextlib
import gzip
import io
import itertools
import json
import os
import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import trio
from PIL import Image
from trio.testing import trio_test

from adapters.base import Context, HttpCall, HttpReply, MalformedReply, Secret, UploadRefused
from adapters.registry import PROVIDERS, codec
from bydawn.errors import UserError
from bydawn.inputs import InputOptions
from bydawn.inputs.source import MAX_LINE_CHARS, bounded_lines
from ledger.encoding import decode_event
from ledger.errors import LedgerDamaged
from ledger.events import TaskQueued
from runtime.disk import RealDisk
from runtime.images import MAX_SCANS, BadImage, Inspected, inspect
from runtime.inbox import hints, hints_of, waiting
from runtime.outputs import MarkerDamaged, read_marker
from runtime.ports import FetchRefused, FetchRules, WireError
from runtime.wire import HttpWire
from tests.adapters.everyone import readers
from tests.adapters.replies import DATA
from tests.bydawn.tables import check, put
from tests.runtime.pictures import picture, png_chunk, png_claiming
from tests.runtime.servers import Seen, serve

LIMIT = 1 << 20
HERE = FetchRules(hosts=(), loopback=True, max_bytes=LIMIT)
DEEP = b"[" * 200_000
PATIENCE_S = 120.0


@contextlib.contextmanager
def memory_below(most: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most, f"{peak:,} bytes"


async def nothing(chunk: bytes) -> None:
    """A sink that keeps nothing."""


# --- replies and results ----------------------------------------------------------------------------------------


def endless(head: bytes, pieces: Callable[[], Iterator[bytes]]) -> Callable[[Seen, trio.abc.Stream], object]:
    async def answer(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(head)
        for piece in pieces():
            await stream.send_all(piece)

    return answer


HEAD = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


ENDLESS = {
    "body": (HEAD + b"\r\n", lambda: itertools.repeat(chunk(bytes(60_000)))),
    "chunk head": (HEAD + b"\r\n", lambda: itertools.repeat(b"0" * 60_000)),
    "chunk extension": (HEAD + b"\r\n1;", lambda: itertools.repeat(b"x" * 60_000)),
    "trailers": (HEAD + b"\r\n0\r\n", lambda: itertools.repeat(b"x: y\r\n" * 1000)),
    "headers": (HEAD, lambda: itertools.repeat(b"x: y\r\n" * 1000)),
    "one header": (HEAD + b"x: ", lambda: itertools.repeat(b"y" * 60_000)),
    "status line": (b"HTTP/1.1 200 ", lambda: itertools.repeat(b"y" * 60_000)),
    "compressed": (
        HEAD + b"content-encoding: gzip\r\n\r\n",
        lambda: map(chunk, itertools.chain([gzip.compress(bytes(900_000))[:-8]], itertools.repeat(bytes(60_000)))),
    ),
}


@pytest.mark.parametrize("what", ENDLESS)
@trio_test
async def test_what_never_ends_ends_at_a_bound(what: str) -> None:
    """SEC-4: whichever part of an answer goes on for ever."""
    wire = HttpWire(max_reply_bytes=LIMIT)
    with trio.fail_after(PATIENCE_S):
        async with serve(endless(*ENDLESS[what])) as server:  # type: ignore[arg-type]
            with memory_below(8 << 20), pytest.raises(WireError) as error:
                await wire.send(HttpCall("GET", server.url, {}))
            assert error.value.sent
            with memory_below(8 << 20), pytest.raises((FetchRefused, WireError)):
                await wire.fetch(server.url, nothing, HERE)
    assert wire.statistics().calls.active == wire.statistics().loopback_downloads.active == 0


@trio_test
async def test_what_follows_a_compressed_reply_is_not_kept() -> None:
    """SEC-4: zlib keeps all that stands behind the end of its stream, without a bound."""

    async def answer(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(HEAD + b"content-encoding: gzip\r\n\r\n" + chunk(gzip.compress(b"{}")))
        for _ in range(1000):
            await stream.send_all(chunk(bytes(60_000)))
        await stream.send_all(b"0\r\n\r\n")

    wire = HttpWire()
    async with serve(answer) as server:
        with memory_below(8 << 20), trio.fail_after(PATIENCE_S):
            reply = await wire.send(HttpCall("GET", server.url, {}))
    assert reply.body == b"{}"
    assert wire.statistics().calls.active == 0


@pytest.mark.parametrize("declared", ["99999999999", "1048577", "9" * 5000])
@trio_test
async def test_a_result_that_says_it_is_too_large_is_not_begun(declared: str) -> None:
    async def answer(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(f"HTTP/1.1 200 X\r\ncontent-length: {declared}\r\n\r\n".encode())
        await trio.sleep_forever()

    wire = HttpWire()
    async with serve(answer) as server:
        with trio.fail_after(PATIENCE_S), pytest.raises((FetchRefused, WireError)):
            await wire.fetch(server.url, nothing, HERE)


@trio_test
async def test_a_byte_now_and_then_is_not_waited_for() -> None:
    """Slow transfers end by the clock, whole ones and those that are streamed to the disk."""

    async def drip(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(HEAD + b"\r\n")
        while True:
            await stream.send_all(chunk(b"x"))
            await trio.sleep(0.01)

    wire = HttpWire()
    call = HttpCall("GET", "", {}, timeout_s=1.0)
    async with serve(drip) as server:
        here = msgspec.structs.replace(call, url=server.url)
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(WireError, match="no answer within"):
                await wire.send(here)
            with pytest.raises(WireError, match="too little came"):
                await wire.stream(here, nothing)
            with pytest.raises(WireError, match="not complete"):
                await wire.fetch(server.url, nothing, msgspec.structs.replace(HERE, timeout_s=1.0))
    assert wire.statistics().calls.active == 0


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_reply_that_is_nested_deeply_is_malformed_and_nothing_worse(provider: str) -> None:
    """SEC-4: in the place of any answer, whole or behind a field that we do not know."""
    one = codec(provider)
    for body in (DEEP, b'{"a":' + DEEP, b'{"data":' * 50_000, b'{"error":{"message":' + DEEP):
        for status in (200, 400, 500):
            reply = HttpReply(status=status, headers={}, body=body)
            try:
                one.read_submit(reply)
                one.read_check(reply)
            except MalformedReply:
                pass


MONSTERS = ("1" + "0" * 400, "-1" + "0" * 5000, "1e308", "18446744073709551616", '"' + "9" * 5000 + '"', '"1e999"')
LEAF = re.compile(r'(?<=[:\[, ])(-?\d[\d.]*|"[^"\\]{0,80}"|null|true|false)(?=[,}\]\s])')


def recorded(provider: str) -> set[tuple[int, str]]:
    """The bodies of all recorded replies of a provider, with their status."""
    found: set[tuple[int, str]] = set()

    def walk(value: object) -> None:
        if isinstance(value, dict):
            status, body = value.get("status", 200), value.get("body")
            if isinstance(status, int) and isinstance(body, str | dict):
                found.add((status, body if isinstance(body, str) else json.dumps(body)))
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)

    walk(json.loads((DATA / provider / "replies.json").read_bytes()))
    return found


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_number_of_hundreds_of_digits_is_none_of_ours_and_ends_nothing(provider: str) -> None:
    """SEC-4: in the place of each value of each recorded reply: no float holds it, no column, no clock."""
    one = codec(provider)
    every = readers(one, Context(key=Secret("key")))
    bodies = recorded(provider)
    assert bodies
    for status, body in bodies:
        for leaf in LEAF.finditer(body):
            for monster in MONSTERS:
                odd = (body[: leaf.start()] + monster + body[leaf.end() :]).encode()
                for read in every.values():
                    with contextlib.suppress(MalformedReply, UploadRefused):
                        read(HttpReply(status=status, headers={}, body=odd))


# --- images -----------------------------------------------------------------------------------------------------


def progressive(side: int) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((side, side)).convert("RGB").save(out, "JPEG", progressive=True, quality=10)
    return out.getvalue()


def test_a_jpeg_of_a_hundred_thousand_scans_is_refused_before_it_is_decoded() -> None:
    """SEC-4: each empty scan of a hundred bytes makes a decoder go over every pixel again: hours, in ten megabytes."""
    whole = progressive(512)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    verdict = inspect(whole[:-2] + last * 100_000 + b"\xff\xd9")
    assert verdict == BadImage(f"more than {MAX_SCANS} scans")
    assert isinstance(inspect(whole), Inspected)
    assert isinstance(inspect(whole[:-2] + last * 50 + b"\xff\xd9"), Inspected)


def test_what_only_looks_like_scans_is_none() -> None:
    """Nor do their markers count in a comment, where any bytes may stand."""
    whole = progressive(64)
    noise = b"\xff\xda" * 30_000
    comment = b"\xff\xfe" + struct.pack(">H", len(noise) + 2) + noise
    assert isinstance(inspect(whole[:2] + comment * 3 + whole[2:]), Inspected)
    at = whole.rindex(b"\xff\xda")
    assert isinstance(inspect(whole[:at] + comment + whole[at:]), Inspected)


def bomb_png(*chunks: bytes) -> bytes:
    """A real picture with chunks put in after its header."""
    whole = picture("image/png")
    at = 8 + 25
    return whole[:at] + b"".join(chunks) + whole[at:]


@pytest.mark.parametrize(
    "data",
    [
        bomb_png(png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(500_000_000), 9))),
        bomb_png(png_chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(500_000_000), 9))),
        bomb_png(png_chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(500_000_000), 9))),
        bomb_png(png_chunk(b"tEXt", b"k\0" + bytes(1000)) * 20_000),
        bomb_png(png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)), png_chunk(b"fcTL", bytes(26)) * 10_000),
        png_claiming(64, 64, bytes(400_000_000)),
        picture("image/png") + bytes(30_000_000),
    ],
    ids=["zTXt", "iCCP", "iTXt", "many texts", "frames", "IDAT", "trailing"],
)
def test_what_is_packed_into_an_image_stays_packed(data: bytes) -> None:
    """SEC-4: texts, profiles, frames of an animation, more pixels than the header says."""
    with memory_below(len(data) * 2 + (24 << 20)):
        verdict = inspect(data)
    assert isinstance(verdict, BadImage | Inspected)


def test_an_animation_is_looked_at_by_its_first_frame() -> None:
    """A thousand frames cost what one does; the rest is never decoded."""
    frames = [Image.linear_gradient("L").resize((128, 128)).rotate(n) for n in range(40)]
    for form in ("PNG", "WEBP"):
        out = io.BytesIO()
        frames[0].save(out, form, save_all=True, append_images=frames[1:])
        with memory_below(24 << 20):
            assert isinstance(inspect(out.getvalue()), Inspected)


# --- inputs and messages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.jsonl.gz", "t.csv.gz", "t.tsv.gz"])
def test_an_archive_with_a_line_of_gigabytes_is_a_bad_row_and_not_a_full_memory(tmp_path: Path, name: str) -> None:
    """SEC-4, SEC-9: here a tenth of one; the bound is what counts."""
    size = 6 * MAX_LINE_CHARS
    header = "" if "jsonl" in name else "id,prompt\n" if "csv" in name else "id\tprompt\n"
    data = gzip.compress(header.encode() + b"a" * size + b"\n", 1)
    assert len(data) < size // 100
    path = put(tmp_path, name, data)
    with memory_below(7 * MAX_LINE_CHARS):
        checked = check(path, InputOptions(skip_invalid=True))
    assert checked.tasks == 0
    assert checked.bad_rows > 0


def test_lines_are_whole_unless_they_are_too_long() -> None:
    text = io.StringIO("one\ntwo\r\n\n" + "x" * (MAX_LINE_CHARS + 5) + "\nlast")
    assert [len(line) for line in bounded_lines(text)] == [4, 5, 1, MAX_LINE_CHARS, 6, 4]


@pytest.mark.parametrize("form", ["{deep}\n", '{{"id":"1","prompt":"x","z":{deep}}}\n', '{{"prompt":{deep}}}\n'])
@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_a_row_that_is_nested_deeply_is_a_bad_row(tmp_path: Path, name: str, form: str) -> None:
    """SEC-4."""
    text = form.format(deep="[" * 50_000 + "]" * 50_000)
    good = '{"id":"2","prompt":"fine"}\n'
    data = text + good if name == "t.jsonl" else f"[{text},{good}]"
    checked = check(put(tmp_path, name, data), InputOptions(skip_invalid=True))
    assert (checked.tasks, checked.bad_rows) == (1, 1)


def test_a_damaged_archive_is_told_as_one(tmp_path: Path) -> None:
    whole = gzip.compress(b"prompt\n" + os.urandom(10_000).hex().encode())
    for data in (whole[:-9], whole[:100] + bytes(50) + whole[150:]):
        with pytest.raises(UserError) as error:
            check(put(tmp_path, "t.csv.gz", data))
        assert error.value.code == "BD-012"


def test_deep_json_in_our_own_files_is_damage_and_no_crash(tmp_path: Path) -> None:
    """LED-8: also what was tampered with is read to the end of the audit."""
    with pytest.raises(LedgerDamaged):
        decode_event(TaskQueued.TYPE, '{"x":' + "[" * 100_000)
    (tmp_path / ".bydawn").write_bytes(b'{"x":' + DEEP)
    with pytest.raises(MarkerDamaged):
        read_marker(RealDisk(), tmp_path)


def test_no_message_is_too_large_too_deep_or_no_file(tmp_path: Path) -> None:
    """SEC-4: a pipe in the inbox would be waited on for ever, a link leads to what nobody left there."""
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"type": "cancel", "batch": 1, "operator": "o"}))
    callbacks = hints_of(tmp_path / "inbox")
    callbacks.mkdir(parents=True)
    for folder in (callbacks.parent, callbacks):
        (folder / "a-large.json").write_bytes(b'"' + bytes(1 << 20))
        (folder / "b-deep.json").write_bytes(b'{"type":"cancel","batch":1,"operator":"o","x":' + b"[" * 50_000)
        (folder / "c-link.json").symlink_to(secret)
        (folder / "d-pipe.json").unlink(missing_ok=True)
        os.mkfifo(folder / "d-pipe.json")
        (folder / "e-loop.json").symlink_to(folder / "e-loop.json")
        (folder / "f-zero.json").symlink_to("/dev/zero")
    assert [message for _, message in waiting(callbacks.parent)] == [None] * 6
    assert [hint for _, hint in hints(callbacks.parent)] == [None] * 6
