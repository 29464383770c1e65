"""What the events say: the state of a task, folded from its stream.

``evolve_task`` is total: history happened, so it is never refused and never raises, however odd the order of
events.  Which events may be *added* is decided in :mod:`ledger.rules`.  No clock, no I/O, no randomness.

An attempt walks

    intended -> accepted -> ready -> done

and leaves by ``not_sent``, ``rejected``, ``failed``, ``ambiguous -> accepted (adopted) | absent | unknown``,
``surplus`` (paid, not needed) and ``lost`` (paid, result gone).  ``unknown`` waits for evidence or for a person;
``decided`` says what the person said.

The phase of a task that is not settled follows from its attempts: it is that of the newest attempt that is
live or undecided (``unknown`` shows as ``held``), and ``queued`` when there is none.  A settled phase
(``succeeded``, ``failed``, ``cancelled``) stays until the task is retried, or until a paid image arrives
after all (MON-9).

The folds of batches, accounts and the runtime live in :mod:`ledger.batch_fold` and
:mod:`ledger.account_fold` and are named here too.
"""

from typing import Literal, TypeAlias, assert_never

import msgspec
from msgspec.structs import replace

from ledger.account_fold import EMPTY_ACCOUNT as EMPTY_ACCOUNT
from ledger.account_fold import EMPTY_RUNTIME as EMPTY_RUNTIME
from ledger.account_fold import AccountState as AccountState
from ledger.account_fold import LaneState as LaneState
from ledger.account_fold import Place as Place
from ledger.account_fold import RuntimeState as RuntimeState
from ledger.account_fold import evolve_account as evolve_account
from ledger.account_fold import evolve_runtime as evolve_runtime
from ledger.batch_fold import EMPTY_BATCH as EMPTY_BATCH
from ledger.batch_fold import BatchSettings as BatchSettings
from ledger.batch_fold import BatchState as BatchState
from ledger.batch_fold import ImportState as ImportState
from ledger.batch_fold import evolve_batch as evolve_batch
from ledger.events import (
    AttemptAbsent,
    AttemptAccepted,
    AttemptAdopted,
    AttemptAmbiguous,
    AttemptFailed,
    AttemptIntended,
    AttemptLost,
    AttemptNotSent,
    AttemptRejected,
    AttemptResent,
    AttemptUnknown,
    CancelAsked,
    OperatorDecided,
    PayloadRef,
    ResultReady,
    ResultReviewed,
    ResultSpared,
    TaskCancelled,
    TaskCompleted,
    TaskErased,
    TaskEvent,
    TaskFailed,
    TaskQueued,
    TaskRetried,
    TaskShared,
)

AttemptPhase = Literal[
    "intended",
    "accepted",
    "ready",
    "done",
    "not_sent",
    "rejected",
    "failed",
    "ambiguous",
    "unknown",
    "absent",
    "surplus",
    "lost",
]
LivePhase = Literal["intended", "ambiguous", "accepted", "ready"]
TaskPhase = Literal["queued", "intended", "ambiguous", "accepted", "ready", "held", "succeeded", "failed", "cancelled"]

LIVE: frozenset[AttemptPhase] = frozenset({"intended", "ambiguous", "accepted", "ready"})
"""An attempt in one of these is followed by the runtime."""
UNPAID: frozenset[AttemptPhase] = frozenset({"not_sent", "rejected", "absent"})
"""An attempt that ended in one of these cost nothing, and does not count as a try."""
SETTLED: frozenset[TaskPhase] = frozenset({"succeeded", "failed", "held", "cancelled"})
"""A run has nothing left to do for such a task."""


ENDED: frozenset[TaskPhase] = frozenset({"succeeded", "failed", "cancelled"})
"""Such a phase stays whatever becomes of attempts; ``held`` alone follows from them."""
FOUND = "found"
"""The route of what another copy of the ledger bought for a task that is settled here: no byte is sent for it."""


class AttemptState(msgspec.Struct, frozen=True, gc=False):
    """One possible purchase.  ``epoch`` is that of its latest send; ``reason`` says why it left the good path."""

    number: int
    account: str
    provider: str
    lane: str
    epoch: int
    phase: AttemptPhase
    ceiling_microusd: int
    intended_at_us: int
    deadline_us: int
    body_digest: str
    permission: int
    job: str = ""
    url: PayloadRef | None = None
    cost_microusd: int | None = None
    expires_at_us: int = 0
    model_version: str = ""
    adopted_by: str = ""
    decided: str = ""
    reason: str = ""
    route: str = ""
    callback: bool = False
    uploads: tuple[PayloadRef, ...] = ()
    file: str = ""
    reference: str = ""

    @property
    def doubtful(self) -> bool:
        """Unknown, and nobody has decided yet: the money is at risk and the task is held."""
        return self.phase == "unknown" and not self.decided


class ResultState(msgspec.Struct, frozen=True, gc=False):
    """One version of the image.  ``attempt`` 0 means that it was shared by the task ``owner``."""

    version: int
    attempt: int
    sha256: str
    size: int
    media_type: str
    width: int
    height: int
    cost_microusd: int = 0
    flags: tuple[str, ...] = ()
    model_version: str = ""
    owner: int = 0
    verdict: Literal["", "accepted", "rejected"] = ""
    note: PayloadRef | None = None


class TaskState(msgspec.Struct, frozen=True, gc=False):
    """A task as its events tell it.

    ``slot`` is the result version that the next purchase fills.  ``owner`` is the task whose purchase this one
    follows, 0 when it buys for itself; a follower whose shared image was rejected buys the next version itself.
    ``failures`` counts failed attempts since the task was queued or retried.  ``permissions`` counts the leaves
    to buy beside a doubtful attempt (MON-2).  ``erased``: its texts are gone; ``files_erased``: its images too.
    """

    version: int = 0
    phase: TaskPhase = "queued"
    queued: TaskQueued | None = None
    attempts: tuple[AttemptState, ...] = ()
    results: tuple[ResultState, ...] = ()
    slot: int = 1
    permissions: int = 0
    cancel_asked: bool = False
    cancel_operator: str = ""
    reason: str = ""
    owner: int = 0
    failures: int = 0
    erased: bool = False
    files_erased: bool = False

    @property
    def settled(self) -> bool:
        return self.phase in SETTLED

    @property
    def filled(self) -> bool:
        """Whether the open slot has its image already (RES-3)."""
        return any(result.version == self.slot for result in self.results)

    @property
    def current(self) -> ResultState | None:
        """The newest version of the image."""
        return self.results[-1] if self.results else None

    @property
    def doubted(self) -> bool:
        """Whether some attempt may have been bought without our knowing."""
        return any(attempt.phase == "unknown" for attempt in self.attempts)

    @property
    def permissions_used(self) -> int:
        """Permissions whose purchase is under way or was paid; one that ended unpaid or failed is free again."""
        return len(_permissions_taken(self.attempts))

    @property
    def open_permission(self) -> int:
        """The lowest permission that is free, 0 if there is none."""
        taken = _permissions_taken(self.attempts)
        return next((n for n in range(1, self.permissions + 1) if n not in taken), 0)

    def attempt(self, number: int) -> AttemptState | None:
        """Return attempt ``number`` (they count from 1), None when there is none."""
        if 1 <= number <= len(self.attempts):
            return self.attempts[number - 1]
        return None


EMPTY_TASK = TaskState()


def evolve_task(state: TaskState, event: TaskEvent, *, epoch: int, at_us: int) -> TaskState:
    """Apply one fact.  Total: an event about an attempt that is not there changes only the version."""
    # The five events of a task that goes well are told by identity of type: a `case` that does not match costs more
    # than the fold itself, because isinstance() of a class with a metaclass (msgspec's) takes the slow way.
    if type(event) is AttemptAccepted:
        was = _at(state.attempts, event.attempt)
        return _put(state, was and replace(was, phase="accepted", job=event.job))
    if type(event) is ResultReady:
        return _ready(state, event)
    if type(event) is TaskCompleted:
        return _completed(state, event)
    if type(event) is AttemptIntended:
        return _intended(state, event, epoch, at_us)
    if type(event) is TaskQueued:
        return replace(state, version=state.version + 1, phase="queued", queued=event, owner=event.owner)
    return _evolve_rare(state, event, epoch)


def _intended(state: TaskState, event: AttemptIntended, epoch: int, at_us: int) -> TaskState:
    attempt = AttemptState(
        len(state.attempts) + 1,  # its place; a legal intent says the same
        event.account,
        event.provider,
        event.lane,
        epoch,
        "intended",
        event.ceiling_microusd,
        at_us,
        event.deadline_us,
        event.body_digest,
        event.permission,
        route=event.route,
        callback=event.callback,
        uploads=event.uploads,
        file=event.file,
        reference=event.reference,
    )
    phase: TaskPhase = state.phase if state.phase in ENDED else "intended"
    return replace(state, version=state.version + 1, phase=phase, attempts=(*state.attempts, attempt))


_RareEvent: TypeAlias = (
    AttemptResent
    | AttemptNotSent
    | AttemptRejected
    | AttemptAmbiguous
    | AttemptAdopted
    | AttemptAbsent
    | AttemptUnknown
    | AttemptFailed
    | AttemptLost
    | ResultSpared
    | TaskShared
    | TaskFailed
    | TaskCancelled
    | CancelAsked
    | TaskRetried
    | OperatorDecided
    | ResultReviewed
    | TaskErased
)


def _evolve_rare(state: TaskState, event: _RareEvent, epoch: int) -> TaskState:
    version = state.version + 1
    match event:
        case AttemptResent(attempt=n):
            return _with(state, n, phase="intended", epoch=epoch)
        case AttemptNotSent(attempt=n, reason=reason):
            return _with(state, n, phase="not_sent", reason=reason)
        case AttemptRejected(attempt=n, reason=reason):
            return _with(state, n, phase="rejected", reason=reason)
        case AttemptAmbiguous(attempt=n, reason=reason):
            return _with(state, n, phase="ambiguous", reason=reason)
        case AttemptAdopted(attempt=n, job=job, evidence=evidence):
            return _with(state, n, phase="accepted", job=job, adopted_by=evidence)
        case AttemptAbsent(attempt=n, evidence=evidence):
            return _with(state, n, phase="absent", reason=evidence)
        case AttemptUnknown(attempt=n, reason=reason):
            return _with(state, n, phase="unknown", reason=reason)
        case AttemptFailed(attempt=n, reason=reason, cost_microusd=cost):
            after = _with(state, n, phase="failed", reason=reason, cost_microusd=cost)
            return replace(after, failures=state.failures + 1)
        case AttemptLost(attempt=n, reason=reason, cost_microusd=cost):
            return _with(state, n, phase="lost", reason=reason, cost_microusd=cost)
        case ResultSpared(attempt=n, cost_microusd=cost):
            return _with(state, n, phase="surplus", cost_microusd=cost)
        case OperatorDecided(attempt=n, decision=decision):
            after = _with(state, n, decided=decision)
            return replace(after, permissions=state.permissions + (decision == "buy_again"))
        case TaskShared():
            return _shared(state, event)
        case TaskFailed(reason=reason):
            return replace(state, version=version, phase="failed", reason=reason)
        case TaskCancelled(operator=operator):
            return replace(state, version=version, phase="cancelled", cancel_operator=operator)
        case CancelAsked(operator=operator):
            return replace(state, version=version, cancel_asked=True, cancel_operator=operator)
        case TaskRetried():
            return _retried(state, event)
        case ResultReviewed(version=reviewed, verdict=verdict, note=note):
            results = tuple(
                replace(result, verdict=verdict, note=note) if result.version == reviewed else result
                for result in state.results
            )
            return replace(state, version=version, results=results)
        case TaskErased(files=files):
            return replace(state, version=version, erased=True, files_erased=files or state.files_erased)
        case _:
            assert_never(event)


def _open_phase(attempts: tuple[AttemptState, ...]) -> TaskPhase:
    """The phase of an unsettled task, from its newest attempt that is live or undecided."""
    for attempt in reversed(attempts):
        phase = attempt.phase
        if phase in LIVE:
            # The names of the live phases are phases of a task too; mypy cannot narrow by set membership.
            return phase  # type: ignore[return-value]
        if phase == "unknown" and not attempt.decided:
            return "held"
    return "queued"


def _at(attempts: tuple[AttemptState, ...], number: int) -> AttemptState | None:
    return attempts[number - 1] if 1 <= number <= len(attempts) else None


def _put(state: TaskState, changed: AttemptState | None) -> TaskState:
    """Put a changed attempt in its place, and with it the phase of the task."""
    attempts = _placed(state.attempts, changed)
    phase = state.phase
    if phase not in ENDED:
        phase = _open_phase(attempts)
    return replace(state, version=state.version + 1, phase=phase, attempts=attempts)


def _placed(attempts: tuple[AttemptState, ...], changed: AttemptState | None) -> tuple[AttemptState, ...]:
    if changed is None:
        return attempts
    if len(attempts) == 1:  # nearly always
        return (changed,)
    number = changed.number
    return (*attempts[: number - 1], changed, *attempts[number:])


def _with(state: TaskState, number: int, **changes: object) -> TaskState:
    """The same for what is rare enough to be written shortly."""
    was = _at(state.attempts, number)
    return _put(state, was and replace(was, **changes))


def _ready(state: TaskState, event: ResultReady) -> TaskState:
    was = _at(state.attempts, event.attempt)
    changed = was and replace(
        was,
        phase="ready",
        url=event.url,
        cost_microusd=event.cost_microusd,
        expires_at_us=event.expires_at_us,
        model_version=event.model_version,
    )
    return _put(state, changed)


def _completed(state: TaskState, event: TaskCompleted) -> TaskState:
    result = ResultState(
        event.version,
        event.attempt,
        event.sha256,
        event.size,
        event.media_type,
        event.width,
        event.height,
        event.cost_microusd,
        event.flags,
        event.model_version,
    )
    was = _at(state.attempts, event.attempt)
    return replace(
        state,
        version=state.version + 1,
        phase="succeeded",
        reason="",
        attempts=_placed(state.attempts, was and replace(was, phase="done", cost_microusd=event.cost_microusd)),
        results=(*state.results, result),
    )


def _shared(state: TaskState, event: TaskShared) -> TaskState:
    result = ResultState(
        event.version,
        0,
        event.sha256,
        event.size,
        event.media_type,
        event.width,
        event.height,
        flags=event.flags,
        owner=event.owner,
    )
    return replace(state, version=state.version + 1, phase="succeeded", reason="", results=(*state.results, result))


def _retried(state: TaskState, event: TaskRetried) -> TaskState:
    """Open the slot again.  A retry beside a doubtful attempt is leave to buy there, unless one is open."""
    phase = _open_phase(state.attempts)
    leave = phase == "queued" and state.doubted and not state.open_permission
    return replace(
        state,
        version=state.version + 1,
        phase=phase,
        slot=event.version,
        permissions=state.permissions + leave,
        cancel_asked=False,
        cancel_operator="",
        reason="",
        owner=state.owner if event.version == 1 else 0,
        failures=0,
    )


def _permissions_taken(attempts: tuple[AttemptState, ...]) -> frozenset[int]:
    return frozenset(
        attempt.permission
        for attempt in attempts
        if attempt.permission and attempt.phase not in UNPAID and attempt.phase != "failed"
    )
