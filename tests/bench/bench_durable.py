"""P1: tasks per second of a whole night against the same client's loop without a ledger; JSON lines.

    python -m tests.bench.bench_durable [--tasks 800] [--in-flight 50] [--latency 0.05] [--rounds 3] [--profile]

One interleaved run: every round does the work of :mod:`tests.bench.nights` in its three ways, and the ratios are taken
within the round.  Images are JPEGs of 1024 x 1024 pixels and about 100 KB.  CPU per task is given beside the rates,
because it hardly depends on what else the machine does.
"""

import argparse
import cProfile
import json
import pstats
import statistics
import tempfile
from pathlib import Path

from tests.bench.nights import Measured, Shape, bare, prepared, stored, timed
from tests.bench.provider import provider


def measure(url: str, shape: Shape, rounds: int, folder: Path, polls: list[float]) -> dict[str, list[Measured]]:
    seen: dict[str, list[Measured]] = {"bare": [], "stored": [], "durable": []}
    for turn in range(rounds):
        place = folder / str(turn)
        night = prepared(url, shape, place / "durable")
        seen["bare"].append(timed(lambda: bare(url, shape, place / "bare")))  # noqa: B023  # called at once
        seen["stored"].append(timed(lambda: stored(url, shape, place / "stored")))  # noqa: B023
        seen["durable"].append(timed(night))
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=800)
    parser.add_argument("--in-flight", type=int, default=50)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="only the night, under cProfile")
    args = parser.parse_args()
    shape = Shape(args.tasks, args.in_flight, args.latency)
    with tempfile.TemporaryDirectory() as temporary, provider(latency_s=args.latency) as kie:
        if args.profile:
            night = prepared(kie.url, shape, Path(temporary))
            profile = cProfile.Profile()
            profile.runcall(night)
            pstats.Stats(profile).sort_stats("tottime").print_stats(45)
            return
        seen = measure(kie.url, shape, args.rounds, Path(temporary), [])
    for name, runs in seen.items():
        rates = [shape.tasks / run.seconds for run in runs]
        line = {
            "bench": f"P1 {name}",
            "tasks_per_s": round(statistics.median(rates), 1),
            "all": [round(rate, 1) for rate in rates],
            "cpu_ms_per_task": round(statistics.median(run.cpu_s for run in runs) / shape.tasks * 1000, 2),
        }
        print(json.dumps(line))
    ratio = {
        "bench": "P1",
        "durable/bare": _ratio(seen, "bare"),
        "durable/stored": _ratio(seen, "stored"),
    }
    print(json.dumps(ratio))


def _ratio(seen: dict[str, list[Measured]], other: str) -> float:
    pairs = zip(seen["durable"], seen[other], strict=True)
    return round(statistics.median(base.seconds / run.seconds for run, base in pairs), 3)


if __name__ == "__main__":
    main()
