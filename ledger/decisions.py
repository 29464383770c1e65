"""What the writer is asked for, and what it answers.

A :class:`Decision` is everything that must become durable together: events for one or more streams with the
versions they were decided on, the texts they refer to, one key that makes the append idempotent, and guards.
Pure code decides what to reserve; only the writer says whether there is room, because it alone sees
decisions in their order.
"""

from typing import TypeAlias, final

import msgspec

from ledger.events import Event
from ledger.streams import StreamKey


class NewPayload(msgspec.Struct, frozen=True):
    """Erasable text that a decision brings along; ``row`` and ``salt`` come from ``Ledger.payload``."""

    row: int
    salt: bytes
    text: str


class Append(msgspec.Struct, frozen=True):
    """``events`` for ``stream``, decided on version ``expected`` (0 = the stream is new)."""

    stream: StreamKey
    expected: int
    events: tuple[Event, ...]


@final
class Reserve(msgspec.Struct, frozen=True):
    """Refuse unless reserved + captured of the money account stays within the cap with this decision's events.

    The amount is not repeated here: it is what the decision's own events move (``ledger.money``).
    """

    account: str
    cap_microusd: int


@final
class Count(msgspec.Struct, frozen=True):
    """Refuse unless the number of open (unacknowledged) attempts of the lane stays within the cap (MON-3)."""

    lane: str
    cap: int


Guard: TypeAlias = Reserve | Count


class Decision(msgspec.Struct, frozen=True):
    """``at_us`` is the decider's wall clock and becomes the time of every event in it."""

    appends: tuple[Append, ...]
    at_us: int
    guards: tuple[Guard, ...] = ()
    payloads: tuple[NewPayload, ...] = ()
    erases: tuple[int, ...] = ()  # rows of texts that go for good, in the same transaction (SEC-8)
    key: bytes | None = None  # 16 bytes; the same key again changes nothing (LED-3)


class Committed(msgspec.Struct, frozen=True):
    """Durable.  ``seq`` is that of the last event."""

    seq: int


class Repeated(msgspec.Struct, frozen=True):
    """A decision with this key is durable already; nothing was written."""

    seq: int


class Conflict(msgspec.Struct, frozen=True):
    """Another writer was faster: reload the stream and decide again."""

    stream: StreamKey
    expected: int
    actual: int


class Exceeded(msgspec.Struct, frozen=True):
    """A guard refused: there is no room now."""

    guard: Guard
    value: int  # what it would have become


Outcome: TypeAlias = Committed | Repeated | Conflict | Exceeded
