"""Forms: what a codec writes, an emulator and the standard library read back."""

from email.parser import BytesParser
from email.policy import HTTP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import FileBytes
from adapters.multipart import form
from adapters.sandbox.base import Call
from adapters.sandbox.forms import Part, file_name, image_type, read_form

texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


def received(content_type: str, body: bytes) -> dict[str, Part] | None:
    return read_form(Call("POST", "/", {}, {"content-type": content_type}, body, "http://x"))


@given(data=st.binary(max_size=200), value=texts)
def test_what_is_sent_is_what_is_received(data: bytes, value: str) -> None:
    file = FileBytes("ab12.png", "image/png", data)
    content_type, body = form(file, {"purpose": value}, field="image")
    assert received(content_type, body) == {
        "purpose": Part(value.encode()),
        "image": Part(data, "ab12.png", "image/png"),
    }
    assert form(file, {"purpose": value}, field="image") == (content_type, body)


def test_the_standard_library_reads_the_same() -> None:
    content_type, body = form(FileBytes("ab12.png", "image/png", b"\x89PNG\r\n\x00\xff"), {"uploadPath": "bydawn"})
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    parts = {str(part.get_param("name", header="content-disposition")): part for part in message.iter_parts()}
    assert parts["uploadPath"].get_payload() == "bydawn"
    assert parts["file"].get_filename() == "ab12.png"
    assert parts["file"].get_content_type() == "image/png"
    assert parts["file"].get_payload(decode=True) == b"\x89PNG\r\n\x00\xff"


@given(content_type=st.sampled_from(["", "multipart/form-data; boundary=b", "application/json"]), body=st.binary())
def test_anything_is_a_form_or_is_none(content_type: str, body: bytes) -> None:
    assert received(content_type, body) is None or content_type.startswith("multipart")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b\r\n",
        b"before\r\n--b--",
        b"--b\r\nContent-Type: x\r\n\r\nunnamed\r\n--b--",
        b'--b\r\nname="a"\r\n--b--',
    ],
)
def test_half_a_form_is_none(body: bytes) -> None:
    assert received("multipart/form-data; boundary=b", body) is None


@pytest.mark.parametrize(
    ("start", "media_type", "extension"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png", "png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg", "jpg"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp", "webp"),
        (b"GIF89a", "image/gif", "gif"),
        (b"%PDF", "", "bin"),
    ],
)
def test_an_image_is_known_by_its_first_bytes(start: bytes, media_type: str, extension: str) -> None:
    assert image_type(start) == media_type
    assert file_name(start) == file_name(bytes(start))
    assert file_name(start).endswith("." + extension)
    assert file_name(start) != file_name(start + b"x")
