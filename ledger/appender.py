"""The last step of every append: numbers, chain, rows, and one transaction for all of them.

Whoever appends has decided already; nothing is judged here but fencing.  What the file said last is remembered and
compared inside the transaction: if anybody else has appended since, this process is too late and must stop (LED-6).
"""

from ledger.encoding import EVENT_TYPES, chain_next, encode_event, unreadable
from ledger.engine import Store
from ledger.errors import Fenced, InvariantBroken
from ledger.events import Event
from ledger.projection import Projection
from ledger.streams import stream_label
from ledger.views import write_rows

_TAGS: dict[type, tuple[str, bytes]] = {
    event_type: (event_type.TYPE, event_type.TYPE.encode()) for event_type in EVENT_TYPES
}
_INSERT = "INSERT INTO events (seq, stream, version, epoch, at_us, type, key, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_PAYLOAD = "INSERT INTO payloads (row, salt, text, request_key) VALUES (?, ?, ?, ?)"
_ERASE_PAYLOAD = "UPDATE payloads SET salt = NULL, text = NULL, request_key = NULL WHERE row = ?"
_LAST_COMMIT = "SELECT seq, head FROM commits ORDER BY seq DESC LIMIT 1"


def last_commit(store: Store, start: bytes) -> tuple[int, bytes]:
    """The (seq, head) that the file ends with; (0, ``start``) while it has no events."""
    found = store.row(_LAST_COMMIT)
    return (0, start) if found is None else (found[0], found[1])


class Appender:
    """Gathers events and writes them.  After a failed :meth:`flush` it must not be used again (LED-7)."""

    def __init__(self, store: Store, start: bytes, projection: Projection) -> None:
        """``start`` is the head of the ledger before its first event."""
        self._store = store
        self._start = start
        self._projection = projection
        self._durable = last_commit(store, start)
        self.seq, self._head = self._durable
        self._rows: list[tuple[object, ...]] = []
        self._payloads: list[tuple[object, ...]] = []
        self._erased: list[tuple[object, ...]] = []

    @property
    def head(self) -> bytes:
        """The chain over everything gathered so far."""
        return self._head

    def add(self, stream: int, version: int, epoch: int, at_us: int, event: Event, key: bytes | None = None) -> int:
        """Take an event into the next transaction and return its seq.

        Raises:
            InvariantBroken: it could not be read back.
        """
        data = encode_event(event)
        wrong = unreadable(event, data)
        if wrong:
            raise InvariantBroken(f"{stream_label(stream)}: {event.TYPE}: {wrong}")
        return self.add_encoded(stream, version, epoch, at_us, event, data, key)

    def add_encoded(
        self, stream: int, version: int, epoch: int, at_us: int, event: Event, data: bytes, key: bytes | None = None
    ) -> int:
        """The same for an event whose ``data`` is known to be readable."""
        seq = self.seq = self.seq + 1
        tag, tag_bytes = _TAGS[type(event)]
        self._head = chain_next(self._head, seq, stream, version, epoch, at_us, tag_bytes, key, data)
        # Text and not bytes: a TEXT column of a STRICT table takes nothing else.
        self._rows.append((seq, stream, version, epoch, at_us, tag, key, data.decode()))
        return seq

    def add_payload(self, row: int, salt: bytes, text: str, request_key: bytes | None) -> None:
        """Take an erasable text into the next transaction."""
        self._payloads.append((row, salt, text, request_key))

    def erase_payload(self, row: int) -> None:
        """Empty a text in the next transaction (SEC-8).

        The row stays: events keep pointing at it, and without the salt their digests tell nothing.
        """
        self._erased.append((row,))

    def flush(self) -> None:
        """Write everything gathered, with its views, as one durable transaction.

        Raises:
            Fenced: somebody else has appended since our last commit.
        """
        if not self._rows:
            return
        store = self._store
        with store.transaction():
            if last_commit(store, self._start) != self._durable:
                raise Fenced(f"{store.path}: another process has written to this ledger")
            if self._payloads:
                store.run_many(_INSERT_PAYLOAD, self._payloads)
            if self._erased:
                store.run_many(_ERASE_PAYLOAD, self._erased)
            store.run_many(_INSERT, self._rows)
            write_rows(store, self._projection.take())
            store.run("INSERT INTO commits (seq, head) VALUES (?, ?)", (self.seq, self._head))
        self._durable = (self.seq, self._head)
        self._rows = []
        self._payloads = []
        self._erased = []
