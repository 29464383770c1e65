"""Sandbox images: real, cheap to draw, and telling from their pixels which request they belong to.

The digest of the request is drawn as a grid of large black and white cells below a band that says SANDBOX.
The grid is placed in fractions of the picture, so it survives JPEG and scaling (not cropping).  A check word
follows the digest: an image that is not one of ours, or a blank one, is recognised as such.
"""

import hashlib
import io
import math
import re
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from adapters.sandbox.base import Job

_COLUMNS = 16
_ROWS = 17  # 16 rows of digest, one of check word
_BAND = 8  # the mark takes one eighth of the height
_SIDES = {"0.5K": 512, "1K": 1024, "2K": 2048, "4K": 4096}
_PAPER, _INK = (236, 226, 205), (31, 41, 66)
_UPLOADED = re.compile(r"https?://.+/(?:uploads|files|assets)/([0-9a-f]{32})(?:\.[a-z0-9]+)?|sha256:([0-9a-f]{32}).*")


def request_digest(prompt: str, references: tuple[str, ...], aspect: str, resolution: str) -> bytes:
    """Digest what must be the same for two images to be interchangeable (32 bytes).

    A file counts by its content, whether it was uploaded (its address is made of its digest) or came in the request.
    """
    digest = hashlib.sha256()
    for part in (prompt, aspect, resolution, *map(_by_content, references)):
        raw = part.encode()
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.digest()


def _by_content(reference: str) -> str:
    found = _UPLOADED.fullmatch(reference)
    return reference if found is None else f"sha256:{found[1] or found[2]}"


def pixel_size(aspect: str, resolution: str, *, short_side: int = 0) -> tuple[int, int]:
    """Return width and height: the area of the size class in the asked aspect, sides in steps of 16.

    ``short_side`` (simulation) overrides the size class: that many pixels on the shorter side.
    """
    width, _, height = aspect.partition(":")
    ratio = int(width) / int(height) if height else 1.0  # "auto": square
    if short_side:
        return (round(short_side * max(ratio, 1.0)), round(short_side * max(1.0 / ratio, 1.0)))
    side = _SIDES[resolution]
    return (round(side * math.sqrt(ratio) / 16) * 16, round(side / math.sqrt(ratio) / 16) * 16)


def draw(job: Job, *, short_side: int = 0) -> bytes:
    """Draw the result of ``job``, spoiled as its fate says; the same bytes every time."""
    if job.fate == "wrong_bytes":
        return b"<!doctype html><title>Temporarily unavailable</title>"
    size = pixel_size(job.aspect, job.resolution, short_side=short_side)
    digest = None
    if job.fate != "blank":
        digest = request_digest(job.prompt, job.references, job.aspect, job.resolution)
    data = (_small if short_side else _encoded)(size, digest, job.output_format)
    return data[: len(data) // 2] if job.fate == "truncated" else data


def _encoded(size: tuple[int, int], digest: bytes | None, output_format: str) -> bytes:
    """The file of a picture with this digest, or (None) of a flat ground."""
    picture = _base(size)
    if digest is None:
        picture = Image.new("P", size, 0)
        picture.putpalette(_PAPER)
    else:
        _write_digest(picture, digest)
    out = io.BytesIO()
    if output_format == "png":
        picture.save(out, "PNG", compress_level=1)
    else:
        picture.convert("RGB").save(out, "JPEG", quality=90)
    return out.getvalue()


_small = lru_cache(maxsize=256)(_encoded)
"""Simulated nights want the same few small pictures again and again."""


def read_digest(image: bytes) -> bytes:
    """Read the request digest back from the pixels.

    Raises:
        ValueError: these are not the pixels of a sandbox image.
    """
    try:
        with Image.open(io.BytesIO(image)) as opened:
            grey = opened.convert("L")
    except (OSError, SyntaxError) as exc:
        raise ValueError("not a readable image") from exc
    top = grey.height / _BAND
    cells = grey.resize((_COLUMNS, _ROWS), Image.Resampling.BOX, box=(0, top, grey.width, grey.height))
    bits = "".join("1" if value < 128 else "0" for value in cells.tobytes())
    raw = int(bits, 2).to_bytes(_COLUMNS * _ROWS // 8, "big")
    digest, check = raw[:32], raw[32:]
    if _check_word(digest) != check:
        raise ValueError("not a sandbox image")
    return digest


def _check_word(digest: bytes) -> bytes:
    return hashlib.sha256(b"bydawn sandbox" + digest).digest()[: _COLUMNS * (_ROWS - 16) // 8]


def _write_digest(picture: Image.Image, digest: bytes) -> None:
    raw = digest + _check_word(digest)
    bits = bin(int.from_bytes(b"\1" + raw, "big"))[3:]
    grid = Image.frombytes("P", (_COLUMNS, _ROWS), bytes(bit == "1" for bit in bits))
    top = round(picture.height / _BAND)
    picture.paste(grid.resize((picture.width, picture.height - top), Image.Resampling.NEAREST), (0, top))


def _base(size: tuple[int, int]) -> Image.Image:
    return _cached_base(size).copy()


@lru_cache(maxsize=32)
def _cached_base(size: tuple[int, int]) -> Image.Image:
    """The flat ground with its mark; a palette image, since two colours are copied and filled fastest."""
    picture = Image.new("P", size, 0)
    picture.putpalette(_PAPER + _INK)
    band = size[1] // _BAND
    font = ImageFont.load_default(size=max(6, min(band * 0.7, size[0] / 6)))
    ImageDraw.Draw(picture).text((size[0] / 2, band / 2), "SANDBOX", fill=1, font=font, anchor="mm")
    return picture
