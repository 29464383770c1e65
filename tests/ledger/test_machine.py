"""A real ledger under random appends, groups, conflicts, repeats and crashes (LED-2, LED-3, LED-4, MON-3, MON-8).

A crash is what a kill -9 leaves: the files as they are while the handle is still open, copied away before anything is
closed.  Whatever was answered must be there afterwards.
"""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ledger.audit import verify
from ledger.commands import TaskCommand
from ledger.decisions import Append, Committed, Conflict, Count, Decision, Exceeded, Outcome, Repeated, Reserve
from ledger.errors import CommandRejected
from ledger.events import TaskCancelled, TaskEvent
from ledger.folds import TaskState, evolve_task
from ledger.money import batch_money, lane_money, risk_money
from ledger.rules import decide_task
from ledger.streams import task_stream
from tests.ledger.ledgers import opened
from tests.ledger.strategies import beginnings, commands, intends

TASKS = 3
BUDGET, RISK, UNACKED = 250_000, 180_000, 2
GUARDS = (
    Reserve(batch_money(1), BUDGET),
    Reserve(risk_money(1), RISK),
    Count(lane_money("kie", "default"), UNACKED),
    Count(lane_money("kie-eu", "default"), UNACKED),
)
tasks = st.integers(1, TASKS)


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.lives = 0
        self.at_us = 100
        self.keyed: list[tuple[Decision, int]] = []
        self.stale: list[Decision] = []

    @initialize()
    def open(self) -> None:
        self.ledger = opened(self.folder / "0" / "bydawn.db", tasks=TASKS)
        self.remembered = {n: self.ledger.state(task_stream(1, n)) for n in range(1, TASKS + 1)}

    def decide(self, n: int, command: TaskCommand, state: TaskState) -> Decision | None:
        try:
            events = decide_task(state, command)
        except CommandRejected:
            return None
        self.at_us += 1
        append = Append(task_stream(1, n), state.version, events)
        return Decision(appends=(append,), at_us=self.at_us, guards=GUARDS) if events else None

    def remember(self, decision: Decision, outcome: Outcome) -> None:
        if isinstance(outcome, Committed):
            for append in decision.appends:
                n = append.stream & 0xFFFF
                for event in append.events:
                    assert isinstance(event, TaskEvent)
                    self.remembered[n] = evolve_task(
                        self.remembered[n], event, epoch=self.ledger.epoch, at_us=decision.at_us
                    )
            self.stale.append(decision)

    @rule(n=tasks, story=beginnings, command=commands)
    def append(self, n: int, story: tuple[TaskCommand, ...], command: TaskCommand) -> None:
        for step in (*story, command):
            decision = self.decide(n, step, self.remembered[n])
            if decision is not None:
                (outcome,) = self.ledger.commit([decision])
                assert isinstance(outcome, Committed | Exceeded)
                self.remember(decision, outcome)

    @rule(wanted=st.lists(st.tuples(tasks, st.one_of(intends, commands)), max_size=6))
    def append_together(self, wanted: list[tuple[int, TaskCommand]]) -> None:
        """All decided on the same states: at most the first for each task passes."""
        group = [self.decide(n, command, self.remembered[n]) for n, command in wanted]
        decisions = [decision for decision in group if decision is not None]
        versions = {n: state.version for n, state in self.remembered.items()}
        for decision, outcome in zip(decisions, self.ledger.commit(decisions), strict=True):
            append = decision.appends[0]
            n = append.stream & 0xFFFF
            if self.remembered[n].version != versions[n]:
                assert outcome == Conflict(append.stream, append.expected, self.remembered[n].version)
            else:
                assert isinstance(outcome, Committed | Exceeded)
            self.remember(decision, outcome)

    @rule(n=tasks, command=commands, key=st.binary(min_size=16, max_size=16))
    def append_with_key(self, n: int, command: TaskCommand, key: bytes) -> None:
        """LED-3: the same again in the same group, and later, is answered and not written."""
        decision = self.decide(n, command, self.remembered[n])
        if decision is None or any(known.key == key for known, _ in self.keyed):
            return
        decision = Decision(appends=decision.appends, at_us=decision.at_us, guards=decision.guards, key=key)
        first, second = self.ledger.commit([decision, decision])
        if isinstance(first, Committed):
            assert second == Repeated(first.seq)
            self.keyed.append((decision, first.seq))
        self.remember(decision, first)

    @rule()
    def repeat_keys(self) -> None:
        outcomes = self.ledger.commit([decision for decision, _ in self.keyed])
        assert outcomes == [Repeated(seq) for _, seq in self.keyed]

    @rule()
    def stale_writer(self) -> None:
        """LED-2: decided on a version that is no longer the latest."""
        stale = [decision for decision in self.stale if decision.key is None]
        late = Append(task_stream(1, 1), self.remembered[1].version + 7, (TaskCancelled(operator="x"),))
        for outcome in self.ledger.commit([*stale, Decision(appends=(late,), at_us=1)]):
            assert isinstance(outcome, Conflict)

    @rule()
    def crash(self) -> None:
        """LED-4: kill -9, then a new process; lanes start empty."""
        self.lives += 1
        here, there = self.ledger.path.parent, self.folder / str(self.lives)
        there.mkdir()
        for name in ("bydawn.db", "bydawn.db-wal"):
            shutil.copyfile(here / name, there / name)
        self.ledger.close()
        self.ledger = opened(there / "bydawn.db")

    @rule()
    def close_and_open(self) -> None:
        self.ledger.close()
        self.ledger = opened(self.ledger.path)

    @invariant()
    def replayed_is_remembered(self) -> None:
        with self.ledger.reader() as reader:
            for n, state in self.remembered.items():
                assert reader.state(task_stream(1, n)) == state
                assert self.ledger.state(task_stream(1, n)) == state
                row = reader.task(1, n)
                assert row is not None
                assert (row.phase, row.version) == (state.phase, state.version)
            live = {(entry.n, entry.attempt) for entry in reader.live()}
            expected = {
                (n, attempt.number)
                for n, state in self.remembered.items()
                for attempt in state.attempts
                if attempt.phase in ("intended", "ambiguous", "accepted", "ready")
            }
            assert live == expected

    @invariant()
    def no_cap_is_exceeded(self) -> None:
        """MON-3, MON-8: no interleaving gets past a guard; what a provider charges above a ceiling is its own line."""
        with self.ledger.reader() as reader:
            money = reader.money()
        over = sum(
            max(0, (attempt.cost_microusd or 0) - attempt.ceiling_microusd)
            for state in self.remembered.values()
            for attempt in state.attempts
            if attempt.phase in ("done", "failed", "surplus", "lost")
        )
        assert money[batch_money(1)].total - over <= BUDGET if batch_money(1) in money else True
        for name, balance in money.items():
            if name.startswith("lane/"):
                assert balance.open <= UNACKED
            if name.startswith("risk/"):
                assert balance.total <= RISK

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            report = verify(self.ledger.path)
            assert report.ok, report.problems
        shutil.rmtree(self.folder)


LedgerMachine.TestCase.settings = settings(
    max_examples=12, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLedger = LedgerMachine.TestCase


class LongMachine(LedgerMachine):
    """The same for longer."""


LongMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None, derandomize=False)
TestLedgerForLong = pytest.mark.slow(LongMachine.TestCase)
