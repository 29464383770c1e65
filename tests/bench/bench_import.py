"""P13: a million rows staged, compared, imported and sealed; prints one JSON line with where the time goes.

    python tests/bench/bench_import.py [--rows 1000000] [--profile]

The rows are realistic in size (a prompt of some 120 characters); making them is timed apart and taken off.
"""

import argparse
import cProfile
import hashlib
import json
import pstats
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ledger.decisions import Append, Decision
from ledger.events import BatchOpened
from ledger.imports import NewTask
from ledger.journal import Ledger
from ledger.streams import batch_stream

PROMPT = "Studio photo of a handmade ceramic mug number {n}, soft light from the left, seamless grey background, 85 mm"


def rows(count: int) -> Iterator[NewTask]:
    for n in range(1, count + 1):
        prompt = PROMPT.format(n=n)
        request = f'{{"request":{{"prompt":"{prompt}","model":"nano-banana-2","aspect":"1:1","resolution":"1K"}}}}'
        yield NewTask(
            row=f"sku-{n:07d}",
            given=True,
            suffix="",
            request=request,
            request_key=hashlib.sha256(prompt.encode()).digest()[:16],
            model="nano-banana-2",
            aspect="1:1",
            resolution="1K",
            references=0,
            variant=1,
            line=n,
        )


def measure(count: int, folder: Path) -> dict[str, float | int]:
    start = time.perf_counter()
    for _ in rows(count):
        pass
    making = time.perf_counter() - start
    path = folder / "bydawn.db"
    with Ledger.create_or_open(path, create=True) as ledger:
        ledger.start_epoch(machine="m", pid=1, app_version="0", operator="o", command="bench", at_us=1)
        opened = BatchOpened(name="bench", folder="bench", sandbox=True, operator="o")
        ledger.commit([Decision(appends=(Append(batch_stream(1), 0, (opened,)),), at_us=1)])
        start = time.perf_counter()
        staged = ledger.stage(None, rows(count))
        staging = time.perf_counter() - start - making
        start = time.perf_counter()
        ledger.import_staged(1, source="rows.csv", input_digest="d", at_us=1_795_305_600_000_000, share=True)
        importing = time.perf_counter() - start
    assert staged.new == count
    return {
        "rows": count,
        "making_s": round(making, 2),
        "stage_s": round(staging, 2),
        "import_s": round(importing, 2),
        "total_s": round(staging + importing, 2),
        "rows_per_s": round(count / (staging + importing)),
        "bytes_per_task": round(path.stat().st_size / count),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--profile", action="store_true", help="print where the time goes to stderr")
    options = parser.parse_args()
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        if options.profile:
            profile.enable()
        result = measure(options.rows, Path(folder))
        profile.disable()
    print(json.dumps({"bench": "P13 import", **result}))
    if options.profile:
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(14)


if __name__ == "__main__":
    main()
