"""Writes the row operations of :mod:`ledger.projection`, and reads back the totals it continues from."""

from ledger.engine import Store
from ledger.money import Move
from ledger.projection import Projection, Rows

_STATEMENTS: tuple[tuple[str, str], ...] = (
    # Drops come first: a commit that drops an import may also open the next one.
    ("dropped", "DELETE FROM tasks WHERE stream BETWEEN ? AND ?"),
    # What every imported task has in common is not bound a million times.
    (
        "imported",
        "INSERT INTO tasks VALUES (?, 1, 'queued', '', '', 0, 0, 1, ?, ?, '', '', ?, NULL, ?)",
    ),
    ("new_tasks", "INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
    (
        "tasks",
        "UPDATE tasks SET version = ?, phase = ?, account = ?, provider = ?, attempts = ?, cost_microusd = ?,"
        " slot = ?, owner = ?, at_us = ?, reason = ?, flags = ?, result = coalesce(?, result) WHERE stream = ?",
    ),
    ("ended_attempts", "DELETE FROM open_attempts WHERE stream = ? AND attempt = ?"),
    ("attempts", "INSERT OR REPLACE INTO open_attempts VALUES (?, ?, ?)"),
    ("money", "INSERT OR REPLACE INTO money VALUES (?, ?, ?, ?)"),
    ("counts", "INSERT OR REPLACE INTO counts VALUES (?, ?, ?, ?)"),
    ("batches", "INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?, ?, ?)"),
    ("accounts", "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)"),
    ("lanes", "INSERT OR REPLACE INTO lanes VALUES (?, ?, ?, ?, ?)"),
    ("epochs", "INSERT OR REPLACE INTO epochs VALUES (?, ?, NULL)"),
    ("ended_epochs", "UPDATE epochs SET ended = ? WHERE epoch = ?"),
)


def write_rows(store: Store, rows: Rows) -> None:
    """Write inside the caller's transaction."""
    for name, sql in _STATEMENTS:
        values = getattr(rows, name)
        if values:
            store.run_many(sql, values)


def stored_projection(store: Store) -> Projection:
    """Return a projection that continues from the stored totals."""
    money = (Move(*row) for row in store.rows("SELECT account, reserved, captured, open FROM money"))
    counts = store.rows("SELECT batch, state, provider, n FROM counts")
    return Projection(money, (((batch, state, provider), n) for batch, state, provider, n in counts))
