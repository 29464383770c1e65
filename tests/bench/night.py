"""A night in steady state for the ledger benchmarks: tasks of five events, twenty at each stage in every group.

A group of 100 decisions touches 100 different tasks, as the writer sees it with some hundred attempts in flight:
nothing is coalesced that would not be in a real run.  Texts and ids have realistic lengths.
"""

import hashlib
from pathlib import Path

from ledger.decisions import Append, Committed, Count, Decision, Guard, NewPayload, Reserve
from ledger.events import (
    AttemptAccepted,
    AttemptIntended,
    BatchOpened,
    BatchSealed,
    ImportOpened,
    ResultReady,
    TaskCompleted,
    TaskEvent,
    TaskQueued,
)
from ledger.journal import Ledger
from ledger.money import account_money, batch_money, day_money, lane_money, risk_money
from ledger.streams import batch_stream, task_stream

START_US = 1_795_305_600_000_000
STAGES = 5
PER_STAGE = 20
LOTS = 1 << 50
_GUARDS: tuple[Guard, ...] = (
    Reserve(batch_money(1), LOTS),
    Reserve(account_money("kie"), LOTS),
    Reserve(day_money("kie", START_US), LOTS),
    Reserve(risk_money(1), LOTS),
    Count(lane_money("kie", "default"), 1000),
)


def open_night(path: Path, tasks: int) -> Ledger:
    """A new ledger whose batch 1 is sealed for ``tasks`` tasks."""
    ledger = Ledger.create_or_open(path, create=True)
    ledger.start_epoch(machine="m", pid=1, app_version="0", operator="ann", command="bench", at_us=START_US)
    events = (
        BatchOpened(name="night", folder="night", sandbox=True, operator="ann"),
        ImportOpened(number=1, first=1, source="rows.csv", input_digest="d"),
        BatchSealed(number=1, tasks=tasks, rows=tasks, input_digest="d"),
    )
    ledger.commit([Decision(appends=(Append(batch_stream(1), 0, events),), at_us=START_US)])
    return ledger


def groups(ledger: Ledger, tasks: int) -> list[list[Decision]]:
    """All decisions of the night in commits of 100 (fewer while it starts and ends)."""
    waves = tasks // PER_STAGE
    found = []
    for wave in range(waves + STAGES - 1):
        group = []
        for stage in range(STAGES):
            if 0 <= wave - stage < waves:
                first = (wave - stage) * PER_STAGE + 1
                group += [
                    _decision(ledger, n, stage, START_US + wave * 50_000) for n in range(first, first + PER_STAGE)
                ]
        found.append(group)
    return found


def _decision(ledger: Ledger, n: int, stage: int, at_us: int) -> Decision:
    event, payloads = _event(ledger, n, stage)
    guards = _GUARDS if stage == 1 else ()
    return Decision(
        appends=(Append(task_stream(1, n), stage, (event,)),), at_us=at_us, guards=guards, payloads=payloads
    )


def _event(ledger: Ledger, n: int, stage: int) -> tuple[TaskEvent, tuple[NewPayload, ...]]:
    digest = hashlib.sha256(str(n).encode()).hexdigest()
    if stage == 0:
        text = f'{{"request":{{"prompt":"Studio photo of a handmade ceramic mug number {n}, soft light from the left, '
        text += 'seamless grey background, 85 mm","model":"nano-banana-2","aspect":"1:1","resolution":"1K"}}'
        ref, payload = ledger.payload(text)
        queued = TaskQueued(f"sku-{n:07d}", ref, "nano-banana-2", "1:1", "1K", n, 1)
        return queued, (payload,)
    if stage == 1:
        return AttemptIntended(1, "kie", "kie", "default", "cheapest", 60_000, digest[:32], START_US + 10**8), ()
    if stage == 2:
        return AttemptAccepted(1, digest[:32]), ()
    if stage == 3:
        ref, payload = ledger.payload(f"https://tempfile.example.com/results/{digest[:40]}/image-{n}.png")
        return ResultReady(1, ref, 60_000, START_US + 10**10), (payload,)
    return TaskCompleted(1, 1, digest, 1_843_211, "image/jpeg", 1024, 1024, 60_000), ()


def play(ledger: Ledger, night: list[list[Decision]]) -> None:
    """Commit everything; nothing may be refused."""
    for group in night:
        assert all(isinstance(outcome, Committed) for outcome in ledger.commit(group))
