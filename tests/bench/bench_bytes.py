"""P12: bytes of the ledger file per finished task, and where they are; one JSON line.

    python tests/bench/bench_bytes.py [--tasks 20000]

The file is measured after closing, when the write-ahead log is folded away.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ledger.engine import open_reader
from ledger.errors import LedgerError
from tests.bench.night import groups, open_night, play


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bydawn.db"
        with open_night(path, options.tasks) as ledger:
            play(ledger, groups(ledger, options.tasks))
        size = path.stat().st_size
        store = open_reader(path)
        try:
            parts = store.rows("SELECT name, sum(pgsize) FROM dbstat GROUP BY name ORDER BY 2 DESC LIMIT 6")
        except LedgerError:
            parts = []  # this SQLite was built without dbstat
        data = store.row("SELECT sum(length(data)) FROM events") or (0,)
        store.close()
    print(
        json.dumps(
            {
                "bench": "P12 bytes",
                "tasks": options.tasks,
                "bytes_per_task": round(size / options.tasks),
                "event_json_per_task": round(data[0] / options.tasks),
                "parts": {name: round(size / options.tasks) for name, size in parts},
            }
        )
    )


if __name__ == "__main__":
    main()
