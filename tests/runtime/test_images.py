"""Which bytes are an acceptable image (RES-4, SEC-4)."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runtime.images import MAX_PIXELS, BadImage, Expected, Inspected, inspect
from tests.runtime.pictures import FORMATS, encode, jpeg_claiming, picture, png_claiming, webp_claiming


@pytest.mark.parametrize("media_type", FORMATS)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (64, 48), (37, 101)])
def test_a_whole_picture_is_accepted_as_what_it_is(media_type: str, width: int, height: int) -> None:
    seen = inspect(picture(media_type, width, height))
    assert isinstance(seen, Inspected)
    assert (seen.media_type, seen.width, seen.height) == (media_type, width, height)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_png_is_accepted(mode: str) -> None:
    image = Image.new(mode, (8, 8)) if mode == "I;16" else Image.linear_gradient("L").resize((8, 8)).convert(mode)
    assert isinstance(inspect(encode(image)), Inspected)


def test_a_lossless_webp_and_a_progressive_cmyk_jpeg_are_accepted() -> None:
    lossless = encode(Image.linear_gradient("L").convert("RGBA"), "image/webp")
    assert isinstance(inspect(lossless), Inspected)
    assert isinstance(inspect(encode(Image.linear_gradient("L").convert("CMYK"), "image/jpeg")), Inspected)


@pytest.mark.parametrize("media_type", FORMATS)
def test_no_picture_that_was_cut_off_is_accepted(media_type: str) -> None:
    data = picture(media_type, 16, 16)
    for end in range(len(data)):
        assert isinstance(inspect(data[:end]), BadImage), end


@pytest.mark.parametrize(
    "bomb",
    [
        png_claiming(60_000, 60_000),
        png_claiming(2**31 - 1, 2**31 - 1),
        jpeg_claiming(65_535, 65_535),
        webp_claiming(1 << 24, 1 << 24),
        png_claiming(MAX_PIXELS + 1, 1),
    ],
)
def test_a_bomb_is_refused_by_its_header(bomb: bytes) -> None:
    tracemalloc.start()
    verdict = inspect(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(verdict, BadImage)
    assert "pixels are more than" in verdict.reason
    assert peak < 1_000_000


def test_a_picture_with_too_few_pixels_for_its_header_is_refused() -> None:
    assert isinstance(inspect(png_claiming(100, 100, bytes(50))), BadImage)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html><body>Not Found</body></html>",
        b'{"code": 404}',
        b"GIF89a" + bytes(100),
        b"BM" + bytes(100),
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xe0\x00\x01",
        b"\xff\xd8" + b"\xff" * 100,
        b"RIFF\x04\x00\x00\x00WEBP",
        b"RIFF\x0c\x00\x00\x00WEBPJUNK\x00\x00\x00\x00",
        png_claiming(0, 0),
        webp_claiming(4, 4),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    verdict = inspect(data)
    assert isinstance(verdict, BadImage)
    assert verdict.reason


@pytest.mark.parametrize("where", ["data", "checksum"])
def test_a_checksum_that_does_not_fit_is_refused(where: str) -> None:
    data = bytearray(picture())
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4])
    data[start + (length if where == "checksum" else 20)] ^= 1
    assert isinstance(inspect(bytes(data)), BadImage)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FORMATS)), st.data())
def test_damage_anywhere_gives_a_verdict_and_never_an_error(media_type: str, data: st.DataObject) -> None:
    whole = bytearray(picture(media_type, 16, 16))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(inspect(bytes(whole)), (Inspected, BadImage))


@given(
    st.binary(max_size=200),
    st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x10\x00\x00\x00WEBPVP8", b""]),
)
def test_any_bytes_give_a_verdict(data: bytes, head: bytes) -> None:
    assert isinstance(inspect(head + data), BadImage)


# --- flags ------------------------------------------------------------------------------------------------


def flags(image: Image.Image, media_type: str = "image/png", **expected: str) -> tuple[str, ...]:
    seen = inspect(encode(image, media_type), Expected(**expected))
    assert isinstance(seen, Inspected)
    return seen.flags


@pytest.mark.parametrize("media_type", FORMATS)
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (13, 130, 201)])
def test_one_colour_is_blank_in_every_format(media_type: str, colour: tuple[int, int, int]) -> None:
    assert flags(Image.new("RGB", (200, 100), colour), media_type) == ("blank",)


def test_an_invisible_picture_is_blank() -> None:
    image = Image.linear_gradient("L").convert("RGBA")
    image.putalpha(0)
    assert flags(image) == ("blank",)


def test_a_small_thing_on_a_plain_ground_is_not_blank() -> None:
    image = Image.new("RGB", (1000, 1000), (250, 250, 250))
    image.paste((0, 0, 0), (500, 500, 512, 512))
    assert flags(image) == ()


@pytest.mark.parametrize(
    ("width", "height", "aspect", "flagged"),
    [
        (1344, 768, "16:9", False),
        (1152, 896, "5:4", False),
        (1536, 672, "21:9", False),
        (1024, 1024, "1:1", False),
        (1024, 1024, "16:9", True),
        (768, 1344, "16:9", True),
        (1344, 768, "auto", False),
        (1344, 768, "", False),
        (1344, 768, "0:0", False),
        (1344, 768, "wide", False),
    ],
)
def test_another_shape_than_asked_is_flagged(width: int, height: int, aspect: str, flagged: bool) -> None:
    image = Image.linear_gradient("L").resize((width // 8, height // 8))
    assert flags(image, aspect=aspect) == (("aspect",) if flagged else ())


@pytest.mark.parametrize(
    ("side", "resolution", "flagged"), [(512, "1K", True), (512, "0.5K", False), (512, "", False), (512, "8K", False)]
)
def test_a_smaller_picture_than_asked_is_flagged(side: int, resolution: str, flagged: bool) -> None:
    image = Image.linear_gradient("L").resize((side, side))
    assert flags(image, resolution=resolution) == (("small",) if flagged else ())
