"""P9: kill -9, restart, first HTTP request; and how fast reading commands answer beside the run.  JSON lines.

    python -m tests.bench.bench_restart [--tasks 100000] [--rounds 5] [--folder DIR]

The ledger has ``tasks`` tasks, nearly all of them finished, 500 in flight and 10,000 queued.  A real ``bydawn run``
is started on it and killed with SIGKILL once it has asked about its jobs, again and again; the figure is the time
from the start of the process to the first request that reaches the provider.  That is the check of the key, so the
first *recovery* request (the poll of an open job) is given too.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from tests.bench.project import BATCH, Project, fill
from tests.bench.provider import Provider, provider

OPEN_JOBS = 500
QUEUED = 10_000
READING = (
    ("status",),
    ("tasks", BATCH, "--limit", "50"),
    ("tasks", BATCH, "--state", "queued", "--limit", "50"),
    ("show", f"{BATCH}/#7"),
)


def restart(project: Project, kie: Provider) -> dict[str, float]:
    """Start, wait for the first polls, kill; the times since the start of each first request."""
    kie.stats()
    begun = time.monotonic()
    with project.running("run", BATCH, "--quiet"):
        first: dict[str, float] = {}
        while "poll" not in first:
            assert time.monotonic() - begun < 60, (project.folder / "run.log").read_text()[-2000:]
            time.sleep(0.05)
            first = {**kie.stats().first_s, **first}
    return {kind: at - begun for kind, at in first.items()}


def measure_restarts(project: Project, kie: Provider, *, tasks: int, rounds: int) -> None:
    restart(project, kie)  # the first start makes the account known; also warms the page cache
    seen = [restart(project, kie) for _ in range(rounds)]
    checks, polls = [each["check"] for each in seen], [each["poll"] for each in seen]
    result = {
        "bench": "P9 restart",
        "tasks": tasks,
        "first_request_s": round(statistics.median(checks), 3),
        "first_recovery_s": round(statistics.median(polls), 3),
        "first_recovery_all": [round(each, 3) for each in sorted(polls)],
        "ledger_mb": round(project.ledger.stat().st_size / 1e6),
    }
    print(json.dumps(result), flush=True)


def measure_reading(project: Project, kie: Provider, *, tasks: int, rounds: int) -> None:
    with project.running("run", BATCH, "--quiet"):
        while not kie.stats().polls:
            time.sleep(0.05)
        commands = (*READING, ("show", f"{BATCH}/sku-{tasks - 1:07d}"))
        seconds = {
            " ".join(command): round(statistics.median(project.seconds(*command) for _ in range(rounds)), 3)
            for command in commands
        }
    print(json.dumps({"bench": "reading beside a run", "tasks": tasks, "seconds": seconds}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep the ledger here, and use the one that is there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, provider(latency_s=1.0) as kie:
        project = Project(args.folder or Path(temporary), kie.url, rate="1000/1s", max_inflight=OPEN_JOBS)
        if not project.ledger.exists():
            start = time.perf_counter()
            fill(project, tasks=args.tasks, finished=args.tasks - OPEN_JOBS - QUEUED, open_jobs=OPEN_JOBS)
            print(json.dumps({"bench": "made the ledger", "seconds": round(time.perf_counter() - start, 1)}))
        measure_restarts(project, kie, tasks=args.tasks, rounds=args.rounds)
        measure_reading(project, kie, tasks=args.tasks, rounds=args.rounds)


if __name__ == "__main__":
    main()
