"""What stands in the payload of a task: the wanted image, and the columns that only travel along.

The request defines the task and never changes; columns are copied to the outputs.  ``request_key`` is how equal
requests are found, so its form is part of the ledger's format: change it and every known request looks new.
"""

import hashlib

import msgspec

from adapters.base import ImageRequest
from adapters.references import identity


class TaskRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """``provider`` restricts the task to one provider, empty = any that was chosen for the batch.

    It says how the task is run, not what is wanted, so it is not part of the request key.
    """

    request: ImageRequest
    columns: dict[str, str] = {}
    provider: str = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(TaskRequest)


def encode_request(request: ImageRequest, columns: dict[str, str], *, provider: str = "") -> str:
    return _encoder.encode(TaskRequest(request, columns, provider)).decode()


def decode_request(text: str) -> TaskRequest:
    """Read a payload back; raises :class:`msgspec.DecodeError` when it is not one."""
    return _decoder.decode(text)


def what_is_wanted(request: ImageRequest) -> ImageRequest:
    """The request without what does not define it: where its local references lie.  Not to be sent."""
    if not request.references:
        return request
    return msgspec.structs.replace(request, references=tuple(map(identity, request.references)))


def request_key(request: ImageRequest, *, variant: int = 1) -> bytes:
    """Digest everything that defines a request (16 bytes); equal keys are bought once.

    A JSON array of all fields in a fixed order, none left out, has only one spelling.  ``v1`` leaves room for a
    field that is added later.  A local reference counts by its bytes, so that a file may be moved.
    """
    request = what_is_wanted(request)
    canonical = _encoder.encode(
        (
            "v1",
            request.prompt,
            request.model,
            request.aspect,
            request.resolution,
            request.references,
            request.output_format,
            request.seed,
            request.model_version,
            request.grounding,
            variant,
        )
    )
    return hashlib.sha256(canonical).digest()[:16]
