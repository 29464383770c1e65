"""P14: how long ``bydawn --help`` and ``bydawn status`` take against ``python -c pass``; one JSON line.

    python -m tests.bench.bench_start [--rounds 15]

Wall time of whole processes, turn by turn, on a small ledger; medians.  ``click`` and ``msgspec`` alone are measured
beside them: they are the floor of any command that parses options and reads events.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.project import PROGRAM, Project, fill, user_env


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    python = str(Path(sys.executable))
    commands = {
        "python -c pass": [python, "-c", "pass"],
        "bydawn --help": [str(PROGRAM), "--help"],
        "bydawn status": [str(PROGRAM), "status"],
        "import click, msgspec, sqlite3": [python, "-c", "import click, msgspec, sqlite3"],
    }
    seen: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), "http://127.0.0.1:9", rate="1/1s", max_inflight=1)
        fill(project, tasks=1000, finished=900, open_jobs=0)
        for turn in range(args.rounds + 1):
            for name, command in commands.items():
                start = time.perf_counter()
                subprocess.run(command, cwd=folder, env=user_env(), stdout=subprocess.DEVNULL, check=True)
                if turn:  # the first one writes bytecode
                    seen[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seen.items()}
    base = medians["python -c pass"]
    result = {
        "bench": "P14 start",
        "ms": {name: round(value * 1000) for name, value in medians.items()},
        "ratio": {name: round(value / base, 1) for name, value in medians.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
