"""P17, scaled: a night at 1 s latency with 600 in flight and 2 MB images, against the ideal; JSON lines.

    python -m tests.bench.bench_night [--tasks 3000] [--in-flight 600] [--latency 1.0] [--rounds 3]

Scaled: 3,000 tasks in place of 50,000, since the wall time grows in step with them.  The ideal is the larger of two
floors, measured in the same round:

* the latency: ``tasks / in_flight * latency``, what a machine without limits needs;
* the machine: the loop of :mod:`tests.bench.nights` that fetches, checks and stores the same images with the same wire
  and the same 600 in flight, without a ledger.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from shutil import rmtree

from tests.bench.nights import Shape, prepared, stored, timed
from tests.bench.provider import provider


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=3000)
    parser.add_argument("--in-flight", type=int, default=600)
    parser.add_argument("--latency", type=float, default=1.0)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--image-bytes", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    shape = Shape(args.tasks, args.in_flight, args.latency)
    by_latency = shape.tasks / shape.in_flight * shape.latency_s
    ratios = []
    with (
        tempfile.TemporaryDirectory() as temporary,
        provider(latency_s=args.latency, side=args.side, image_bytes=args.image_bytes) as kie,
    ):
        for turn in range(args.rounds):
            folder = Path(temporary, str(turn))
            night = prepared(kie.url, shape, folder / "durable")
            loop = timed(lambda: stored(kie.url, shape, folder / "stored"))  # noqa: B023  # called at once
            kie.stats()
            whole = timed(night)
            asked = kie.stats()
            rmtree(folder)
            ratios.append(whole.seconds / max(by_latency, loop.seconds))
            line = {
                "bench": "P17 round",
                "night_s": round(whole.seconds, 1),
                "loop_s": round(loop.seconds, 1),
                "latency_s": round(by_latency, 1),
                "cpu_ms_per_task": round(whole.cpu_s / shape.tasks * 1000, 1),
                "polls_per_task": round(asked.polls / shape.tasks, 2),
            }
            print(json.dumps(line), flush=True)
    print(json.dumps({"bench": "P17", "tasks": shape.tasks, "night/ideal": round(statistics.median(ratios), 3)}))


if __name__ == "__main__":
    main()
