"""P13, end to end: ``bydawn plan`` and ``bydawn run`` on a CSV file of a million rows; JSON lines.

    python -m tests.bench.bench_run_import [--rows 1000000] [--profile]

``run`` is measured as a real process from its start to the first purchase: reading and checking the file, fan-out,
dedupe, events, views and the seal.  ``--profile`` runs the same inside this process under cProfile instead, and
prints where the time goes.
"""

import argparse
import cProfile
import csv
import json
import os
import pstats
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.bench_memory import memory_mb
from tests.bench.project import PROMPT, Project
from tests.bench.provider import provider

NAME = "rows"


def write_csv(path: Path, rows: int) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "prompt", "shop"))
        writer.writerows((f"sku-{n:07d}", PROMPT.format(n=n), "mugs") for n in range(1, rows + 1))


def cpu_s(pid: int) -> float:
    """What a process has used so far: says more than its wall time where other work is on the machine."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def arguments(path: Path, command: str) -> list[str]:
    return [command, str(path), *(("--yes", "--new-ledger", "--quiet") if command == "run" else ())]


def profiled(project: Project, path: Path) -> None:
    """Import in this process; it ends when the budget allows no purchase."""
    from bydawn.cli.main import main as program

    os.chdir(project.folder)
    os.environ.update(project.env)
    profile = cProfile.Profile()
    profile.enable()
    program([*arguments(path, "run"), "--budget", "0.01"])
    profile.disable()
    pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(30)
    pstats.Stats(profile, stream=sys.stdout).sort_stats("cumtime").print_stats(45)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, provider(latency_s=1.0) as kie:
        project = Project(Path(temporary), kie.url, rate="5/1s", max_inflight=50)
        path = project.folder / f"{NAME}.csv"
        write_csv(path, args.rows)
        if args.profile:
            profiled(project, path)
            return
        planned = project.seconds(*arguments(path, "plan"))
        kie.stats()
        begun = time.monotonic()
        with project.running(*arguments(path, "run")) as process:
            first: dict[str, float] = {}
            while "submit" not in first:
                assert process.poll() is None, (project.folder / "run.log").read_text()[-2000:]
                time.sleep(0.05)
                first = kie.stats().first_s
            peak_mb = memory_mb(process.pid)["VmHWM"]
            spent_s = cpu_s(process.pid)
        result = {
            "bench": "P13 end to end",
            "rows": args.rows,
            "plan_s": round(planned, 1),
            "run_to_first_purchase_s": round(first["submit"] - begun, 1),
            "run_cpu_s": round(spent_s, 1),
            "rows_per_s": round(args.rows / (first["submit"] - begun)),
            "peak_mb": round(peak_mb),
            "csv_mb": round(path.stat().st_size / 1e6),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
