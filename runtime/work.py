"""A task on its way through the night, and the one way to add to its stream.

A :class:`Work` has one owner at a time: the router while it is queued, its account from the intent until the
result is ready, the fetcher until it is done.  Ownership travels with the object; whoever is not the owner
sends the owner a message.  So a :class:`StreamConflict` is a bug and stops the run.
"""

import hashlib
from collections.abc import Callable, Sequence

import msgspec

from adapters.base import ImageRequest
from ledger.commands import Record, TaskCommand
from ledger.decisions import Append, Conflict, Decision, Exceeded, Guard, NewPayload
from ledger.events import PayloadRef, TaskEvent
from ledger.folds import LIVE, SETTLED, AttemptState, TaskPhase, TaskState, evolve_task
from ledger.reader import Reader
from ledger.rules import decide_task
from ledger.streams import stream_label, task_stream
from runtime.ports import Clock
from runtime.requests import TaskRequest, decode_request
from runtime.writer import Journal


class StreamConflict(AssertionError):
    """Two owners wrote to one task: a bug, never restarted into."""


class Overtaken(StreamConflict):
    """Of several tasks that were to be recorded together, this one was changed by somebody else."""

    def __init__(self, work: "Work", message: str) -> None:
        super().__init__(message)
        self.work = work


class TextErased(ValueError):
    """The request of a task was erased: there is nothing left to work on."""


class WorkKey(msgspec.Struct, frozen=True, order=True):
    batch: int
    n: int


class Work:
    """One task with its folded state and its request."""

    __slots__ = (
        "accepted_at",
        "batch",
        "cancel_by",
        "data",
        "expires",
        "fingerprint",
        "followed_at",
        "garbled_at",
        "hinted",
        "intended_at",
        "n",
        "polling",
        "polls",
        "refused_at",
        "salt",
        "state",
        "unseen_at",
        "url",
        "wanted",
    )

    def __init__(self, batch: int, n: int, state: TaskState, wanted: TaskRequest, salt: bytes) -> None:
        self.batch = batch
        self.n = n
        self.state = state
        self.wanted = wanted
        self.salt = salt
        self.polls = 0
        self.accepted_at = 0.0  # monotonic, for jobs of this process
        self.followed_at: float | None = None  # monotonic, since when this process asks for the job
        self.unseen_at: float | None = None  # monotonic, since when the provider does not show the job
        self.refused_at: float | None = None  # monotonic, since when it refuses the key
        self.garbled_at: float | None = None  # monotonic, since when its answers about the job cannot be read
        self.intended_at: float | None = None  # monotonic, for intents of this process
        self.polling = False
        self.hinted = False  # the provider called back about the job
        self.fingerprint = ""  # of the newest attempt, where this process sent it with other references than it has
        self.cancel_by = ""  # the operator who wants the job stopped, until the provider was told
        self.url = ""  # of the result, in memory only
        self.data = b""  # a result that came with the reply
        self.expires = float("inf")  # monotonic seconds at which the result is gone, as far as is known

    def __repr__(self) -> str:
        """As the log names it to people, who know its id and not its number."""
        named = self.state.queued.id if self.state.queued is not None else f"#{self.n}"
        return f"<task {named}, {self.state.phase}>"

    @property
    def request(self) -> ImageRequest:
        return self.wanted.request

    @property
    def key(self) -> WorkKey:
        return WorkKey(self.batch, self.n)

    @property
    def attempt(self) -> AttemptState:
        """The attempt that is followed: the newest live one, else the newest.  None intended yet: do not ask."""
        for attempt in reversed(self.state.attempts):
            if attempt.phase in LIVE:
                return attempt
        return self.state.attempts[-1]

    @property
    def phase(self) -> TaskPhase:
        """What is to be done next: the task's phase.  Where that is settled (also held, for a later purchase), one that
        turned up afterwards is followed all the same, for it is paid (MON-9)."""
        state = self.state
        if state.phase in SETTLED and state.attempts and (phase := self.attempt.phase) in LIVE:
            return phase  # type: ignore[return-value]  # the names of the live phases are phases of a task too
        return state.phase

    def forget_result(self) -> None:
        """Drop what is known in memory of the attempt that ended, so that the next one starts clean."""
        self.url, self.data, self.fingerprint = "", b"", ""
        self.expires = float("inf")
        self.accepted_at, self.polls, self.hinted = 0.0, 0, False
        self.followed_at = self.unseen_at = self.refused_at = self.garbled_at = None

    def marker(self, ledger_id: str, attempt: int) -> int:
        """Return a number that the provider may show back: the same for the same attempt, 1 .. 2**31-1."""
        digest = hashlib.sha256(f"{ledger_id}/{self.batch}/{self.n}/{attempt}".encode()).digest()
        return int.from_bytes(digest[:4], "big") % 0x7FFFFFFF + 1

    def reference(self, ledger_id: str, attempt: int) -> str:
        """Return a reference of ours that a provider may be given: the same for the same attempt, and for no other.

        The salt tells tasks apart that two copies of a ledger imported under one number (REC-10).
        """
        return _reference(f"{ledger_id}/{self.batch}/{self.n}/{attempt}".encode() + self.salt)

    def early_reference(self, ledger_id: str, attempt: int) -> str:
        """Return the reference that versions before the salt gave."""
        return _reference(f"{ledger_id}/{self.batch}/{self.n}/{attempt}".encode())

    def given_reference(self, ledger_id: str) -> str:
        """Return the reference that the attempt which is followed was sent with."""
        return self.attempt.reference or self.early_reference(ledger_id, self.attempt.number)

    def body_digest(self, body: bytes) -> str:
        """Digest of a request body, salted so that an erased prompt cannot be guessed back from it (SEC-8)."""
        return hashlib.sha256(self.salt + body).hexdigest()[:32]


def _reference(named: bytes) -> str:
    return "bd-" + hashlib.sha256(named).hexdigest()[:32]


def load_work(reader: Reader, batch: int, n: int) -> Work:
    """Read one task with its request.

    Raises:
        TextErased: never for a task that may still be bought, followed or shared, only for a settled one.
    """
    state = reader.state(task_stream(batch, n))
    if state.queued is None:
        raise ValueError(f"task-{batch}-{n}: never queued")
    stored = reader.salted(state.queued.request.row)
    if stored is None:
        raise TextErased(f"task-{batch}-{n}: its request was erased")
    salt, text = stored
    return Work(batch, n, state, decode_request(text), salt)


class TaskLog:
    """Decides a command on a task's state, makes the events durable, then (and only then) evolves the state."""

    def __init__(self, journal: Journal, clock: Clock, *, max_attempts: int = 3) -> None:
        """``max_attempts`` bounds the failed attempts of a task before it fails."""
        self._journal = journal
        self._clock = clock
        self._max_attempts = max_attempts

    @property
    def epoch(self) -> int:
        return self._journal.epoch

    def text(self, text: str) -> tuple[PayloadRef, NewPayload]:
        """Prepare an erasable text for a command; hand the second part to :meth:`record`."""
        return self._journal.payload(text)

    async def record(
        self,
        work: Work,
        command: TaskCommand,
        *,
        guards: Callable[[int], Sequence[Guard]] = lambda at_us: (),
        payloads: Sequence[NewPayload] = (),
        beside: Sequence[Append] = (),
    ) -> Exceeded | None:
        """Append what the command adds; None when it is durable (or was already), else the guard that refused.

        Args:
            guards: what must hold, given the time that the events will carry.
            beside: appends to other streams that must become durable in the same commit.

        Raises:
            StreamConflict: somebody else wrote to the stream.
            CommandRejected: the command is illegal in this state.
            LedgerError: the ledger is unusable.
        """
        return await self.record_all([(work, command)], guards=guards, payloads=payloads, beside=beside)

    async def record_all(
        self,
        commands: Sequence[tuple[Work, TaskCommand]],
        *,
        guards: Callable[[int], Sequence[Guard]] = lambda at_us: (),
        payloads: Sequence[NewPayload] = (),
        beside: Sequence[Append] = (),
    ) -> Exceeded | None:
        """Like :meth:`record`, for several tasks: what is added becomes durable in one commit, or nothing does.

        Raises:
            Overtaken: the stream of one of them was written to by somebody else.
        """
        decided: list[tuple[Work, tuple[TaskEvent, ...]]] = []
        for work, command in commands:
            if isinstance(command, Record):
                command = msgspec.structs.replace(command, max_attempts=self._max_attempts)
            if events := decide_task(work.state, command):
                decided.append((work, events))
        if not decided:
            return None
        at_us = self._clock.now_us()
        own = [Append(task_stream(work.batch, work.n), work.state.version, events) for work, events in decided]
        outcome = await self._journal.append(
            Decision(appends=(*own, *beside), at_us=at_us, guards=tuple(guards(at_us)), payloads=tuple(payloads))
        )
        if isinstance(outcome, Exceeded):
            return outcome
        if isinstance(outcome, Conflict):
            clash = f"expected version {outcome.expected}, found {outcome.actual}"
            for (work, _), append in zip(decided, own, strict=True):
                if append.stream == outcome.stream:
                    raise Overtaken(work, f"{work!r}: {clash}")
            raise StreamConflict(f"{stream_label(outcome.stream)}: {clash}")
        for work, events in decided:
            for event in events:
                work.state = evolve_task(work.state, event, epoch=self._journal.epoch, at_us=at_us)
        return None
