"""The first half of ``verify``: every event in the order of the ledger, as bytes.

* the hash chain from commit to commit: a changed, missing, added or swapped event breaks it there;
* dense seq, and epochs that never go back;
* the texts in the payload table against the digests that the events hold.

Only events that name a text are decoded: what they say is the other half's (:mod:`ledger.audit_streams`).

Events and commits are only ever added, and an erased text is no problem whenever it went.  So this half needs no
snapshot: it reads up to the seq that it was given, and may run in a process of its own.
"""

from pathlib import Path
from typing import NamedTuple, get_args

import msgspec

from ledger.encoding import EVENT_TYPES, chain_next, chain_start, decode_event, payload_digest
from ledger.engine import Store, open_reader
from ledger.errors import LedgerError
from ledger.events import Event, PayloadRef
from ledger.findings import Findings, named_event, named_stream

_STREAMS_NAMED = 3
_TEXTS_TOGETHER = 500


def _text_fields(event_type: type[Event]) -> tuple[str, ...]:
    fields = msgspec.structs.fields(event_type)
    return tuple(field.name for field in fields if field.type is PayloadRef or PayloadRef in get_args(field.type))


_TEXTS = {event_type.TYPE.encode(): names for event_type in EVENT_TYPES if (names := _text_fields(event_type))}
"""tag -> the fields that name rows of the payload table."""


class Chain(NamedTuple):
    """The events read, and what was found wrong with them."""

    events: int
    findings: Findings


def audit_chain(store: Store, ledger_id: str, through: int) -> Chain:
    """Check everything up to seq ``through``, the last one of the ledger."""
    findings = Findings()
    return Chain(_Walk(store, findings).run(chain_start(ledger_id), through), findings)


def audit_chain_of(path: Path, ledger_id: str, through: int) -> Chain:
    """The same with a reader of its own: what a second process is given to do."""
    store = open_reader(path)
    try:
        return audit_chain(store, ledger_id, through)
    finally:
        store.close()


class _Walk:
    def __init__(self, store: Store, findings: Findings) -> None:
        self._store = store
        self._findings = findings
        self._texts = _Texts(store, findings)

    def run(self, start: bytes, through: int) -> int:
        """Read all events and return their number."""
        problem = self._findings.problem
        commits = self._store.stream("SELECT seq, head FROM commits WHERE seq <= ? ORDER BY seq", (through,))
        commit_seq, commit_head = next(commits, (0, start))
        head, seq, since, last_epoch, events = start, 0, 0, 0, 0
        for seq_read, stream, version, epoch, at_us, tag, key, data in self._store.stream(
            "SELECT seq, stream, version, epoch, at_us, CAST(type AS BLOB), key, CAST(data AS BLOB) FROM events"
            " WHERE seq <= ? ORDER BY seq",
            (through,),
        ):
            events += 1
            if seq_read != seq + 1:
                problem("seq", f"event {seq + 1}", f"missing: event {seq_read} follows event {seq} (LED-2)")
            seq = seq_read
            while commit_seq and commit_seq < seq:
                # The commit's last event is gone, so its head was never reached.
                self._broken(since, commit_seq)
                head, since = commit_head, commit_seq
                commit_seq, commit_head = next(commits, (0, start))
            head = chain_next(head, seq, stream, version, epoch, at_us, tag, key, data)
            if seq == commit_seq:
                if head != commit_head:
                    self._broken(since, seq)
                # Going on from what is stored keeps one break from being reported for every later commit.
                head, since = commit_head, seq
                commit_seq, commit_head = next(commits, (0, start))
            if epoch < last_epoch:
                problem("epoch", named_event(seq, stream), f"epoch {epoch} after epoch {last_epoch} (LED-6)")
            else:
                last_epoch = epoch
            if tag in _TEXTS:
                self._texts.note(seq, stream, tag, data)
        if seq != since:
            problem("chain", self._place(since + 1, seq), "of no commit: added, or their commit is gone (LED-8)")
        if commit_seq:
            problem("chain", self._place(since + 1, through), "the last events are gone, their commits are not (LED-8)")
        self._texts.check()
        return events

    def _broken(self, since: int, seq: int) -> None:
        text = "an event of this commit was changed, removed, added or moved (LED-8)"
        self._findings.problem("chain", self._place(since + 1, seq), text)

    def _place(self, first: int, last: int) -> str:
        """Name the events and what is left of their streams: one hash covers a commit, so it cannot say which."""
        streams = self._store.rows(
            "SELECT stream FROM events WHERE seq BETWEEN ? AND ? GROUP BY stream ORDER BY min(seq)", (first, last)
        )
        names = ", ".join(named_stream(stream) for (stream,) in streams[:_STREAMS_NAMED])
        more = f" and {len(streams) - _STREAMS_NAMED} more" if len(streams) > _STREAMS_NAMED else ""
        place = f"event {first}" if first == last else f"events {first}-{last}"
        return f"{place} ({names}{more})" if names else place


class _Texts:
    """Holds texts against their digests, some hundred in one query."""

    # Only marks are put into the statement, and one of always the same length is prepared once.
    _SQL = f"SELECT row, salt, CAST(text AS BLOB) FROM payloads WHERE row IN ({','.join('?' * _TEXTS_TOGETHER)})"  # noqa: S608

    def __init__(self, store: Store, findings: Findings) -> None:
        self._store = store
        self._findings = findings
        self._noted: list[tuple[PayloadRef, int, int]] = []  # with the seq and stream of the event

    def note(self, seq: int, stream: int, tag: bytes, data: bytes) -> None:
        """Take the texts of an event."""
        try:
            event = decode_event(tag.decode(), data)
        except LedgerError:
            return  # named by the other half
        for name in _TEXTS[tag]:
            value: PayloadRef | tuple[PayloadRef, ...] | None = getattr(event, name)
            if type(value) is PayloadRef:
                self._noted.append((value, seq, stream))
            elif isinstance(value, tuple):
                self._noted += [(ref, seq, stream) for ref in value]
        if len(self._noted) >= _TEXTS_TOGETHER:
            self.check()

    def check(self) -> None:
        """Check what was noted.  An erased text proves nothing and is no problem (SEC-8)."""
        noted, self._noted = self._noted, []
        for first in range(0, len(noted), _TEXTS_TOGETHER):
            self._check(noted[first : first + _TEXTS_TOGETHER])

    def _check(self, noted: list[tuple[PayloadRef, int, int]]) -> None:
        rows = [ref.row for ref, _, _ in noted]
        rows += [rows[-1]] * (_TEXTS_TOGETHER - len(rows))
        stored = {row: (salt, text) for row, salt, text in self._store.rows(self._SQL, tuple(rows))}
        for ref, seq, stream in noted:
            if ref.row not in stored:
                self._findings.problem("payload", named_event(seq, stream), f"its text is gone (payload {ref.row})")
                continue
            salt, text = stored[ref.row]
            if salt is None and text is None:
                continue  # erased
            if salt is None or text is None or payload_digest(salt, text) != ref.digest:
                wrong = f"its text is not the one that was recorded (payload {ref.row})"
                self._findings.problem("payload", named_event(seq, stream), wrong)
