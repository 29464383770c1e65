"""Real ledgers for tests: opened, with an epoch and a sealed batch of tasks."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from ledger.commands import TaskCommand
from ledger.decisions import Append, Committed, Decision, Guard, Outcome
from ledger.errors import CommandRejected
from ledger.events import BatchOpened, BatchSealed, ImportOpened, TaskQueued
from ledger.journal import Ledger
from ledger.rules import decide_task
from ledger.streams import batch_stream, task_stream


def opened(path: Path, *, tasks: int = 0) -> Ledger:
    """Open (or make) a ledger and start an epoch; a new one gets batch 1 with sealed ``tasks``."""
    ledger = Ledger.create_or_open(path, create=True)
    ledger.start_epoch(machine="m", pid=1, app_version="0.1.0", operator="ann", command="run", at_us=1)
    if tasks and not ledger.batch(1).version:
        queue(ledger, tasks)
    return ledger


def queue(
    ledger: Ledger,
    tasks: int,
    *,
    owners: dict[int, int] | None = None,
    text: Callable[[int], str] = '{{"prompt":"picture {}"}}'.format,
) -> None:
    """Make batch 1 with sealed tasks 1..``tasks``, as an import would; ``text`` gives the request of a task."""
    events = (
        BatchOpened(name="night", folder="night", sandbox=True, operator="ann"),
        ImportOpened(number=1, first=1, source="rows.csv", input_digest="d1"),
    )
    appends = [Append(batch_stream(1), 0, events)]
    payloads = []
    for n in range(1, tasks + 1):
        ref, payload = ledger.payload(text(n))
        queued = TaskQueued(
            id=f"row-{n}",
            request=ref,
            model="nano-banana-2",
            aspect="1:1",
            resolution="1K",
            line=n,
            number=1,
            owner=(owners or {}).get(n, 0),
        )
        appends.append(Append(task_stream(1, n), 0, (queued,)))
        payloads.append(payload)
    sealed = BatchSealed(number=1, tasks=tasks, rows=tasks, input_digest="d1")
    appends.append(Append(batch_stream(1), 2, (sealed,)))
    (outcome,) = ledger.commit([Decision(appends=tuple(appends), at_us=2, payloads=tuple(payloads))])
    assert isinstance(outcome, Committed)


def decision(
    ledger: Ledger,
    n: int,
    command: TaskCommand,
    *,
    guards: tuple[Guard, ...] = (),
    key: bytes | None = None,
) -> Decision:
    """What the runtime would hand in for ``command`` on task ``n`` of batch 1."""
    stream = task_stream(1, n)
    state = ledger.state(stream)
    events = decide_task(state, command)
    return Decision(appends=(Append(stream, state.version, events),), at_us=10, guards=guards, key=key)


def do(ledger: Ledger, n: int, *commands: TaskCommand) -> Outcome:
    """Commit commands on a task one by one; the outcome of the last."""
    outcomes: list[Outcome] = []
    for command in commands:
        outcomes = ledger.commit([decision(ledger, n, command)])
        assert isinstance(outcomes[0], Committed)
    return outcomes[0]


def live_through(path: Path, told: Iterable[tuple[int, Iterable[TaskCommand]]], *, tasks: int) -> None:
    """Tell stories of tasks, each in an epoch of its own; what the rules refuse is passed over."""
    for n, story in told:
        with opened(path, tasks=tasks) as ledger:
            for command in story:
                with suppress(CommandRejected):
                    ledger.commit([decision(ledger, n, command)])
