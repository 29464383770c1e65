#!/usr/bin/env python3
"""What kill -9 costs others: scripts, queues and a workflow engine over an SDK, killed as bydawn is, and the bill.

Every peer buys the same prompts from the same emulated provider with its official client, eight at a time.  SIGKILL
comes to its whole process group after a random number of requests, again and again; then it may finish.  The bill of
the sandbox and the images that are there say what that came to.  bydawn is one of the peers, and gets no other kills.

    python3 -m venv peers && peers/bin/pip install -r scripts/peers/requirements.txt
    scripts/peer_torture.py examples/parti-prompts.tsv --python peers/bin/python
    scripts/peer_torture.py examples/parti-prompts.tsv --peer plain,bydawn --provider together --kills 5 --limit 60
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from adapters.sandbox.picture import read_digest  # noqa: E402
from scripts import check_bill  # noqa: E402

REQUIREMENTS = ROOT / "scripts" / "peers" / "requirements.txt"
# Provider -> the fewest requests that a task takes: the paid one, one to see what became of it, one for the image.
PROVIDERS = {"replicate": 3, "together": 1}
LATENCY_S = 0.2
QUIET_S = 8.0  # so long without a request: a peer that never ends has nothing left to do
PATIENCE_S = 900.0  # of one life
STARTS = 10  # of one life, when it ends with an error
SETTLE_S = 20.0  # for jobs that nobody waits for any more


@dataclass(frozen=True)
class Peer:
    """``package``: what must be installed; ``ends``: the process ends when the work is done; ``ours``: it is bydawn."""

    module: str
    package: str = ""
    ends: bool = True
    ours: bool = False
    env: Mapping[str, str] = field(default_factory=dict)


PEERS = {
    "plain": Peer("plain"),
    "cookbook": Peer("cookbook"),
    "litequeue": Peer("on_litequeue", "litequeue"),
    "huey": Peer("on_huey", "huey", ends=False),
    "huey-refill": Peer("on_huey", "huey", ends=False, env={"PEER_REFILL": "1"}),
    "dbos": Peer("on_dbos", "dbos"),
    "bydawn": Peer("on_bydawn", ours=True),
    "bydawn-resubmit": Peer(
        "on_bydawn", ours=True, env={"PEER_OPTIONS": "--on-unknown resubmit --max-duplicate-usd 1000"}
    ),
}


class Failed(Exception):
    """A sentence for the user."""


@dataclass(frozen=True)
class Kill:
    """The end of a life: so long after the ``nth`` request that this life has sent."""

    nth: int
    pause_s: float


@dataclass(frozen=True)
class Finding:
    """What became of the tasks.  ``again``: images that were bought beyond the first; ``unpaid`` must be empty."""

    tasks: int
    charged_microusd: int
    again: int
    again_microusd: int
    missing: int
    missing_paid: int
    unpaid: int


# --- the plan and the verdict -----------------------------------------------------------------------------


def plan(*, tasks: int, kills: int, provider: str, seed: int) -> list[Kill]:
    """The same for every peer; together the lives take three quarters of the requests that the work needs."""
    dice = random.Random(seed)
    mean = 0.75 * tasks * PROVIDERS[provider] / (kills + 1)
    return [Kill(dice.randint(1, max(1, round(2 * mean))), round(dice.uniform(0, 0.05), 4)) for _ in range(kills)]


def judge(prompts: Sequence[str], images: Iterable[bytes], bill: Iterable[check_bill.Job]) -> Finding:
    """Hold the bill against the images; no peer is believed anything."""
    there = set(images)
    digests = [check_bill.request_digest(prompt, (), "1:1", "1K") for prompt in prompts]
    tasks = [
        check_bill.Task(str(n), "succeeded" if bytes.fromhex(digest) in there else "missing", digest, "", 1, False)
        for n, digest in enumerate(digests)
    ]
    verdict = check_bill.compare(bill, tasks)
    if verdict.nobody:
        raise Failed(f"{len(verdict.nobody)} jobs on the bill that no prompt asks for: this torture is broken")
    missing = [task.id for task in tasks if task.status == "missing"]
    return Finding(
        tasks=len(tasks),
        charged_microusd=verdict.charged_microusd,
        again=sum(len(each.jobs) for each in verdict.twice),
        again_microusd=verdict.twice_microusd,
        missing=len(missing),
        missing_paid=sum(task not in verdict.never for task in missing),
        unpaid=len(verdict.unpaid),
    )


def drawn(folder: Path) -> Iterator[bytes]:
    """The digests that are drawn in the pictures of a folder; a file that is none counts for nothing."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".jpg", ".jpeg", ".png", ".webp"):
            try:
                yield read_digest(path.read_bytes())
            except (OSError, ValueError):
                continue


# --- the torture ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What all peers meet."""

    prompts: Sequence[str]
    provider: str
    kills: int
    seed: int
    chaos: str
    python: str


@dataclass(frozen=True)
class Result:
    peer: str
    provider: str
    seed: int
    kills: int
    seconds: float
    finding: Finding
    believes: Mapping[str, int]


def torture(name: str, setting: Setting, folder: Path) -> Result:
    """Let a peer live until all kills have come to it, or it has finished; then let it finish, and judge."""
    (folder / "images").mkdir(parents=True)
    (folder / "prompts.json").write_text(json.dumps(setting.prompts))
    kills = plan(tasks=len(setting.prompts), kills=setting.kills, provider=setting.provider, seed=setting.seed)
    done, began = 0, time.monotonic()
    with sandbox(folder / "sandbox", setting) as url:
        theatre = Theatre(name, setting, folder, url)
        for kill in kills:
            if not theatre.live(kill):
                break  # finished before it could be killed
            done += 1
        else:
            theatre.live(None)
        bill = settled_bill(url)
        believes = theatre.believes()
    finding = judge(setting.prompts, drawn(folder / "images"), bill)
    return Result(name, setting.provider, setting.seed, done, time.monotonic() - began, finding, believes)


class Theatre:
    """The processes of one peer in front of one sandbox."""

    def __init__(self, name: str, setting: Setting, folder: Path, url: str) -> None:
        self._peer = PEERS[name]
        self._folder = folder
        self._url = url
        self._python = sys.executable if self._peer.ours else setting.python
        env = {name: value for name, value in os.environ.items() if not name.startswith("BYDAWN_")}
        self._env = env | {
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(folder),
            "PEER_FOLDER": str(folder),
            "PEER_PROVIDER": setting.provider,
            "REPLICATE_API_TOKEN": "sandbox-peer",
            "REPLICATE_BASE_URL": f"{url}/replicate",
            "TOGETHER_API_KEY": "sandbox-peer",
            "TOGETHER_BASE_URL": f"{url}/together",
            "BYDAWN_SANDBOX_URL": url,
            **self._peer.env,
        }

    def live(self, kill: Kill | None) -> bool:
        """Start the peer, and kill it or let it end; says whether it was killed.

        A peer that ends with an error is started again, as its owner would.
        """
        for _ in range(STARTS):
            self._call("prepare")
            process = self._start("work")
            try:
                killed = self._watch(process, kill)
            finally:
                end(process)
            if killed or process.returncode in (0, 3):  # 3: bydawn holds some
                return killed
        raise Failed(f"{self._peer.module} ended with exit {process.returncode} {STARTS} times: {self._last_words()}")

    def believes(self) -> dict[str, int]:
        """What the peer itself has on record, without what is zero."""
        counts: dict[str, int] = json.loads(self._call("believe"))
        return {state: count for state, count in counts.items() if count}

    def _watch(self, process: subprocess.Popen[bytes], kill: Kill | None) -> bool:
        """Wait until the process ends by itself, or kill it; says whether it was killed."""
        before = seen = requests(self._url)
        changed = began = time.monotonic()
        while process.poll() is None:
            now = time.monotonic()
            count = requests(self._url)
            if count != seen:
                seen, changed = count, now
            if kill and seen - before >= kill.nth:
                time.sleep(kill.pause_s)
                end(process)
                return process.returncode == -signal.SIGKILL
            if not self._peer.ends and now - changed > QUIET_S:
                process.send_signal(signal.SIGINT)
                process.wait(PATIENCE_S)
            elif now - began > PATIENCE_S:
                raise Failed(f"{self._peer.module} did not end within {PATIENCE_S:.0f} s")
            time.sleep(0.01)
        return False

    def _start(self, part: str) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [self._python, "-m", f"scripts.peers.{self._peer.module}", part],
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log if part == "work" else subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def _call(self, part: str) -> bytes:
        process = self._start(part)
        try:
            told, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            end(process)
        if process.returncode:
            raise Failed(f"{self._peer.module} could not {part}: {self._last_words()}")
        return told

    def _last_words(self) -> str:
        return " ".join((self._folder / "log").read_text("utf-8", "replace").strip().splitlines()[-3:])


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with its group, if it is still there."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def sandbox(folder: Path, setting: Setting) -> Iterator[str]:
    """Serve the provider as ``bydawn torture`` does; gives its address."""
    command = [sys.executable, "-m", "adapters.sandbox", "--dir", str(folder), "--port", "0", "--rate-factor", "50"]
    command += ["--latency", str(LATENCY_S), "--chaos", setting.chaos, "--seed", str(setting.seed)]
    command += ["--providers", setting.provider]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        hello = process.stdout.readline()
        if not hello:
            raise Failed("the sandbox could not be started")
        yield json.loads(hello)["url"]
    finally:
        end(process)


def requests(url: str) -> int:
    with urllib.request.urlopen(f"{url}/sandbox/requests", timeout=60) as reply:
        return int(json.load(reply)["requests"])


def settled_bill(url: str) -> list[check_bill.Job]:
    """The bill once every job has ended: one that nobody waits for is charged all the same."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        bill = list(check_bill.read_bill(url))
        if time.monotonic() > deadline or not any(job["state"] == "running" for job in bill):
            return bill
        time.sleep(0.1)


# --- asking and telling -----------------------------------------------------------------------------------


def pinned(package: str) -> str:
    (line,) = (each for each in REQUIREMENTS.read_text().splitlines() if each.startswith(f"{package}=="))
    return line


def check_installed(names: Sequence[str], provider: str, python: str) -> None:
    """Refuse to begin when something is missing, or of another version than the comparison is made with."""
    for name in names:
        if PEERS[name].ours:
            continue
        for package in filter(None, (provider, PEERS[name].package)):
            asked = f"import importlib.metadata as m; print('{package}==' + m.version('{package}'))"
            told = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
            if told.stdout.strip() != pinned(package):
                raise Failed(
                    f"{name} needs {pinned(package)}, and {python} has {told.stdout.strip() or 'none'}; in a Python of"
                    f" its own:\n  python3 -m venv peers && peers/bin/pip install -r {REQUIREMENTS.relative_to(ROOT)}"
                    "\n  then: --python peers/bin/python"
                )


def read_prompts(source: Path, column: str, limit: int) -> list[str]:
    with source.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if column not in (rows.fieldnames or ()):
            raise Failed(f"{source} has no column {column}")
        return list(dict.fromkeys(row[column] for row in rows))[:limit]


def row(result: Result) -> str:
    """A line of the table that the documentation has."""
    found = result.finding
    charged = check_bill.dollars(found.charged_microusd)
    again = f"{check_bill.dollars(found.again_microusd)} ({found.again})"
    believes = ", ".join(f"{count} {state}" for state, count in result.believes.items())
    life = (f"`{result.peer}`", result.seed, result.kills, found.tasks)
    return f"| {' | '.join(map(str, (*life, charged, again, found.missing, found.missing_paid, believes)))} |"


HEAD = (
    "| peer | seed | kills | tasks | charged | of it for images bought again | without an image | of them paid for"
    " | says of itself |\n|---|---|---|---|---|---|---|---|---|"
)


def as_data(result: Result) -> dict[str, object]:
    return {"type": "peer", **asdict(result)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What kill -9 costs scripts, queues and workflow engines over an SDK.")
    parser.add_argument("source", type=Path, help="a TSV file")
    parser.add_argument("--column", default="Prompt")
    parser.add_argument("--peer", default=",".join(PEERS), metavar="NAME[,..]", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--provider", choices=PROVIDERS, default="replicate")
    parser.add_argument("--limit", type=int, default=240)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chaos", default="none", help="as the sandbox takes it: none, flaky, storm, or a file")
    parser.add_argument("--python", default=sys.executable, metavar="FILE", help="where the peers are installed")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep logs, databases and images there")
    parser.add_argument("--json", action="store_true", help="one JSON object per peer")
    given = parser.parse_args(argv)
    names = given.peer.split(",")
    if unknown := [name for name in names if name not in PEERS]:
        parser.error(f"there is no peer named {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if given.limit < 1 or given.kills < 0:
        parser.error("--limit takes 1 or more, --kills 0 or more")
    chaos = str(Path(given.chaos).absolute()) if Path(given.chaos).is_file() else given.chaos
    python = str(Path(given.python).absolute())  # not resolved: a link to another Python is what a venv's is
    try:
        check_installed(names, given.provider, python)
        prompts = read_prompts(given.source, given.column, given.limit)
        setting = Setting(prompts, given.provider, given.kills, given.seed, chaos, python)
        if not given.json:
            print(HEAD, flush=True)
        with tempfile.TemporaryDirectory(prefix="peer-torture-") as scratch:
            for name in names:
                result = torture(name, setting, (given.keep or Path(scratch)).absolute() / name)
                print(json.dumps(as_data(result)) if given.json else row(result), flush=True)
    except (Failed, OSError) as problem:
        print(f"peer_torture: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
