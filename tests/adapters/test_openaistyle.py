"""The error envelope and the image in an answer, as the synchronous providers share them."""

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import HttpReply
from adapters.openaistyle import Problem, embedded, image_of, problem_of, reply_limit, standing_of, wait_s


@given(st.binary(min_size=1, max_size=200), st.sampled_from(["{}", "data:image/png;base64,{}"]), st.integers(1, 80))
def test_an_image_survives_its_packing(data: bytes, form: str, width: int) -> None:
    encoded = base64.b64encode(data).decode()
    lines = "\n".join(encoded[start : start + width] for start in range(0, len(encoded), width))
    assert embedded(form.format(lines)) == data
    assert image_of(msgspec.json.encode({"data": [{"b64_json": form.format(encoded), "url": None}]})) == ("", data)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"data":[{"url":"https://f.example/a.png"}]}', ("https://f.example/a.png", b"")),
        (b'{"data":[{"url":"http://f.example/a.png","b64_json":null}]}', ("http://f.example/a.png", b"")),
        (b'{"data":[{"url":"data:image/png;base64,cG5n"}]}', ("", b"png")),
        (b'{"data":[{"url":"file:///etc/passwd"}]}', ("", b"")),
        (b'{"data":[{"b64_json":"not base64!"}]}', ("", b"")),
        (b'{"data":[{"b64_json":""}]}', ("", b"")),
        (b'{"data":[{"b64_json":7}]}', ("", b"")),
        (b'{"data":[]}', ("", b"")),
        (b'{"data":{}}', ("", b"")),
        (b"[]", ("", b"")),
    ],
)
def test_an_answer_has_an_image_or_nothing(body: bytes, found: tuple[str, bytes]) -> None:
    assert image_of(body) == found


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            b'{"error":{"message":"m","type":"t","param":"p","code":"c"}}',
            Problem(message="m", kind="t", code="c", param="p"),
        ),
        (b'{"error":{"message":"m","code":404}}', Problem(message="m", code="404")),
        (b'{"error":{"message":"m","error_type":"t"}}', Problem(message="m", kind="t")),
        (b'{"error":{"message":"m"},"error_type":"t"}', Problem(message="m", kind="t")),
        (b'{"error":{"message":["m"],"code":null}}', Problem()),
        (b'{"error":"m"}', Problem()),
        (b"<html>", Problem()),
    ],
)
def test_an_envelope_is_read_or_empty(body: bytes, problem: Problem) -> None:
    assert problem_of(body) == problem
    assert bool(problem_of(body)) == (problem != Problem())


def test_a_problem_has_words() -> None:
    assert Problem(message="m", kind="t", code="c").text == "c: m"
    assert Problem(message="m", kind="t").text == "t: m"
    assert Problem(code="c").text == "c"
    assert Problem(code="content_policy_violation").names_policy
    assert Problem(message="blocked by the safety system").names_policy
    assert Problem(kind="content_filter").names_policy
    assert not Problem(message="unsafe size").names_policy


@pytest.mark.parametrize(
    ("status", "state"),
    [(401, "rejected"), (403, "rejected"), (402, "no_credit"), (404, "unreadable"), (503, "unreadable")],
)
def test_what_a_refused_check_says_of_the_account(status: int, state: str) -> None:
    told = standing_of(HttpReply(status, {}, b'{"error":{"message":"m","code":"c"}}'))
    assert told.state == state
    assert "c: m" in told.detail
    bare = standing_of(HttpReply(status, {}, b"<html>")).state
    assert bare == ("unreadable" if status == 403 else state)  # somebody in front of the API forbids as well


def test_the_first_readable_header_says_the_wait() -> None:
    reply = HttpReply(429, {"retry-after": "Sun, 22 Nov 2026 01:00:00 GMT", "x-ratelimit-reset": "2.5"}, b"")
    assert wait_s(reply, "retry-after", "x-ratelimit-reset") == 2.5
    assert wait_s(reply, "retry-after") is None
    assert wait_s(reply, "x-none") is None


def test_a_larger_image_may_have_a_larger_answer() -> None:
    limits = [reply_limit(size) for size in ("0.5K", "1K", "2K", "4K")]
    assert limits == sorted(set(limits))
