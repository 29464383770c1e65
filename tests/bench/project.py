"""A project folder with a large ledger, made quickly, and the real program run in it as a process.

The ledger is made through the ledger's own API: an import behind a seal, then the events of the finished tasks, so
that views, chain and books are what a real night leaves behind.  Jobs that are in flight were "accepted" in the far
future of :mod:`tests.bench.provider`, which therefore answers *generating* for as long as a benchmark asks.
"""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.base import ImageRequest
from ledger.commands import Intend, Record, TaskCommand
from ledger.decisions import Append, Committed, Decision
from ledger.events import AttemptAccepted, BatchOpened, ResultReady, SpendAgreed, TaskCompleted, TaskEvent
from ledger.folds import TaskState, evolve_task
from ledger.imports import NewTask
from ledger.journal import Ledger
from ledger.rules import decide_task
from ledger.streams import batch_stream, task_stream
from runtime.disk import RealDisk
from runtime.outputs import Marker, write_marker
from runtime.requests import encode_request, request_key

BATCH = "night"
PROGRAM = Path(sys.executable).with_name("bydawn")
START_US = 1_795_305_600_000_000  # 2026-11-22
PROMPT = "Studio photo of a handmade ceramic mug number {n}, soft light from the left, seamless grey background, 85 mm"
_GROUP = 500
_NEVER_S = 10**9  # "made" so late that the job never ends


def user_env() -> dict[str, str]:
    """The environment without our settings, and with bytecode cached as it is for users: a build machine may have
    switched that off, and then every start compiles all of bydawn."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BYDAWN_")}
    if kept.pop("PYTHONDONTWRITEBYTECODE", ""):
        kept["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / "bydawn-bench-bytecode")
    return kept


class Project:
    """A folder that ``bydawn`` runs in, its one account bought from the provider at ``url``."""

    def __init__(self, folder: Path, url: str, *, rate: str, max_inflight: int) -> None:
        self.folder = folder
        self.ledger = folder / "bydawn.db"
        self._url = url
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bydawn.toml").write_text(
            f'[accounts.kie]\nprovider = "kie"\nrate = "{rate}"\npoll_rate = "100000/1s"\n'
            f"max_inflight = {max_inflight}\n"
        )

    @property
    def env(self) -> dict[str, str]:
        return user_env() | {"KIE_API_KEY": "sandbox-bench", "BYDAWN_KIE_BASE_URL": self._url}

    @contextmanager
    def running(self, *args: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Start ``bydawn`` with these arguments; what is left of it at the end of the block is killed (SIGKILL)."""
        command = [str(PROGRAM), *args]
        with (self.folder / "run.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def seconds(self, *args: str) -> float:
        """How long one command takes, from start to end; it must succeed."""
        command = [str(PROGRAM), *args]
        nowhere = subprocess.DEVNULL
        start = time.perf_counter()
        subprocess.run(command, cwd=self.folder, env=self.env, stdout=nowhere, stderr=nowhere, check=True)
        return time.perf_counter() - start


def new_tasks(count: int) -> Iterator[NewTask]:
    """Rows of realistic size: a prompt of some 100 characters and a column that travels along."""
    for n in range(1, count + 1):
        wanted = ImageRequest(prompt=PROMPT.format(n=n))
        yield NewTask(
            row=f"sku-{n:07d}",
            given=True,
            suffix="",
            request=encode_request(wanted, {"shop": "mugs"}),
            request_key=request_key(wanted),
            model=wanted.model,
            aspect=wanted.aspect,
            resolution=wanted.resolution,
            references=0,
            variant=1,
            line=n + 1,
        )


def fill(project: Project, *, tasks: int, finished: int, open_jobs: int) -> None:
    """Make the ledger: tasks 1..finished have their image on record, the next ``open_jobs`` are in flight."""
    folder = project.folder / BATCH
    with Ledger.create_or_open(project.ledger, create=True) as ledger:
        ledger.start_epoch(machine="bench", pid=1, app_version="0", operator="bench", command="bench", at_us=START_US)
        opened = BatchOpened(name=BATCH, folder=str(folder), sandbox=False, operator="bench")
        agreed = SpendAgreed(tasks, tasks * 60_000, tasks * 75_000, "yes", "bench")
        ledger.commit([Decision(appends=(Append(batch_stream(1), 0, (opened, agreed)),), at_us=START_US)])
        write_marker(RealDisk(), folder, Marker(ledger=ledger.ledger_id, batch=1))
        ledger.stage(1, new_tasks(tasks), input_digest="bench")
        ledger.import_staged(1, source="rows.csv", input_digest="bench", at_us=START_US, share=True)
        for first in range(1, finished + 1, _GROUP):
            _settle(ledger, range(first, min(finished, first + _GROUP - 1) + 1), done=True)
        _settle(ledger, range(finished + 1, finished + open_jobs + 1), done=False)
        ledger.checkpoint()


def _settle(ledger: Ledger, numbers: range, *, done: bool) -> None:
    decisions = []
    for n in numbers:
        digest = hashlib.sha256(str(n).encode()).hexdigest()
        stream = task_stream(1, n)
        state = ledger.state(stream)
        version, events, payloads = state.version, [], []
        job = f"{int(1e6) * _NEVER_S + n}-{n}"
        commands: list[TaskCommand] = [
            Intend("kie", "kie", "default", "only", 75_000, digest[:32], START_US + 60_000_000),
            Record(AttemptAccepted(1, job)),
        ]
        if done:
            url, payload = ledger.payload(f"https://tempfile.aiquickdraw.com/h/{digest[:40]}_{n}.png")
            payloads.append(payload)
            commands.append(Record(ResultReady(1, url, 60_000, START_US + 86_400_000_000)))
            commands.append(Record(TaskCompleted(1, 1, digest, 1_843_211, "image/jpeg", 1024, 1024, 60_000)))
        for command in commands:
            for event in decide_task(state, command):
                state = _evolved(state, event, ledger.epoch)
                events.append(event)
        append = Append(stream, version, tuple(events))
        decisions.append(Decision(appends=(append,), at_us=START_US, payloads=tuple(payloads)))
    assert all(isinstance(outcome, Committed) for outcome in ledger.commit(decisions))


def _evolved(state: TaskState, event: TaskEvent, epoch: int) -> TaskState:
    return evolve_task(state, event, epoch=epoch, at_us=START_US)
