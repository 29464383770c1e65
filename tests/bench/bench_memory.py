"""P11: memory of a run with many tasks queued, above the same run with almost none; one JSON line.

    python -m tests.bench.bench_memory [--tasks 1000000] [--seconds 20] [--folder DIR]

Two real runs, one after the other, each buying 5 images a second from the fast provider.  Compared is the peak of the
resident memory (VmHWM); the anonymous part at the end is given too, since the rest is mapped files.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from tests.bench.project import BATCH, Project, fill
from tests.bench.provider import provider

PER_SECOND = 5


def memory_mb(pid: int) -> dict[str, float]:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(fields[name].split()[0]) / 1024 for name in ("VmHWM", "RssAnon")}


def run(project: Project, seconds: float) -> dict[str, float]:
    with project.running("run", BATCH, "--quiet") as process:
        time.sleep(seconds)
        assert process.poll() is None, (project.folder / "run.log").read_text()[-2000:]
        return memory_mb(process.pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--folder", type=Path, help="keep the large ledger here, and use the one that is there")
    args = parser.parse_args()
    seen = {}
    with tempfile.TemporaryDirectory() as temporary, provider(latency_s=1.0) as kie:
        few = int(PER_SECOND * args.seconds * 2)
        for tasks, folder in ((few, Path(temporary, "few")), (args.tasks, args.folder or Path(temporary, "many"))):
            project = Project(folder, kie.url, rate=f"{PER_SECOND}/1s", max_inflight=50)
            if not project.ledger.exists():
                fill(project, tasks=tasks, finished=0, open_jobs=0)
            kie.stats()
            seen[tasks] = run(project, args.seconds)
            assert kie.stats().submits > PER_SECOND * args.seconds / 2, "hardly anything was bought"
    result = {
        "bench": "P11 memory",
        "tasks": args.tasks,
        "above_empty_mb": round(seen[args.tasks]["VmHWM"] - seen[few]["VmHWM"], 1),
        "peak_mb": {tasks: round(each["VmHWM"], 1) for tasks, each in seen.items()},
        "anonymous_mb": {tasks: round(each["RssAnon"], 1) for tasks, each in seen.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
