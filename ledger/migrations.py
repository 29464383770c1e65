"""How the tables of a ledger came to be, step by step.

Only a file that is not up to date loads this module: sqlite-utils costs every start more than all of the ledger.
"""

from sqlite_utils import Database, Migrations

from ledger.schema import MIGRATION_SET, RECORD, VIEWS, view_statements

MIGRATIONS = Migrations(MIGRATION_SET)


@MIGRATIONS()
def m001_ledger(db: Database) -> None:
    """The first format."""
    for statement in (*_statements(RECORD), *view_statements()):
        db.execute(statement)
    db.execute("INSERT INTO meta (name, value) VALUES ('views', ?)", [VIEWS])


def _statements(script: str) -> list[str]:
    """Split a script; a trigger ends with its own END."""
    found, part = [], ""
    for piece in script.split(";"):
        part += piece
        if "BEGIN" in part and not part.rstrip().endswith("END"):
            part += ";"
            continue
        if part.strip():
            found.append(part.strip())
        part = ""
    return found
