"""A user's folder, the commands given there, and the providers' bill: what the system tests work with.

Everything is real: processes, sockets, SIGKILL.  What is asserted is read from outside, from exit codes, files, the
bill and a read-only look at the ledger.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from adapters.registry import codec
from adapters.sandbox.picture import read_digest
from ledger.errors import LedgerError
from ledger.folds import TaskState
from ledger.reader import Reader
from ledger.streams import task_stream
from scripts import check_bill

ROOT = Path(__file__).resolve().parent.parent.parent
BYDAWN = Path(sys.executable).with_name("bydawn")
PATIENCE_S = 120.0


class Done(NamedTuple):
    """A command that ended."""

    code: int
    out: str
    err: str

    def json(self) -> list[dict[str, object]]:
        """Its standard output, each line of which must be a JSON object."""
        return [msgspec.json.decode(line, type=dict[str, object]) for line in self.out.splitlines()]


class Settled(msgspec.Struct, frozen=True):
    """A line of the manifest."""

    id: str
    row: str
    status: str
    file: str | None
    provider: str | None
    attempts: int
    cost_microusd: int
    shared_with: str | None
    error: str | None
    width: int | None
    height: int | None
    flags: tuple[str, ...]


# --- the sandbox ------------------------------------------------------------------------------------------


class _Line(msgspec.Struct, frozen=True):
    url: str
    pid: int


@contextmanager
def sandbox(
    directory: Path,
    *,
    latency: float = 0.2,
    rate_factor: float = 50.0,
    price_factor: float = 1.0,
    chaos: str = "none",
    port: int = 0,
    webhook_key: str = "",
) -> Iterator[str]:
    """Serve all providers from a process of its own, which is killed in the end; gives its address."""
    command = [sys.executable, "-m", "adapters.sandbox", "--dir", str(directory), "--chaos", chaos, "--port", str(port)]
    command += ["--latency", str(latency), "--rate-factor", str(rate_factor), "--price-factor", str(price_factor)]
    env = {**os.environ, "BYDAWN_SANDBOX_WEBHOOK_KEY": webhook_key}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=env) as process:
        try:
            assert process.stdout is not None
            yield msgspec.json.decode(process.stdout.readline(), type=_Line).url
        finally:
            process.kill()


# Who is bought from where a test names nobody: one provider of each class of evidence after a crash.
USUAL = "kie,replicate,segmind"

# --- the shop ---------------------------------------------------------------------------------------------


class Shop:
    """A folder in which a user works, with the sandbox at ``url``.

    Several shops may share a sandbox, one after another: each sees the bill from its own first line on.  A context
    manager: what a failed test leaves running is killed.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.ledger = folder / "bydawn-sandbox.db"
        self.env: dict[str, str] = {"BYDAWN_SANDBOX_URL": url, "BYDAWN_OPERATOR": "tester", "BYDAWN_PROVIDER": USUAL}
        (folder / "bydawn.toml").touch()  # a project of its own: no ledger of a folder above is found
        self._first_line = len(list(self._bill(0)))
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def move_to(self, url: str) -> None:
        """Go on at another sandbox, of the same directory: the bill is the same."""
        self.url = self.env["BYDAWN_SANDBOX_URL"] = url

    def leave_practice(self, **keys: str) -> None:
        """Work without ``--sandbox`` from now on: base URLs are overridden, keys given, or made up."""
        self.env = {"BYDAWN_OPERATOR": "tester"}
        self.ledger = self.folder / "bydawn.db"
        for provider in dict.fromkeys((*USUAL.split(","), *keys)):
            self.env[f"BYDAWN_{provider.upper().replace('-', '_')}_BASE_URL"] = f"{self.url}/{provider}"
            self.env[codec(provider).capabilities.key_env] = keys.get(provider, "sandbox-of-a-test")

    # --- commands -----------------------------------------------------------------------------------------

    def start(self, *arguments: str, fault: str = "") -> "subprocess.Popen[str]":
        """Start a command and do not wait for it."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BYDAWN_")}
        inherited["XDG_CONFIG_HOME"] = str(self.folder)  # and no settings of whoever runs the tests
        env = inherited | self.env | ({"BYDAWN_FAULT": fault} if fault else {})
        process = subprocess.Popen(
            [BYDAWN, *arguments],
            cwd=self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, *arguments: str, fault: str = "", timeout: float = PATIENCE_S) -> Done:
        """Run a command to its end."""
        return wait(self.start(*arguments, fault=fault), timeout=timeout)

    def table(self, name: str, prompts: Iterable[str], *, columns: str = "id,prompt") -> str:
        """Write a table of prompts (as JSONL, so that a prompt may hold anything); returns its name."""
        first, second = columns.split(",")
        lines = (json.dumps({first: f"t{n}", second: prompt}) for n, prompt in enumerate(prompts, 1))
        (self.folder / name).write_text("".join(line + "\n" for line in lines), "utf-8")
        return name

    # --- what came of it ----------------------------------------------------------------------------------

    def bill(self) -> list[check_bill.Job]:
        """What the providers have charged since this shop was opened."""
        return list(self._bill(self._first_line))

    def _bill(self, after: int) -> Iterator[check_bill.Job]:
        with urllib.request.urlopen(f"{self.url}/sandbox/bill?after={after}", timeout=60) as reply:
            for line in reply:
                job: check_bill.Job = json.loads(line)
                yield job

    def output(self, batch: str) -> Path:
        with Reader(self.ledger) as reader:
            return Path(reader.batch(reader.batch_by_name(batch) or 0).folder)

    def manifest(self, batch: str) -> list[Settled]:
        lines = (self.output(batch) / "manifest.jsonl").read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Settled) for line in lines]

    def wanted(self, batch: str) -> list[check_bill.Task]:
        """What the tasks ask for, as the bill counts it."""
        return list(check_bill.read_manifest(self.output(batch) / "manifest.jsonl"))

    def verdict(self, batch: str) -> check_bill.Verdict:
        """Hold the bill against the manifest."""
        tasks = check_bill.read_manifest(self.output(batch) / "manifest.jsonl")
        return check_bill.compare(self.bill(), tasks)

    def strangers(self, batch: str) -> list[str]:
        """Tasks whose image, by its pixels, is another task's.  Undecodable ones raise; blank ones must be flagged."""
        folder = self.output(batch)
        tasks = {task.id: task for task in check_bill.read_manifest(folder / "manifest.jsonl")}
        return [
            row.id
            for row in self.manifest(batch)
            if row.file is not None
            and "blank" not in row.flags
            and read_digest((folder / row.file).read_bytes()).hex() != tasks[row.id].digest
        ]

    def tasks(self, batch: str) -> list[TaskState]:
        """The states of all tasks, from the ledger."""
        with Reader(self.ledger) as reader:
            number = reader.batch_by_name(batch) or 0
            count = reader.batch(number).sealed_through
            return [reader.state(task_stream(number, n)) for n in range(1, count + 1)]

    def phases(self, batch: str) -> dict[str, int]:
        """How many tasks are in each phase; empty while there is no such batch."""
        found: dict[str, int] = {}
        try:
            with Reader(self.ledger) as reader:
                for row in reader.counts(reader.batch_by_name(batch) or 0):
                    found[row.state] = found.get(row.state, 0) + row.n
        except LedgerError:  # not there yet
            return {}
        return found

    def doubtful(self, provider: str = "kie") -> int:
        """How many attempts at a provider were sent, or might have been, without an answer on record."""
        with Reader(self.ledger) as reader:
            return sum(each.phase in ("intended", "ambiguous") for each in reader.live(provider))

    def leftovers(self, batch: str) -> list[Path]:
        """Unfinished files in the output folder."""
        return list(self.output(batch).rglob("*.part"))

    def wait_phases(self, process: "subprocess.Popen[str]", batch: str, *phases: str, least: int) -> None:
        """Wait until so many tasks are in the phases, while the process runs."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            over = process.poll() is not None or time.monotonic() > deadline  # asked first: it may just have got there
            found = self.phases(batch)
            if sum(found.get(phase, 0) for phase in phases) >= least:
                return
            if over:
                process.kill()
                _, err = process.communicate()
                raise AssertionError(f"{least} {phases} not reached: {found}, {process.returncode}\n{err}")
            time.sleep(0.01)


def wait(process: "subprocess.Popen[str]", *, timeout: float = PATIENCE_S) -> Done:
    """Wait for a command; one that does not end in time is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"{process.args!r} did not end within {timeout} s\n{out}{err}") from None
    return Done(process.returncode, out, err)


def wait_until(holds: Callable[[], object]) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def prompts(test: str, count: int) -> list[str]:
    """Prompts that no other test uses, so that a shared sandbox can tell the tests' jobs apart."""
    return [f"{test}: picture {n}" for n in range(1, count + 1)]
