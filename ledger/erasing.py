"""What goes when a task is erased: which tasks go together, which texts are theirs, which images nobody else needs.

Reads only.  The erasing itself is a decision like any other (``Decision.erases``): the event and the emptied rows are
one transaction, so no ledger ever says that a text is gone while it is there.

* Tasks that share a purchase asked for the same, in the same words: they go together.
* The texts of a task are those that its own events point at: the request, result addresses, providers' answers, notes.
* Where a reference file was uploaded to is one text for every task that uses it: it goes with the last of them.
"""

from collections.abc import Collection, Iterator

import msgspec

from ledger.encoding import decode_event
from ledger.events import AttemptIntended, Event, PayloadRef, ResultSpared, TaskCompleted, TaskErased, TaskShared
from ledger.reader import Reader
from ledger.streams import stream_parts, task_stream

_IMAGES = (TaskCompleted.TYPE, TaskShared.TYPE, ResultSpared.TYPE)


class Image(msgspec.Struct, frozen=True, order=True):
    """A stored image of a task, by its digest; ``version`` 0 is a spare."""

    n: int
    version: int
    sha256: str
    media_type: str


def belonging(reader: Reader, batch: int, numbers: Collection[int]) -> list[int]:
    """The tasks themselves and those that share, or shared, a purchase with one of them; in order."""
    found = set(numbers)
    owners = set()
    for n in numbers:
        queued = reader.state(task_stream(batch, n)).queued
        owners.add(queued.owner or n if queued is not None else n)
    rows = reader.store.rows(
        # From the event and not from the view: a follower that was retried buys for itself, and asks for the same.
        "SELECT t.stream FROM tasks t JOIN events q ON q.seq = t.queued WHERE t.stream BETWEEN ? AND ?"
        " AND json_extract(q.data, '$.owner') IN (SELECT value FROM json_each(?))",
        (task_stream(batch, 0), task_stream(batch + 1, 0) - 1, _json(owners)),
    )
    return sorted(found | owners | {stream_parts(stream).n for (stream,) in rows})


def texts_of(reader: Reader, batch: int, numbers: Collection[int]) -> dict[int, list[int]]:
    """The rows of texts that go with the tasks and are there still, by the task they are erased with."""
    streams = {task_stream(batch, n): n for n in numbers}
    rows: dict[int, list[int]] = {n: [] for n in numbers}
    uploads: dict[int, int] = {}  # row -> a task that used it
    for stream, n in streams.items():
        for event in _events(reader, stream):
            for name in event.__struct_fields__:
                value = getattr(event, name)
                if isinstance(value, PayloadRef):
                    rows[n].append(value.row)
            if isinstance(event, AttemptIntended):
                uploads |= {ref.row: n for ref in event.uploads}
    for row in _needed_elsewhere(reader, set(uploads), set(streams)):
        uploads.pop(row, None)
    for row, n in uploads.items():
        rows[n].append(row)
    there = _there(reader, [row for of_task in rows.values() for row in of_task])
    return {n: sorted(there.intersection(of_task)) for n, of_task in rows.items()}


def images_of(reader: Reader, batch: int, numbers: Collection[int]) -> list[Image]:
    """Every image that the tasks ever had, spares too."""
    found = []
    for n in sorted(numbers):
        for event in _events(reader, task_stream(batch, n)):
            if isinstance(event, TaskCompleted | TaskShared):
                found.append(Image(n, event.version, event.sha256, event.media_type))
            elif isinstance(event, ResultSpared):
                found.append(Image(n, 0, event.sha256, event.media_type))
    return found


def needed_images(reader: Reader, batch: int, digests: Collection[str], *, but: Collection[int]) -> set[str]:
    """Those of the images that another task of the batch has as well, one whose images are not erased."""
    chosen = {task_stream(batch, n) for n in but}
    rows = reader.store.stream(
        "SELECT stream, json_extract(data, '$.sha256') FROM events WHERE type IN (?, ?, ?)"
        " AND stream BETWEEN ? AND ? AND json_extract(data, '$.sha256') IN (SELECT value FROM json_each(?))",
        (*_IMAGES, task_stream(batch, 0), task_stream(batch + 1, 0) - 1, _json(digests)),
    )
    others = [(stream, digest) for stream, digest in rows if stream not in chosen]
    return {digest for stream, digest in others if not reader.state(stream).files_erased}


def files_erased(reader: Reader) -> set[int]:
    """The streams of all tasks whose images were erased.  Reads every event."""
    rows = reader.store.rows(
        "SELECT DISTINCT stream FROM events WHERE type = ? AND json_valid(data) AND json_extract(data, '$.files')",
        (TaskErased.TYPE,),
    )
    return {stream for (stream,) in rows}


def erased_texts(reader: Reader) -> int:
    """How many texts of the ledger were erased."""
    found = reader.store.row("SELECT count(*) FROM payloads WHERE salt IS NULL")
    return 0 if found is None else int(found[0])


def _needed_elsewhere(reader: Reader, rows: Collection[int], chosen: Collection[int]) -> Iterator[int]:
    """Those of the uploads that a task uses which is neither chosen nor erased.  Reads every intent."""
    if not rows:
        return
    found = reader.store.rows(
        "SELECT e.stream, json_extract(u.value, '$.row') FROM events e, json_each(e.data, '$.uploads') u"
        " WHERE e.type = ? AND json_extract(u.value, '$.row') IN (SELECT value FROM json_each(?))",
        (AttemptIntended.TYPE, _json(rows)),
    )
    needed: set[int] = set()
    for stream, row in found:
        if row not in needed and stream not in chosen and not reader.state(stream).erased:
            needed.add(row)
            yield row


def _there(reader: Reader, rows: Collection[int]) -> set[int]:
    found = reader.store.rows(
        "SELECT row FROM payloads WHERE salt IS NOT NULL AND row IN (SELECT value FROM json_each(?))", (_json(rows),)
    )
    return {row for (row,) in found}


def _events(reader: Reader, stream: int) -> Iterator[Event]:
    rows = reader.store.rows("SELECT type, data FROM events WHERE stream = ? ORDER BY version", (stream,))
    return (decode_event(tag, data) for tag, data in rows)


def _json(values: Collection[object]) -> str:
    return msgspec.json.encode(list(values)).decode()
