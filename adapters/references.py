"""How a local reference file stands in a request: by its digest, size and type, and where it lies.

    file:<sha256>:<size>:<media type>:<path>

What defines the request is the digest; the path only says where the bytes were at import.  A URL stands as it is.
"""

import hashlib
import re

import msgspec

_FORM = re.compile(
    r"file:(?P<sha256>[0-9a-f]{64}):(?P<size>[0-9]{1,15}):(?P<media_type>image/[a-z0-9.+-]+):(?P<path>.+)", re.DOTALL
)


class LocalFile(msgspec.Struct, frozen=True):
    """A reference image on this machine."""

    sha256: str
    size: int
    media_type: str  # "image/png"
    path: str  # absolute

    @property
    def text(self) -> str:
        """The form in which it stands in a request."""
        return f"file:{self.sha256}:{self.size}:{self.media_type}:{self.path}"

    @property
    def identity(self) -> str:
        """What defines it: the same bytes elsewhere are the same reference."""
        return f"sha256:{self.sha256}"

    def is_made_of(self, data: bytes) -> bool:
        """Whether these are its bytes."""
        return len(data) == self.size and hashlib.sha256(data).hexdigest() == self.sha256


def local_file(reference: str) -> LocalFile | None:
    """Read a reference back; None when it is a URL."""
    found = _FORM.fullmatch(reference) if reference.startswith("file:") else None
    if found is None:
        return None
    return LocalFile(found["sha256"], int(found["size"]), found["media_type"], found["path"])


def identity(reference: str) -> str:
    """What a reference is, wherever it lies: the digest of a local file, a URL itself."""
    file = local_file(reference)
    return reference if file is None else file.identity


def is_inline(reference: str) -> bool:
    """Whether the reference carries its bytes in itself (``data:`` URI)."""
    return reference.startswith("data:image/")
