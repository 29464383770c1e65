"""Events to rows and back, and the bytes that the hash chain runs over.

The tag of an event stands in its own column, so each type has its own encoder-decoder pair and the JSON does not
repeat it.  An old tag is read by its upcaster; a tag that is not known at all was written by a newer bydawn.
"""

import hashlib
from collections.abc import Callable
from struct import Struct as Packing
from typing import get_args

import msgspec

from ledger.errors import LedgerDamaged, LedgerNewer
from ledger.events import AccountEvent, BatchEvent, Event, Recorded, RuntimeEvent, TaskEvent

EVENT_TYPES: tuple[type[Event], ...] = tuple(
    member for union in (RuntimeEvent, AccountEvent, BatchEvent, TaskEvent) for member in get_args(union)
)

# tag of an old version -> how its JSON becomes an event of today.  Old tags stay readable for ever; a changed
# meaning is a new tag and one line here.
UPCASTERS: dict[str, Callable[[str | bytes], Event]] = {}

_encode = msgspec.json.Encoder().encode
_DECODERS: dict[str, Callable[[str | bytes], Event]] = {
    event_type.TYPE: msgspec.json.Decoder(event_type).decode for event_type in EVENT_TYPES
}
_DECODERS.update(UPCASTERS)

# seq, stream, version, epoch, at_us, then the lengths of type, key and data: nothing can shift between columns.
_PREFIX = Packing(">qqqqqqqq").pack
_NO_KEY = -1  # as a length: a missing key is not an empty one


def encode_event(event: Event) -> bytes:
    """Return the JSON that is stored."""
    return _encode(event)


def unreadable(event: Event, data: bytes) -> str:
    """Say why ``data`` could not be read back, empty if it can.

    Structs are not checked when they are made, so a negative cost, say, would only show in a ledger that nobody can
    open any more.
    """
    try:
        _DECODERS[event.TYPE](data)
    except msgspec.DecodeError as exc:
        return str(exc)
    return ""


def decode_event(tag: str, data: str | bytes) -> Event:
    """Return the event behind a row.

    Raises:
        LedgerNewer: the tag is not known here.
        LedgerDamaged: the data is not what its tag promises.
    """
    try:
        return _DECODERS[tag](data)
    except KeyError:
        raise LedgerNewer(f"event type {tag!r} is not known to this version of bydawn") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise LedgerDamaged(f"an event of type {tag} cannot be read: {exc}") from exc


def chain_start(ledger_id: str) -> bytes:
    """The head of a ledger without events; two ledgers never share a head."""
    return hashlib.sha256(b"bydawn ledger " + ledger_id.encode()).digest()


def chain_next(
    head: bytes,
    seq: int,
    stream: int,
    version: int,
    epoch: int,
    at_us: int,
    tag: bytes,
    key: bytes | None,
    data: bytes,
) -> bytes:
    """Return the head after one more event (LED-8)."""
    if key is None:
        prefix = _PREFIX(seq, stream, version, epoch, at_us, len(tag), _NO_KEY, len(data))
        return hashlib.sha256(head + prefix + tag + data).digest()
    prefix = _PREFIX(seq, stream, version, epoch, at_us, len(tag), len(key), len(data))
    return hashlib.sha256(head + prefix + tag + key + data).digest()


def recorded(seq: int, stream: int, version: int, epoch: int, at_us: int, tag: str, data: str) -> Recorded:
    """Build the typed event of one row."""
    return Recorded(seq, stream, version, epoch, at_us, decode_event(tag, data))


def payload_digest(salt: bytes, text: str | bytes) -> str:
    """Digest of an erasable text: without its salt nothing can be guessed from it (SEC-8)."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return hashlib.sha256(salt + raw).hexdigest()[:32]
