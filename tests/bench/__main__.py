"""The benchmarks by the number of their figure: ``make bench`` runs all of them, quickly.

    python -m tests.bench [--full] [WORD ...]

``--full`` takes the sizes of docs/benchmarks.md (half an hour on two cores); without it every script keeps to a size
that ends in seconds.  With words, only the figures whose name contains one.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# figure, script, arguments of the quick set, arguments of the full one
BENCHES: tuple[tuple[str, str, Sequence[str], Sequence[str]], ...] = (
    ("P1 durable night", "bench_durable", ("--tasks", "300"), ()),
    ("P3 http", "bench_http", ("--tasks", "300", "--requests", "2000"), ()),
    ("P5 append", "bench_append", ("--tasks", "1000"), ()),
    ("P7 replay", "bench_replay", ("--tasks", "2000"), ()),
    ("P9 restart", "bench_restart", ("--tasks", "20000"), ("--tasks", "100000")),
    ("P9 restart, a million", "bench_restart", (), ("--tasks", "1000000")),
    ("P10 verify", "bench_verify", ("--tasks", "20000"), ()),
    ("P11 memory", "bench_memory", ("--tasks", "50000", "--seconds", "10"), ()),
    ("P12 bytes", "bench_bytes", ("--tasks", "2000"), ()),
    ("P13 import", "bench_import", ("--rows", "50000"), ()),
    ("P13 import end to end", "bench_run_import", ("--rows", "50000"), ()),
    ("P14 start", "bench_start", ("--rounds", "7"), ()),
    ("P16 simulated nights", "bench_simulation", ("--schedules", "40"), ()),
    ("P17 wide night", "bench_night", ("--tasks", "300", "--rounds", "1"), ()),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("words", nargs="*", metavar="WORD")
    args = parser.parse_args()
    chosen = [bench for bench in BENCHES if not args.words or any(word in bench[0] for word in args.words)]
    if not chosen:
        print(f"no benchmark matches; there are: {', '.join(bench[0] for bench in BENCHES)}", file=sys.stderr)
        return 2
    for figure, script, quick, full in chosen:
        if not args.full and script == "bench_restart" and not quick:
            continue  # only the size differs
        print(f"== {figure}", flush=True)
        command = [sys.executable, "-m", f"tests.bench.{script}", *(full if args.full else quick)]
        code = subprocess.call(command, cwd=ROOT)
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
