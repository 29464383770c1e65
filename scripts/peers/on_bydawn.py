"""bydawn itself, as a user would start it, with as many requests at once as the others."""

import csv
import json
import os
import sys
from collections import Counter

from scripts.peers.shop import AT_ONCE, Shop, play

BATCH = "peers"


def prepare(shop: Shop) -> None:
    (shop.folder / "bydawn.toml").write_text(
        f'[accounts.{shop.provider}]\nprovider = "{shop.provider}"\nmax_inflight = {AT_ONCE}\n'
    )
    with (shop.folder / "prompts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["Prompt"], *([prompt] for prompt in shop.prompts)])


def work(shop: Shop) -> None:
    words = [sys.executable, "-m", "bydawn.cli.main", "run", "prompts.csv", "--map", "prompt=Prompt", "--name", BATCH]
    words += ["--provider", shop.provider, "--aspect", "1:1", "--resolution", "1K", "--to", str(shop.images)]
    words += ["--sandbox", "--ledger", "bydawn-sandbox.db", "--max-at-risk", "1000000", "--quiet"]
    os.execv(sys.executable, [*words, *os.environ.get("PEER_OPTIONS", "").split()])


def believe(shop: Shop) -> dict[str, int]:
    lines = (shop.images / "manifest.jsonl").read_text().splitlines()
    states = Counter(str(json.loads(line)["status"]) for line in lines)
    return {"done": states.pop("succeeded", 0), **states}


if __name__ == "__main__":
    play(work=work, believe=believe, prepare=prepare)
