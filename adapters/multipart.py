"""A file as a form sends it (``multipart/form-data``, RFC 7578): how several providers take uploads.

The boundary is made of the file's digest: the same file gives the same bytes, and no file can contain its own digest
by accident.
"""

import hashlib
from collections.abc import Mapping

from adapters.base import FileBytes


def form(file: FileBytes, fields: Mapping[str, str], *, field: str = "file") -> tuple[str, bytes]:
    """Build the body of an upload.

    Args:
        file: What is sent; its name is made of its digest and needs no quoting.
        fields: The other fields, which go first; plain ASCII of our own.
        field: What the provider calls the file.

    Returns:
        The value of the ``Content-Type`` header, and the body.
    """
    boundary = "bydawn-" + hashlib.sha256(file.data).hexdigest()[:32]
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{file.name}"\r\n'
        f"Content-Type: {file.media_type}\r\n\r\n"
    )
    return f"multipart/form-data; boundary={boundary}", head.encode() + file.data + f"\r\n--{boundary}--\r\n".encode()
