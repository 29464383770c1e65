"""Judging decisions: keys, versions, rules, guards, in arrival order, before any row is written.

Each decision is judged on the states and balances that those before it in the same group leave behind.  One that is
refused leaves no trace; one that passes is taken in at once, and becomes durable with the group.  So this memory may be
ahead of the file: when writing fails it must be thrown away, with the handle (LED-7).
"""

from itertools import islice
from typing import cast

from ledger.appender import Appender
from ledger.decisions import Append, Committed, Conflict, Decision, Exceeded, Guard, Outcome, Repeated, Reserve
from ledger.engine import Store
from ledger.errors import InvariantBroken
from ledger.events import AccountEvent, BatchEvent, Event, RuntimeEvent, TaskEvent, TaskQueued
from ledger.folds import AccountState, BatchState, TaskState, evolve_task
from ledger.money import Move, moves
from ledger.projection import Projection
from ledger.replay import ACCOUNT_KIND, BATCH_KIND, KIND_SHIFT, TASK_KIND, State, evolve, load_state
from ledger.rules import breach
from ledger.streams import batch_of, batch_stream, stream_label, stream_parts, task_stream

_CACHED_TASKS = 50_000

_Step = tuple[int, Event, State, State]  # stream, event, before, after


class Judge:
    """``epoch`` is that of this process; 0 until it has one."""

    def __init__(
        self, store: Store, appender: Appender, projection: Projection, *, cached: int = _CACHED_TASKS
    ) -> None:
        """``cached`` bounds the tasks remembered between groups."""
        self.epoch = 0
        self._store = store
        self._cached = cached
        self._appender = appender
        self._projection = projection
        self._tasks: dict[int, TaskState] = {}
        self._others: dict[int, State] = {}
        self._sealed: dict[int, int] = {}  # batch -> key of its last sealed task; the states of batches decide
        self._settled: list[int] = []
        self._keys: dict[bytes, int] = {}  # of decisions that are not in the file yet

    def judge(self, decision: Decision) -> Outcome:
        """Take a decision in, or say why not.

        Raises:
            InvariantBroken: it breaks a rule that protects money, whoever decided it.
        """
        key = decision.key
        if key is not None:
            seq = self._seq_of(key)
            if seq:
                return Repeated(seq)
        at_us = decision.at_us
        steps: list[_Step] = []
        moved: list[Move] = []
        states: dict[int, State] = {}
        for append in decision.appends:
            refused = self._step(append, at_us, states, steps, moved)
            if refused is not None:
                return refused
        for guard in decision.guards:
            value, cap = self._weigh(guard, moved)
            if value > cap:
                return Exceeded(guard, value)
        for payload in decision.payloads:
            self._appender.add_payload(payload.row, payload.salt, payload.text, None)
        for row in decision.erases:
            self._appender.erase_payload(row)
        return Committed(self._accept(steps, moved, at_us, key))

    def _step(
        self, append: Append, at_us: int, states: dict[int, State], steps: list[_Step], moved: list[Move]
    ) -> Conflict | None:
        stream, epoch = append.stream, self.epoch
        state = states.get(stream) or self.state(stream)
        if state.version != append.expected:
            return Conflict(append.stream, append.expected, state.version)
        if stream >> KIND_SHIFT == TASK_KIND:
            batch = batch_of(stream)
            task = cast(TaskState, state)
            for fact in cast(tuple[TaskEvent, ...], append.events):
                self._protect(stream, batch, fact, task)
                after = evolve_task(task, fact, epoch=epoch, at_us=at_us)
                moved += moves(task, after, batch=batch, epoch=epoch)
                steps.append((stream, fact, task, after))
                task = after
            states[stream] = task
            return None
        for event in append.events:
            new = evolve(stream, state, event, epoch=epoch, at_us=at_us)
            steps.append((stream, event, state, new))
            state = new
        states[stream] = state
        return None

    def _protect(self, stream: int, batch: int, event: TaskEvent, before: TaskState) -> None:
        """The rules that stay on in production: a breach is a bug and stops the run."""
        sealed = self._sealed.get(batch)
        if sealed is None:
            sealed = self._sealed[batch] = task_stream(batch, self.batch(batch).sealed_through)
        if stream > sealed and type(event) is not TaskQueued:
            raise InvariantBroken(f"{stream_label(stream)}: its import is not sealed (LED-11)")
        wrong = breach(before, event)
        if wrong:
            raise InvariantBroken(f"{stream_label(stream)}: {event.TYPE}: {wrong}")

    def _weigh(self, guard: Guard, moved: list[Move]) -> tuple[int, int]:
        """What a guarded account would become with ``moved``, and its cap."""
        if type(guard) is Reserve:
            value = self._projection.balance(guard.account).total
            for account, reserved, captured, _ in moved:
                if account == guard.account:
                    value += reserved + captured
            return value, guard.cap_microusd
        value = self._projection.balance(guard.lane).open
        for account, _, _, number in moved:
            if account == guard.lane:
                value += number
        return value, guard.cap

    def _accept(self, steps: list[_Step], moved: list[Move], at_us: int, key: bytes | None) -> int:
        """Take the events in; the key goes with the last one, so that a repeat is answered with its seq."""
        add, epoch, projection = self._appender.add, self.epoch, self._projection
        projection.move(moved)
        last = len(steps) - 1
        for index, (stream, event, before, after) in enumerate(steps):
            seq = add(stream, after.version, epoch, at_us, event, key if index == last else None)
            kind = stream >> KIND_SHIFT
            if kind == TASK_KIND:
                task = cast(TaskState, after)
                projection.task(seq, stream, at_us, cast(TaskEvent, event), cast(TaskState, before), task)
                self._remember(stream, task)
                continue
            if kind == BATCH_KIND:
                self._sealed.pop(batch_of(stream), None)
                projection.batch(batch_of(stream), cast(BatchEvent, event), cast(BatchState, after))
            elif kind == ACCOUNT_KIND:
                projection.account(stream_parts(stream).n, cast(AccountEvent, event), cast(AccountState, after))
            else:
                projection.runtime(seq, epoch, cast(RuntimeEvent, event))
            self._others[stream] = after
        if key is not None and steps:
            self._keys[key] = self._appender.seq
        return self._appender.seq

    def _seq_of(self, key: bytes) -> int:
        """The seq under which a key is on record, 0 if it is not."""
        known = self._keys.get(key)
        if known is None:
            found = self._store.row("SELECT seq FROM events WHERE key = ?", (key,))
            return 0 if found is None else int(found[0])
        return known

    def state(self, stream: int) -> State:
        """The state of a stream as everything that was taken in leaves it."""
        if stream >> KIND_SHIFT == TASK_KIND:
            return self._tasks.get(stream) or load_state(self._store, stream)
        state = self._others.get(stream)
        if state is None:
            state = self._others[stream] = load_state(self._store, stream)
        return state

    def batch(self, batch: int) -> BatchState:
        return cast(BatchState, self.state(batch_stream(batch)))

    def _remember(self, stream: int, state: TaskState) -> None:
        """Keep the state, as the newest, until the transaction at least: the file does not have it yet."""
        self._tasks.pop(stream, None)
        self._tasks[stream] = state
        if state.settled:
            self._settled.append(stream)

    def written(self) -> None:
        """The file has everything now: forget what will hardly move again, and what is too much."""
        self._keys.clear()
        tasks = self._tasks
        for stream in self._settled:
            state = tasks.get(stream)
            if state is not None and state.settled:
                del tasks[stream]
        self._settled.clear()
        for stream in list(islice(tasks, max(0, len(tasks) - self._cached))):
            del tasks[stream]
