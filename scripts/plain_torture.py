#!/usr/bin/env python3
"""What kill -9 costs a plain script: the usual few lines over an SDK, killed like ``bydawn torture`` kills bydawn.

It buys prompts with the official ``replicate`` client and its default retries, eight at a time, saves each image under
the prompt's number and skips, when it is started again, what is saved already: what people write.  SIGKILL comes after
a random number of requests, again and again; then it may finish.  The bill of the sandbox says what that came to.

    scripts/plain_torture.py examples/parti-prompts.tsv --kills 20 --limit 240
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import check_bill  # noqa: E402

MODEL = "google/nano-banana-2"
AT_ONCE = 8
REQUESTS_PER_TASK = 3  # create, poll, fetch


# --- the plain script -------------------------------------------------------------------------------------


def buy(prompts: Sequence[str], folder: Path) -> None:
    """Buy what is not there yet."""
    import httpx
    import replicate

    def one(number: int, prompt: str) -> None:
        file = folder / f"{number}.jpg"
        if file.exists():
            return
        prediction = replicate.models.predictions.create(
            MODEL, input={"prompt": prompt, "aspect_ratio": "1:1", "resolution": "1K"}
        )
        prediction.wait()
        if prediction.status != "succeeded":
            raise RuntimeError(f"{number}: {prediction.error}")
        file.write_bytes(httpx.get(str(prediction.output)).content)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for bought in [pool.submit(one, number, prompt) for number, prompt in enumerate(prompts)]:
            bought.result()


# --- the torture ------------------------------------------------------------------------------------------


def torture(source: Path, column: str, *, limit: int, kills: int, seed: int, chaos: str, folder: Path) -> None:
    prompts = read_prompts(source, column)[:limit]
    (folder / "prompts.json").write_text(json.dumps(prompts))
    (folder / "images").mkdir()
    command = [sys.executable, "-m", "adapters.sandbox", "--dir", str(folder / "sandbox"), "--port", "0"]
    command += ["--latency", "0.2", "--rate-factor", "50", "--providers", "replicate", "--chaos", chaos]
    dice = random.Random(seed)
    done = 0
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as sandbox:
        try:
            assert sandbox.stdout is not None
            url = json.loads(sandbox.stdout.readline())["url"]
            spacing = len(prompts) * REQUESTS_PER_TASK // (kills + 1)
            while done < kills:
                code = life(folder, url, kill_after=dice.randint(1, max(1, 2 * spacing)))
                if code == 0:
                    break  # finished before it could be killed
                done += code == -signal.SIGKILL
            while life(folder, url, kill_after=None) != 0:
                pass  # a failed request ends a plain script; its owner starts it again
            time.sleep(1.0)  # for jobs that nobody waits for
            bill = list(check_bill.read_bill(url))
        finally:
            sandbox.kill()
    report(prompts, bill, kills=done)


def life(folder: Path, url: str, *, kill_after: int | None) -> int:
    """Run the plain script once; its exit code."""
    env = {**os.environ, "REPLICATE_API_TOKEN": "sandbox-plain", "REPLICATE_BASE_URL": f"{url}/replicate"}
    before = requests(url)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([sys.executable, __file__, "--buy", str(folder)], env=env, stdout=log, stderr=log)
    try:
        while process.poll() is None:
            if kill_after is not None and requests(url) - before >= kill_after:
                process.kill()
            time.sleep(0.005)
    finally:
        process.kill()
    return process.wait()


def requests(url: str) -> int:
    with urllib.request.urlopen(f"{url}/sandbox/requests", timeout=60) as reply:
        return int(json.load(reply)["requests"])


def read_prompts(source: Path, column: str) -> list[str]:
    with source.open(encoding="utf-8", newline="") as file:
        return [row[column] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def report(prompts: Sequence[str], bill: Sequence[check_bill.Job], *, kills: int) -> None:
    digests = [check_bill.request_digest(prompt, (), "1:1", "1K") for prompt in prompts]
    tasks = [check_bill.Task(str(n), "succeeded", digest, "replicate", 1, False) for n, digest in enumerate(digests)]
    verdict = check_bill.compare(bill, tasks)
    extra = sum(len(each.jobs) for each in verdict.twice)
    print(f"{kills} kills, {len(prompts)} tasks, {verdict.jobs} jobs on the bill")
    print(f"charged {check_bill.dollars(verdict.charged_microusd)}, of it {check_bill.dollars(verdict.twice_microusd)}")
    print(f"for {extra} images that were bought a second time, of {len(verdict.twice)} tasks")


def main() -> int:
    parser = argparse.ArgumentParser(description="What kill -9 costs a plain script over an SDK.")
    parser.add_argument("source", type=Path, nargs="?", help="a TSV file")
    parser.add_argument("--column", default="Prompt")
    parser.add_argument("--limit", type=int, default=240)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chaos", default="none")
    parser.add_argument("--buy", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.buy:
        buy(json.loads((given.buy / "prompts.json").read_text()), given.buy / "images")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        torture(
            given.source,
            given.column,
            limit=given.limit,
            kills=given.kills,
            seed=given.seed,
            chaos=given.chaos,
            folder=Path(folder),
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
