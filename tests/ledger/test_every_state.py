"""Every state that a task with two purchases can get to, by every command, one after the other.

Hypothesis looks for odd stories among very many; here all of them are walked through, as far as they differ.
"""

from collections import deque
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from ledger.commands import Cancel, Decide, Erase, Fail, Find, Intend, Record, Retry, Review, TaskCommand
from ledger.errors import CommandRejected
from ledger.events import (
    AttemptAbsent,
    AttemptAccepted,
    AttemptAdopted,
    AttemptAmbiguous,
    AttemptFailed,
    AttemptLost,
    AttemptNotSent,
    AttemptRejected,
    AttemptUnknown,
    ResultReady,
    TaskCompleted,
    TaskEvent,
)
from ledger.folds import FOUND, LIVE, TaskState, evolve_task
from ledger.rules import breach, decide_task
from tests.ledger.stories import QUEUED

MOST = 2  # purchases
_INTEND = Intend("kie", "kie", "default", "only", 10, "d", 0)


def facts(attempt: int) -> Iterator[Record]:
    """All that can happen to an attempt."""
    job = f"j{attempt}"
    told: Sequence[TaskEvent] = (
        AttemptAccepted(attempt=attempt, job=job),
        ResultReady(attempt=attempt),
        AttemptNotSent(attempt=attempt, reason="r"),
        AttemptRejected(attempt=attempt, reason="throttled"),
        AttemptRejected(attempt=attempt, reason="invalid"),
        AttemptAmbiguous(attempt=attempt, reason="crash"),
        AttemptUnknown(attempt=attempt, reason="no_evidence"),
        AttemptAdopted(attempt=attempt, job=job, evidence="callback"),
        AttemptAbsent(attempt=attempt, evidence="listing"),
        AttemptFailed(attempt=attempt, reason="provider"),
        AttemptLost(attempt=attempt, reason="r", cost_microusd=10),
        TaskCompleted(
            attempt=attempt, version=1, sha256="s", size=1, media_type="image/png", width=1, height=1, cost_microusd=10
        ),
    )
    yield from map(Record, told)
    yield Record(AttemptFailed(attempt=attempt, reason="provider"), retryable=False)


def commands(state: TaskState, *, again: bool) -> Iterator[TaskCommand]:
    """All that can be asked of a task; ``again``: that it is wanted anew, or erased, as well."""
    if len(state.attempts) < MOST:
        yield _INTEND
        yield msgspec.structs.replace(_INTEND, beside="policy")
        if again:
            yield Find(_INTEND, "f", "listing")
    yield Cancel(operator="o")
    yield Fail(reason="no_provider")
    for attempt in range(1, len(state.attempts) + 1):
        yield from facts(attempt)
        yield Decide(operator="o", decision="buy_again", attempt=attempt)
        yield Decide(operator="o", decision="give_up", attempt=attempt)
        yield Decide(operator="o", decision="adopt", attempt=attempt, job=f"j{attempt}")
    if again:
        yield Retry(operator="o")
        yield Erase(operator="o")
        yield Review(version=1, verdict="rejected", operator="o")


def told(state: TaskState, command: TaskCommand) -> TaskState | None:
    """The state after a command, None where it is refused; what it decides must be legal, and no purchase too many."""
    try:
        decided = decide_task(state, command)
    except CommandRejected:
        return None
    for event in decided:
        assert breach(state, event) == "", f"{command} decides {event.TYPE} in {state}"
        state = evolve_task(state, event, epoch=1, at_us=0)
    # What another copy of the ledger bought is put on record beside whatever there is.
    ours = [each for each in state.attempts if each.route != FOUND]
    assert sum(each.phase in LIVE or each.doubtful for each in ours) <= 1 + state.permissions, f"{command}: {state}"
    return state


def walked(*, again: bool) -> int:
    """Get to every state; returns how many there are."""
    start = evolve_task(TaskState(), QUEUED, epoch=1, at_us=0)
    seen, waiting = {start}, deque([start])
    while waiting:
        state = waiting.popleft()
        for command in commands(state, again=again):
            after = told(state, command)
            if after is None or after.slot > 2 or after.permissions > 2:
                continue
            after = msgspec.structs.replace(after, version=0, failures=min(2, after.failures))
            if after not in seen:
                seen.add(after)
                waiting.append(after)
    return len(seen)


def test_no_command_breaks_a_rule_in_any_state() -> None:
    """MON-2, LED-7: a rule that a decision breaks ends the run, and every further one that tries the same."""
    assert walked(again=False) > 1_000


@pytest.mark.slow
def test_no_command_breaks_a_rule_in_any_state_of_a_task_that_is_wanted_again() -> None:
    """MON-2, RES-3, SEC-8."""
    assert walked(again=True) > 10_000
