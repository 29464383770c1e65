"""P16: simulated nights per second of one core; one JSON line.

    python tests/bench/bench_simulation.py [--schedules 200]

A *plain* night has five tasks on three providers and dies once, somewhere; pictures are 64 pixels wide.  A *drawn* one
is what the long run of the tests plays: more processes, bad weather, faults, cancels, keys that change.  Both are
audited.
Seconds of CPU are counted, since the machine may be shared.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.simulation.draws import drawn
from tests.simulation.life import Life
from tests.simulation.schedules import Schedule, judged


def plain(seed: int) -> Schedule:
    return Schedule(seed=seed, lives=(Life(crash_at=seed % 90),))


def rate(nights: Callable[[int], Schedule], count: int) -> float:
    for seed in range(count, count + 5):  # modules, tables, pictures
        judged(nights(seed))
    started = time.process_time()
    for seed in range(count):
        judged(nights(seed))
    return round(count / (time.process_time() - started), 1)


def main() -> None:
    logging.disable()
    parser = argparse.ArgumentParser()
    parser.add_argument("--schedules", type=int, default=200)
    options = parser.parse_args()
    count = options.schedules
    found = {"plain_per_cpu_s": rate(plain, count), "drawn_per_cpu_s": rate(drawn, count)}
    print(json.dumps({"bench": "P16 simulation", "schedules": count, **found}))


if __name__ == "__main__":
    main()
