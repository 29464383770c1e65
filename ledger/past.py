"""What a batch asked for, and what it was charged: read to do it all again, and to compare.

Reads only, a page of tasks at a time; the sums are made by SQLite, so that a million tasks never stand in memory.
"""

from collections.abc import Iterator
from typing import cast

import msgspec

from ledger.encoding import decode_event
from ledger.events import TaskCompleted, TaskQueued
from ledger.reader import Reader
from ledger.streams import stream_parts, task_stream

PAGE = 5_000


class PastTask(msgspec.Struct, frozen=True, gc=False):
    """A task of a batch as it was imported.  ``request`` is None when its text was erased; ``key`` digests what defines
    the request, None where none is on record."""

    n: int
    queued: TaskQueued
    request: str | None
    key: bytes | None


class Bought(msgspec.Struct, frozen=True):
    """Images of one shape that one provider made, and what it charged for them.

    ``version``: the model's, as the provider told it; empty where it told none.
    """

    provider: str
    model: str
    resolution: str
    references: bool
    version: str
    images: int
    cost_microusd: int


def past_tasks(reader: Reader, batch: int, *, page: int = PAGE) -> Iterator[PastTask]:
    """Yield the sealed tasks of a batch in their order, in whatever state they are."""
    after, last = task_stream(batch, 0), task_stream(batch, reader.batch(batch).sealed_through)
    while rows := reader.store.rows(
        "SELECT t.stream, q.data, p.text, p.request_key FROM tasks t JOIN events q ON q.seq = t.queued"
        " LEFT JOIN payloads p ON p.row = json_extract(q.data, '$.request.row')"
        " WHERE t.stream > ? AND t.stream <= ? ORDER BY t.stream LIMIT ?",
        (after, last, page),
    ):
        for stream, data, text, key in rows:
            yield PastTask(stream_parts(stream).n, cast(TaskQueued, decode_event(TaskQueued.TYPE, data)), text, key)
        after = rows[-1][0]


def followers(reader: Reader, batch: int) -> int:
    """How many tasks of a batch were to share the purchase of another one when they were imported."""
    found = reader.store.row(
        "SELECT count(*) FROM tasks t JOIN events q ON q.seq = t.queued WHERE t.stream > ? AND t.stream <= ?"
        " AND coalesce(json_extract(q.data, '$.owner'), 0) <> 0",
        (task_stream(batch, 0), task_stream(batch, reader.batch(batch).sealed_through)),
    )
    return 0 if found is None else int(found[0])


def bought(reader: Reader, batch: int) -> list[Bought]:
    """Count the newest image of each task that bought one, by provider and shape.

    What else was charged (failed attempts, images that were rejected) stands in the books of the batch alone.
    """
    rows = reader.store.rows(
        "SELECT t.provider, json_extract(q.data, '$.model'), json_extract(q.data, '$.resolution'),"
        " coalesce(json_extract(q.data, '$.references'), 0) > 0, coalesce(json_extract(r.data, '$.model_version'), ''),"
        " count(*), sum(json_extract(r.data, '$.cost_microusd'))"
        " FROM tasks t JOIN events q ON q.seq = t.queued JOIN events r ON r.seq = t.result"
        " WHERE t.stream > ? AND t.stream <= ? AND r.type = ? GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5",
        (task_stream(batch, 0), task_stream(batch, reader.batch(batch).sealed_through), TaskCompleted.TYPE),
    )
    return [Bought(who, model, size, bool(refs), version, n, cost) for who, model, size, refs, version, n, cost in rows]
