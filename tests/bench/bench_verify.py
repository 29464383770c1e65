"""P10: `bydawn verify` of a large ledger: chain, replay, books, views and texts, without the images; one JSON line.

    python -m tests.bench.bench_verify [--tasks 1000000] [--rounds 3] [--folder DIR]

The ledger is that of P9: all tasks imported first, then bought, nearly all of them finished.  The figure is the wall
time of the check with both of its processes at work; their CPU times say what other work on the machine added.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

from ledger.audit import verify
from ledger.engine import open_reader
from tests.bench.project import Project, fill

OPEN_JOBS = 500
QUEUED = 10_000


def cpu_s(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def measure(path: Path) -> dict[str, float]:
    """One verification: wall time, and the CPU times of this process and of the one beside it."""
    start, own, other = time.perf_counter(), cpu_s(resource.RUSAGE_SELF), cpu_s(resource.RUSAGE_CHILDREN)
    report = verify(path)
    assert report.ok, report.problems
    return {
        "seconds": time.perf_counter() - start,
        "streams_cpu_s": cpu_s(resource.RUSAGE_SELF) - own,
        "chain_cpu_s": cpu_s(resource.RUSAGE_CHILDREN) - other,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the ledger here, and use the one that is there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        project = Project(args.folder or Path(temporary), "http://127.0.0.1:9", rate="1000/1s", max_inflight=OPEN_JOBS)
        if not project.ledger.exists():
            fill(project, tasks=args.tasks, finished=args.tasks - OPEN_JOBS - QUEUED, open_jobs=OPEN_JOBS)
        rounds = [measure(project.ledger) for _ in range(args.rounds)]
        store = open_reader(project.ledger)
        found = store.row("SELECT count(*) FROM events")
        store.close()
    events = found[0] if found else 0
    medians = {name: round(statistics.median(each[name] for each in rounds), 2) for name in rounds[0]}
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"bench": "P10 verify", "events": events, **medians, "peak_mb": peak_mb}), flush=True)


if __name__ == "__main__":
    main()
