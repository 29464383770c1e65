"""P5: events appended per second through the ledger, against raw sqlite3 inserting the same rows; one JSON line.

    python tests/bench/bench_append.py [--tasks 4000] [--rounds 3] [--profile]

Both write FULL transactions of 100 events, turn by turn.  ``raw`` is the events table with its unique index and
nothing else: no chain, no checks, no views; ``bare`` has not even the index.
"""

import argparse
import cProfile
import gc
import json
import pstats
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.night import groups, open_night, play

_COLUMNS = (
    "(seq INTEGER PRIMARY KEY, stream INTEGER NOT NULL, version INTEGER NOT NULL, epoch INTEGER NOT NULL,"
    " at_us INTEGER NOT NULL, type TEXT NOT NULL, key BLOB, data TEXT NOT NULL{extra}) STRICT"
)


def append(path: Path, tasks: int, profile: cProfile.Profile | None) -> tuple[float, list[tuple[object, ...]]]:
    with open_night(path, tasks) as ledger:
        night = groups(ledger, tasks)
        # The prepared decisions are the benchmark's, not the writer's: the collector need not walk them.
        gc.collect()
        gc.freeze()
        if profile is not None:
            profile.enable()
        start = time.perf_counter()
        play(ledger, night)
        seconds = time.perf_counter() - start
        if profile is not None:
            profile.disable()
        rows = ledger.store.rows("SELECT * FROM events WHERE stream IN (SELECT stream FROM tasks) ORDER BY seq")
    return len(rows) / seconds, rows


def raw(path: Path, rows: list[tuple[object, ...]], extra: str) -> float:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE events " + _COLUMNS.format(extra=extra))
        start = time.perf_counter()
        for first in range(0, len(rows), 100):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows[first : first + 100])
            connection.execute("COMMIT")
        return len(rows) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    profile = cProfile.Profile() if options.profile else None
    ledgers, raws, bares = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.rounds):
            rate, rows = append(Path(folder) / f"{turn}.db", options.tasks, profile)
            ledgers.append(rate)
            raws.append(raw(Path(folder) / f"raw{turn}.db", rows, ", UNIQUE (stream, version)"))
            bares.append(raw(Path(folder) / f"bare{turn}.db", rows, ""))
    middle = statistics.median(ledgers)
    result = {
        "bench": "P5 append",
        "events": len(rows),
        "ledger_events_per_s": round(middle),
        "raw_events_per_s": round(statistics.median(raws)),
        "bare_events_per_s": round(statistics.median(bares)),
        "ratio": round(middle / statistics.median(raws), 3),
        "ratio_to_bare": round(middle / statistics.median(bares), 3),
    }
    print(json.dumps(result))
    if profile is not None:
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
