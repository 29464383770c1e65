"""Writes the row operations of :mod:`ledger.projection`, and reads back the totals it continues from."""

from ledger.engine import Store
from ledger.money import Move
from ledger.projection import Projection, Rows

_STATEMENTS: tuple[tuple[str, str], ...] = (
    # Drops come first: a commit that drops an import may also open the next one.
    ("dropped", "DELETE FROM {s}tasks WHERE stream BETWEEN ? AND ?"),
    # What every imported task has in common is not bound a million times.
    (
        "imported",
        "INSERT INTO {s}tasks VALUES (?, 1, 'queued', '', '', 0, 0, 1, ?, ?, '', '', ?, NULL, ?)",
    ),
    ("new_tasks", "INSERT INTO {s}tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
    (
        "tasks",
        "UPDATE {s}tasks SET version = ?, phase = ?, account = ?, provider = ?, attempts = ?, cost_microusd = ?,"
        " slot = ?, owner = ?, at_us = ?, reason = ?, flags = ?, result = coalesce(?, result) WHERE stream = ?",
    ),
    ("ended_attempts", "DELETE FROM {s}open_attempts WHERE stream = ? AND attempt = ?"),
    ("attempts", "INSERT OR REPLACE INTO {s}open_attempts VALUES (?, ?, ?)"),
    ("money", "INSERT OR REPLACE INTO {s}money VALUES (?, ?, ?, ?)"),
    ("counts", "INSERT OR REPLACE INTO {s}counts VALUES (?, ?, ?, ?)"),
    ("batches", "INSERT OR REPLACE INTO {s}batches VALUES (?, ?, ?, ?, ?, ?)"),
    ("accounts", "INSERT OR REPLACE INTO {s}accounts VALUES (?, ?, ?, ?, ?, ?, ?)"),
    ("lanes", "INSERT OR REPLACE INTO {s}lanes VALUES (?, ?, ?, ?, ?)"),
    ("epochs", "INSERT OR REPLACE INTO {s}epochs VALUES (?, ?, NULL)"),
    ("ended_epochs", "UPDATE {s}epochs SET ended = ? WHERE epoch = ?"),
)


def write_rows(store: Store, rows: Rows, schema: str = "") -> None:
    """Write inside the caller's transaction; ``schema`` is ``"temp."`` on a rebuild beside the stored views."""
    for name, sql in _STATEMENTS:
        values = getattr(rows, name)
        if values:
            store.run_many(sql.format(s=schema), values)


def stored_projection(store: Store) -> Projection:
    """Return a projection that continues from the stored totals."""
    money = (Move(*row) for row in store.rows("SELECT account, reserved, captured, open FROM money"))
    counts = store.rows("SELECT batch, state, provider, n FROM counts")
    return Projection(money, (((batch, state, provider), n) for batch, state, provider, n in counts))
