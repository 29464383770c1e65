"""Short stories of a task, told with commands, for the tests of the ledger."""

from ledger.commands import Intend, Record, TaskCommand
from ledger.events import (
    AttemptAccepted,
    AttemptAmbiguous,
    AttemptIntended,
    AttemptUnknown,
    PayloadRef,
    ResultReady,
    TaskCompleted,
    TaskEvent,
    TaskQueued,
)
from ledger.folds import EMPTY_TASK, TaskState, evolve_task
from ledger.rules import decide_task

QUEUED = TaskQueued(
    id="row-1",
    request=PayloadRef(row=1, digest="00"),
    model="nano-banana-2",
    aspect="1:1",
    resolution="1K",
    line=1,
    number=1,
)
INTEND = Intend(
    account="kie",
    provider="kie",
    lane="default",
    route="cheapest",
    ceiling_microusd=60_000,
    body_digest="ab",
    deadline_us=99,
)
UNKNOWN = (
    INTEND,
    Record(AttemptAmbiguous(attempt=1, reason="crash")),
    Record(AttemptUnknown(attempt=1, reason="no_evidence")),
)


def intent(attempt: int) -> AttemptIntended:
    """An intent that nobody decided."""
    return AttemptIntended(
        attempt=attempt,
        account="kie",
        provider="kie",
        lane="default",
        route="only",
        ceiling_microusd=1,
        body_digest="",
        deadline_us=0,
    )


def completed(attempt: int, sha256: str = "aa", *, version: int = 1) -> TaskCompleted:
    return TaskCompleted(
        attempt=attempt,
        version=version,
        sha256=sha256,
        size=10,
        media_type="image/png",
        width=8,
        height=8,
        cost_microusd=50_000,
    )


def fold(state: TaskState, events: tuple[TaskEvent, ...], epoch: int = 1) -> TaskState:
    for event in events:
        state = evolve_task(state, event, epoch=epoch, at_us=0)
    return state


def after(*commands: TaskCommand, queued: TaskQueued = QUEUED) -> TaskState:
    state = fold(EMPTY_TASK, (queued,))
    for command in commands:
        state = fold(state, decide_task(state, command))
    return state


def bought(n: int, sha256: str = "aa") -> tuple[TaskCommand, ...]:
    return (
        Record(AttemptAccepted(attempt=n, job=f"job-{n}")),
        Record(ResultReady(attempt=n, cost_microusd=50_000)),
        Record(completed(n, sha256)),
    )


def follower() -> TaskQueued:
    return TaskQueued(
        id="row-2",
        request=PayloadRef(row=2, digest="00"),
        model="m",
        aspect="1:1",
        resolution="1K",
        line=2,
        number=1,
        owner=1,
    )
