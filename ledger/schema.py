"""The tables of a ledger.  The format is frozen at release 0.1; from then on changes are further migrations
(:mod:`ledger.migrations`).

``events``, ``commits`` and ``payloads`` are the record.  Everything else is a view in the sense of
:mod:`ledger.projection`: a cache that is folded in the same transaction and can be rebuilt from the events.

* ``payloads`` is the only table from which anything is ever removed by a user (erasure).  ``request_key`` digests
  what defines a request, so that a later import can tell a changed row from a known one; it goes with the text.
* ``tasks`` is kept lean: what never changes, and the data of the image, is read from the events that ``queued`` and
  ``result`` name (by seq), not copied.
* ``open_attempts`` holds attempts that are live or unknown, and forgets them when they end: it is what a restart
  reads.  It names them only; their state is folded from their streams, so that a row is written once and removed once.
"""

FORMAT = 1
"""``user_version`` of the file: a higher one is a newer bydawn's."""
VIEWS = "2"
"""Version of the projection: another one in the file means that the views must be rebuilt before the next write.

"2" keeps six more books for each batch (``ledger.money.SINCE_VIEWS_2``).
"""
APPLICATION_ID = 0x42594457  # "BYDW", so that file(1) and a wrong path can be told apart

COPIED = "copied_at_us"
"""The row of ``meta`` that a backup carries until it is taken over."""

MIGRATION_SET = "bydawn.ledger"
MIGRATION_NAMES = ("m001_ledger",)
"""All of :mod:`ledger.migrations`, told here without importing sqlite-utils: a file that has them is up to date."""

RECORD = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    version INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    type TEXT NOT NULL,
    key BLOB,
    data TEXT NOT NULL,
    UNIQUE (stream, version)
) STRICT;
CREATE UNIQUE INDEX events_by_key ON events (key) WHERE key IS NOT NULL;
CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_are_never_removed BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TABLE commits (seq INTEGER PRIMARY KEY, head BLOB NOT NULL) STRICT;
CREATE TRIGGER commits_are_never_changed BEFORE UPDATE ON commits
    BEGIN SELECT RAISE(ABORT, 'commits are append-only'); END;
CREATE TRIGGER commits_are_never_removed BEFORE DELETE ON commits
    BEGIN SELECT RAISE(ABORT, 'commits are append-only'); END;
CREATE TABLE payloads (row INTEGER PRIMARY KEY, salt BLOB, text TEXT, request_key BLOB) STRICT;
"""

VIEW_TABLES: dict[str, str] = {
    "tasks": """(
        stream INTEGER PRIMARY KEY,
        version INTEGER NOT NULL,
        phase TEXT NOT NULL,
        account TEXT NOT NULL,
        provider TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        cost_microusd INTEGER NOT NULL,
        slot INTEGER NOT NULL,
        owner INTEGER NOT NULL,
        at_us INTEGER NOT NULL,
        reason TEXT NOT NULL,
        flags TEXT NOT NULL,
        queued INTEGER NOT NULL,
        result INTEGER,
        id TEXT NOT NULL
    ) STRICT""",
    "open_attempts": """(
        stream INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        account TEXT NOT NULL,
        PRIMARY KEY (stream, attempt)
    ) STRICT, WITHOUT ROWID""",
    "counts": """(
        batch INTEGER NOT NULL,
        state TEXT NOT NULL,
        provider TEXT NOT NULL,
        n INTEGER NOT NULL,
        PRIMARY KEY (batch, state, provider)
    ) STRICT, WITHOUT ROWID""",
    "money": """(
        account TEXT PRIMARY KEY,
        reserved INTEGER NOT NULL,
        captured INTEGER NOT NULL,
        open INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    "batches": """(
        batch INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        sandbox INTEGER NOT NULL,
        opened_at_us INTEGER NOT NULL,
        sealed_through INTEGER NOT NULL,
        cancelled INTEGER NOT NULL
    ) STRICT""",
    "accounts": """(
        n INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        provider TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        parked TEXT NOT NULL,
        overcharges INTEGER NOT NULL,
        overcharged_microusd INTEGER NOT NULL
    ) STRICT""",
    "lanes": """(
        account INTEGER NOT NULL,
        lane TEXT NOT NULL,
        concurrency INTEGER NOT NULL,
        breaker TEXT NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (account, lane)
    ) STRICT, WITHOUT ROWID""",
    "epochs": """(
        epoch INTEGER PRIMARY KEY,
        started INTEGER NOT NULL,
        ended INTEGER
    ) STRICT""",
}

VIEW_INDEXES: tuple[str, ...] = (
    # Paging the queue, and the followers that wait for an image of somebody else's.
    "CREATE INDEX tasks_queued ON tasks (stream) WHERE phase = 'queued' AND owner = 0",
    "CREATE INDEX tasks_following ON tasks (stream) WHERE phase = 'queued' AND owner <> 0",
    "CREATE UNIQUE INDEX batches_by_name ON batches (name)",
)


def view_statements() -> list[str]:
    """The statements that create the views."""
    return [f"CREATE TABLE {name} {columns}" for name, columns in VIEW_TABLES.items()] + list(VIEW_INDEXES)
