"""P7: events replayed per second into typed state, against a raw scan of the same rows; one JSON line.

    python tests/bench/bench_replay.py [--tasks 40000] [--rounds 3]

Replay decodes every event and folds every task, in the order of the ledger; the scan fetches all columns of all rows
and does nothing with them.  Both warm, turn by turn.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ledger.engine import Store, open_reader
from ledger.replay import replay_tasks
from tests.bench.night import groups, open_night, play


def scan(store: Store) -> float:
    start = time.perf_counter()
    count = sum(1 for _ in store.stream("SELECT * FROM events ORDER BY seq"))
    return count / (time.perf_counter() - start)


def replay(store: Store, tasks: int) -> float:
    start = time.perf_counter()
    states = replay_tasks(store, 1)
    seconds = time.perf_counter() - start
    assert len(states) == tasks
    assert all(state.phase == "succeeded" for state in states.values())
    return tasks * 5 / seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bydawn.db"
        with open_night(path, options.tasks) as ledger:
            play(ledger, groups(ledger, options.tasks))
        store = open_reader(path)
        scan(store)
        replays, scans = [], []
        for _ in range(options.rounds):
            replays.append(replay(store, options.tasks))
            scans.append(scan(store))
        store.close()
    rate, raw = statistics.median(replays), statistics.median(scans)
    print(
        json.dumps(
            {
                "bench": "P7 replay",
                "events": options.tasks * 5,
                "replayed_events_per_s": round(rate),
                "scanned_rows_per_s": round(raw),
                "ratio": round(rate / raw, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
