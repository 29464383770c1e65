"""Is this an image we accept?  Hostile bytes in, a verdict out (RES-4, SEC-4).

Two steps.  First we read the header ourselves: signature, size, and for PNG and WebP the length of every chunk, so
that a picture of 60,000 x 60,000 pixels or a file that was cut off is refused before any decoder allocates a byte.
Then Pillow decodes all of it, limited to the one format that the signature names.

Blocking and pure; the caller runs it through Threads.  It never calls an image good by its file name or by the
media type a server claims, and it writes nothing.
"""

import io
import re
import struct
from typing import Literal, TypeAlias

import msgspec
from PIL import Image

MAX_PIXELS = 64_000_000
MAX_SCANS = 100  # of a progressive JPEG: 10 are usual, and each goes over all pixels, however few bytes it has
BLANK_SPREAD = 8  # of 255: what JPEG makes of one colour stays well below
ASPECT_SLACK = 0.05  # providers round sides to multiples of 8 or 16; the widest documented size is off by 2.9 %
SMALL_SHARE = 0.5  # of the pixels of a square of the asked resolution

MediaType: TypeAlias = Literal["image/png", "image/jpeg", "image/webp"]

_PILLOW = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_SCAN = b"\xff\xda"
_JPEG_MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")  # among coded bytes, where FF is followed by 00 or a restart
_GLANCE = 64  # pixels a side are enough to tell a blank picture
_BASE_SIDE = {"0.5K": 512, "1K": 1024, "2K": 2048, "4K": 4096}


class Expected(msgspec.Struct, frozen=True):
    """What was asked for: "W:H" and "1K".  Empty, "auto" and unknown values check nothing."""

    aspect: str = ""
    resolution: str = ""


class Inspected(msgspec.Struct, frozen=True):
    """A picture that decodes from its first to its last byte.  ``flags``: ``blank``, ``small``, ``aspect``."""

    media_type: MediaType
    width: int
    height: int
    flags: tuple[str, ...] = ()


class BadImage(msgspec.Struct, frozen=True):
    """Not acceptable, and why, in words that hold nothing of the content.  ``kept`` is where the bytes lie for
    dispute, relative to the batch's folder."""

    reason: str
    kept: str = ""


class _Header(msgspec.Struct, frozen=True):
    media_type: MediaType
    width: int
    height: int


class _BadHeaderError(Exception):
    """The bytes are no picture of ours; the text is the reason."""


def inspect(data: bytes, expected: Expected = Expected()) -> Inspected | BadImage:  # noqa: B008  # frozen
    """Judge a whole file.  What differs from ``expected`` is flagged and never refused: it was paid for."""
    try:
        header = _read_header(data)
    except _BadHeaderError as exc:
        return BadImage(str(exc))
    if header.width * header.height > MAX_PIXELS:
        return BadImage(f"{header.width} x {header.height} pixels are more than {MAX_PIXELS}")
    try:
        blank = _decode(data, header)
    except _BadHeaderError as exc:
        return BadImage(str(exc))
    except Exception as exc:
        # Pillow promises no closed list of errors for hostile bytes (SyntaxError, struct.error, ValueError, ...),
        # and whatever it is, the verdict is the same.
        return BadImage(f"does not decode: {type(exc).__name__}")
    flags = []
    if blank:
        flags.append("blank")
    if _is_small(header, expected.resolution):
        flags.append("small")
    if _is_off_aspect(header, expected.aspect):
        flags.append("aspect")
    return Inspected(header.media_type, header.width, header.height, tuple(flags))


# --- the header, by ourselves -----------------------------------------------------------------------------


def _read_header(data: bytes) -> _Header:
    try:
        if data.startswith(_PNG):
            header = _png(data)
        elif data.startswith(b"\xff\xd8\xff"):
            header = _jpeg(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            header = _webp(data)
        else:
            raise _BadHeaderError("not a PNG, JPEG or WebP" if data else "empty")
    except (struct.error, IndexError):
        raise _BadHeaderError("cut off in its header") from None
    if header.width < 1 or header.height < 1:
        raise _BadHeaderError("no pixels")
    return header


def _png(data: bytes) -> _Header:
    length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    if (length, kind) != (13, b"IHDR"):
        raise _BadHeaderError("a PNG without a header")
    at = 8
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if at > len(data):
            raise _BadHeaderError("cut off")
    return _Header("image/png", width, height)


def _jpeg(data: bytes) -> _Header:
    """Walk the segments to the frame header (ITU T.81, B.1.1.2)."""
    at = 2
    while True:
        if data[at] != 0xFF:
            raise _BadHeaderError("a JPEG with a broken segment")
        while data[at] == 0xFF:  # fill bytes
            at += 1
        marker = data[at]
        at += 1
        if marker in _JPEG_BARE:
            continue
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 3)
            _count_scans(data, at)
            return _Header("image/jpeg", width, height)
        if marker in (0xD9, 0xDA):
            raise _BadHeaderError("a JPEG without a frame")
        (length,) = struct.unpack_from(">H", data, at)
        if length < 2:
            raise _BadHeaderError("a JPEG with a broken segment")
        at += length


def _count_scans(data: bytes, at: int) -> None:
    """Walk on from the frame header to the end: a scan of a hundred bytes costs as much time as one of megabytes."""
    if data.count(_SCAN) <= MAX_SCANS:
        return  # nearly always; what looks like a scan may stand in a comment, hence the walk
    scans, marker = 0, 0
    while marker != 0xD9 and at + 2 <= len(data):  # a missing end is the decoder's to tell
        (length,) = struct.unpack_from(">H", data, at)
        found = _JPEG_MARKER.search(data, at + length)
        if found is None:
            return
        scans += marker == 0xDA
        if scans > MAX_SCANS:
            raise _BadHeaderError(f"more than {MAX_SCANS} scans")
        marker, at = data[found.end() - 1], found.end()


def _webp(data: bytes) -> _Header:
    """Read the first chunk, one of three kinds (RFC 9649, 2.5 to 2.7)."""
    (size,) = struct.unpack_from("<I", data, 4)
    if len(data) < size + 8:
        raise _BadHeaderError("cut off")
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return _Header("image/webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return _Header("image/webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X":
        struct.unpack_from("<10x", data, 20)
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        return _Header("image/webp", width, height)
    raise _BadHeaderError("a WebP of an unknown kind")


# --- the pixels, by Pillow --------------------------------------------------------------------------------


def _decode(data: bytes, header: _Header) -> bool:
    """Decode everything; says whether the picture is of one colour.  Any error means it is not acceptable."""
    formats = [_PILLOW[header.media_type]]
    with Image.open(io.BytesIO(data), formats=formats) as image:
        if image.size != (header.width, header.height):
            raise _BadHeaderError("two sizes in one file")
        if header.media_type == "image/png":
            image.verify()  # the checksums, which decoding skips; the object is used up after it
        else:
            return _is_blank(_loaded(image))
    with Image.open(io.BytesIO(data), formats=formats) as image:
        return _is_blank(_loaded(image))


def _loaded(image: Image.Image) -> Image.Image:
    """Decode the file from its first to its last byte.

    A JPEG is asked for at an eighth of its size: every coefficient is still read, and refused where the file is cut
    off, but only the mean of each block becomes a pixel.  That is all the test for a blank picture looks at, at half
    the time.  Other formats do not know the wish.
    """
    image.draft(None, (_GLANCE, _GLANCE))
    image.load()
    return image


def _is_blank(image: Image.Image) -> bool:
    # Transparent pixels count by what they show: "RGBa" is premultiplied, so an invisible picture is blank.
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGBA").convert("RGBa") if image.has_transparency_data else image.convert("RGB")
    small = image.resize((_GLANCE, _GLANCE), Image.Resampling.BOX)
    return all(int(high) - int(low) <= BLANK_SPREAD for low, high in _extrema(small))


def _extrema(image: Image.Image) -> list[tuple[float, float]]:
    return [band.getextrema() for band in image.split()]  # type: ignore[misc]  # a single band gives one pair


def _is_small(header: _Header, resolution: str) -> bool:
    side = _BASE_SIDE.get(resolution)
    return side is not None and header.width * header.height < SMALL_SHARE * side * side


def _is_off_aspect(header: _Header, aspect: str) -> bool:
    width, _, height = aspect.partition(":")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        return False
    wanted = int(width) / int(height)
    return not 1 - ASPECT_SLACK <= header.width / header.height / wanted <= 1 + ASPECT_SLACK
