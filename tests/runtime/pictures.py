"""Pictures for tests: real ones in every accepted format, and headers that lie."""

import functools
import io
import struct
import zlib

from PIL import Image

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}


@functools.cache
def picture(media_type: str = "image/png", width: int = 64, height: int = 48, *, mode: str = "RGB") -> bytes:
    """Draw a gradient, which is not blank."""
    gradient = Image.linear_gradient("L").resize((width, height))
    return encode(gradient.convert(mode), media_type)


def encode(image: Image.Image, media_type: str = "image/png") -> bytes:
    out = io.BytesIO()
    image.save(out, FORMATS[media_type])
    return out.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int, pixels: bytes = b"") -> bytes:
    """Build a well-formed PNG whose header claims a size that its data does not have."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND", b"")


def jpeg_claiming(width: int, height: int) -> bytes:
    """Take a real JPEG and change the size in its frame header."""
    data = picture("image/jpeg")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def webp_claiming(width: int, height: int) -> bytes:
    """Build an extended WebP with a canvas of any size and no image in it."""
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk
