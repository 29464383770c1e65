"""``--fit-references``: a copy of a local reference that every chosen provider takes, where the file itself is not.

The copy is re-encoded, and scaled down as far as its bytes must go.  It lies in the batch's folder under the digest
of the original, so that the next run finds it again instead of making one that differs in a byte.  The user's own
file is never touched.
"""

import io
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
from PIL import Image, ImageOps

from adapters.base import Codec
from runtime.disk import create_private

_QUALITY = 90
_SMALLEST = 64  # pixels of the longer side
_STEP = 0.8
_FORMATS = {"image/jpeg": ("JPEG", ".jpg"), "image/png": ("PNG", ".png")}


class Fit(msgspec.Struct, frozen=True):
    """What all chosen providers that take files have in common.  ``max_bytes`` 0 = no limit."""

    folder: Path
    media_types: tuple[str, ...]
    max_bytes: int

    def takes(self, media_type: str, size: int) -> bool:
        return media_type in self.media_types and (not self.max_bytes or size <= self.max_bytes)

    def copy(self, data: bytes, sha256: str) -> Path | None:
        """Make the copy of an image that decodes, or find it; None when it cannot be made to fit."""
        for _, ending in _FORMATS.values():
            path = self.folder / f"{sha256}{ending}"
            if path.is_file() and (not self.max_bytes or path.stat().st_size <= self.max_bytes):
                return path
        fitted = self._encode(data)
        if fitted is None:
            return None
        encoded, ending = fitted
        path = self.folder / f"{sha256}{ending}"
        part = path.with_suffix(".part")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(create_private(part), "wb") as file:
            file.write(encoded)
        part.replace(path)
        return path

    def _encode(self, data: bytes) -> tuple[bytes, str] | None:
        with Image.open(io.BytesIO(data)) as opened:
            image = ImageOps.exif_transpose(opened) or opened  # a copy carries no note of how to turn it
            media_type = self._media_type(image)
            if media_type is None:
                return None
            if image.has_transparency_data:
                image = image.convert("RGBA")
                if media_type == "image/jpeg":
                    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
            else:
                image = image.convert("RGB")
        form, ending = _FORMATS[media_type]
        while max(image.size) >= _SMALLEST:
            out = io.BytesIO()
            image.save(out, form, quality=_QUALITY)
            if not self.max_bytes or out.tell() <= self.max_bytes:
                return out.getvalue(), ending
            width, height = image.size
            image = image.resize(
                (max(1, round(width * _STEP)), max(1, round(height * _STEP))), Image.Resampling.LANCZOS
            )
        return None

    def _media_type(self, image: Image.Image) -> str | None:
        """JPEG, as it is the smallest that everybody takes; PNG for what is transparent."""
        order = ("image/png", "image/jpeg") if image.has_transparency_data else ("image/jpeg", "image/png")
        return next((media_type for media_type in order if media_type in self.media_types), None)


def fit_for(codecs: Iterable[Codec], folder: Path) -> Fit | None:
    """What a file must be for all of these that take files at all; None when none does."""
    records = [codec.capabilities.references.value for codec in codecs]
    taking = [record for record in records if record.files]
    if not taking:
        return None
    common = [each for each in taking[0].media_types if all(each in other.media_types for other in taking)]
    limits = [record.max_file_bytes for record in taking if record.max_file_bytes]
    return Fit(folder, tuple(common), min(limits, default=0))
