"""What may happen to a task: ``decide_task(state, command) -> events``.

Pure.  A decision either adds facts, adds none because they are on record already (after a restart a repeated
command is normal), or is refused with :class:`~ledger.errors.CommandRejected`.

Two rules carry the money.  **MON-2**: a task has at most one attempt that is live or in doubt, and one more per
permission.  **Intend never answers "on record already"**: its caller would take that for leave to send, so a
second intent for the same purchase is always refused.
"""

from collections.abc import Sequence
from typing import assert_never

from msgspec.structs import replace

from ledger.commands import Cancel, Decide, Erase, Fail, Find, Intend, Record, Retry, Review, Share, TaskCommand
from ledger.errors import CommandRejected
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
from ledger.folds import ENDED, FOUND, LIVE, AttemptPhase, AttemptState, TaskState, evolve_task

# fact -> the phases of an attempt in which it may happen.  A late answer may still arrive for an attempt that
# was already called ambiguous; an attempt in a final phase never moves again.
LEGAL: dict[type, frozenset[AttemptPhase]] = {
    AttemptResent: frozenset({"intended", "ambiguous"}),
    AttemptNotSent: frozenset({"intended"}),
    AttemptRejected: frozenset({"intended", "ambiguous"}),
    AttemptAccepted: frozenset({"intended", "ambiguous"}),
    AttemptAmbiguous: frozenset({"intended"}),
    AttemptAdopted: frozenset({"ambiguous", "unknown"}),
    AttemptAbsent: frozenset({"ambiguous", "unknown"}),
    AttemptUnknown: frozenset({"ambiguous"}),
    # A synchronous provider answers with the image or the failure at once, without a job to accept.
    ResultReady: frozenset({"intended", "ambiguous", "accepted"}),
    AttemptFailed: frozenset({"intended", "ambiguous", "accepted", "ready"}),
    AttemptLost: frozenset({"accepted", "ready"}),
    TaskCompleted: frozenset({"ready"}),
    ResultSpared: frozenset({"ready"}),
}

# fact -> phases which show that it is on record already.
_ON_RECORD: dict[type, frozenset[AttemptPhase]] = {
    AttemptNotSent: frozenset({"not_sent"}),
    AttemptRejected: frozenset({"rejected"}),
    AttemptAccepted: frozenset({"accepted", "ready", "done", "surplus", "lost", "failed"}),
    AttemptAmbiguous: frozenset({"ambiguous", "unknown"}),
    AttemptAdopted: frozenset({"accepted", "ready", "done", "surplus", "lost", "failed"}),
    AttemptAbsent: frozenset({"absent"}),
    AttemptUnknown: frozenset({"unknown"}),
    ResultReady: frozenset({"ready", "done", "surplus", "lost"}),
    AttemptFailed: frozenset({"failed"}),
    AttemptLost: frozenset({"lost"}),
    TaskCompleted: frozenset({"done", "surplus"}),
    ResultSpared: frozenset({"done", "surplus"}),
}


def decide_task(state: TaskState, command: TaskCommand) -> tuple[TaskEvent, ...]:
    """Return the facts that ``command`` adds; none if they are on record already.

    Raises:
        CommandRejected: the state of the task does not allow it.
    """
    if state.queued is None:
        raise CommandRejected("the task was never queued")
    match command:
        case Intend():
            return _intend(state, command)
        case Find():
            return _find(state, command)
        case Record():
            return _record(state, command)
        case Cancel():
            return _cancel(state, command)
        case Retry():
            return _retry(state, command)
        case Decide():
            return _decide(state, command)
        case Share():
            return _share(state, command)
        case Fail():
            return _fail(state, command)
        case Review():
            return _review(state, command)
        case Erase():
            return _erase(state, command)
        case _:
            assert_never(command)


def breach(state: TaskState, event: TaskEvent) -> str:
    """Say what is illegal about ``event`` happening in ``state``, empty if nothing is.

    The same rules as those of the decisions, read from the events: the audit holds them against history.
    """
    legal = LEGAL.get(type(event))
    if legal is not None:
        number: int = event.attempt  # type: ignore[union-attr]  # every event named in LEGAL has it
        attempt = state.attempt(number)
        if attempt is None:
            return f"there is no attempt {number}"
        if attempt.phase not in legal:
            return f"attempt {number} is {attempt.phase}"
        if type(event) is TaskCompleted and (state.filled or event.version != state.slot):
            return f"image version {event.version} while version {state.slot} is wanted"
        # An open attempt needs its text, to be bought, found again or fetched: an erased task never has one again.
        return "its texts were erased" if state.erased and type(event) is AttemptAdopted else ""
    if type(event) is AttemptIntended:
        return _intent_breach(state, event)
    if type(event) is TaskQueued:
        return "queued twice" if state.queued is not None else ""
    match event:
        case TaskFailed() | TaskCancelled() | TaskShared():
            return "" if state.phase == "queued" else f"the task is {state.phase}"
        case CancelAsked():
            return "" if state.phase in LIVE else f"the task is {state.phase}"
        case TaskRetried():
            if state.erased:
                return "its texts were erased"
            return "" if state.phase in ("succeeded", "failed", "cancelled") else f"the task is {state.phase}"
        case TaskErased():
            return _erasure_breach(state)
        case OperatorDecided(attempt=number):
            attempt = state.attempt(number)
            return "" if attempt is not None and attempt.phase == "unknown" else f"attempt {number} is not in doubt"
        case ResultReviewed(version=version):
            known = any(result.version == version for result in state.results)
            return "" if known else f"there is no image version {version}"
    return ""


def _intent_breach(state: TaskState, event: AttemptIntended) -> str:
    if event.route == FOUND and state.phase in ENDED:
        return _found_breach(state, event)
    if state.queued is None or state.phase != "queued":
        return f"bought while {state.phase}" if state.queued is not None else "bought before it was queued"
    if event.attempt != len(state.attempts) + 1:
        return f"attempt {event.attempt} follows attempt {len(state.attempts)}"
    if event.permission != (state.open_permission if state.doubted else 0) or (state.doubted and not event.permission):
        return "bought beside a doubtful attempt without leave (MON-2)"
    return ""


def _found_breach(state: TaskState, event: AttemptIntended) -> str:
    """What another copy bought needs no leave here: nothing is bought by putting it on record."""
    if state.erased:
        return "its texts were erased"
    return "" if event.attempt == len(state.attempts) + 1 and not event.permission else "is no next purchase"


def _erasure_breach(state: TaskState) -> str:
    for attempt in state.attempts:
        if attempt.phase in LIVE or attempt.doubtful:
            return f"attempt {attempt.number} is {attempt.phase}: its texts are still needed"
    return "" if state.settled else f"the task is {state.phase}"


def _refuse(state: TaskState, what: str) -> CommandRejected:
    name = state.queued.id if state.queued else "a task"
    return CommandRejected(f"{name}: {what} while it is {state.phase}")


def _attempt(state: TaskState, number: int) -> AttemptState:
    attempt = state.attempt(number)
    if attempt is None:
        raise _refuse(state, f"no attempt {number}")
    return attempt


def _intend(state: TaskState, command: Intend) -> tuple[TaskEvent, ...]:
    leave: tuple[OperatorDecided, ...] = ()
    if command.beside and state.phase == "held":
        leave = _decided(state, "buy_again", command.beside)
        state = _after(state, leave)
    if state.phase != "queued" or state.owner or state.filled:
        raise _refuse(state, "cannot be bought")
    permission = 0
    if state.doubted:
        permission = state.open_permission
        if not permission:
            raise _refuse(state, "an earlier attempt is in doubt and no permission is open: cannot be bought")
    return (*leave, _intent(state, command, permission=permission))


def _intent(state: TaskState, command: Intend, *, permission: int) -> AttemptIntended:
    return AttemptIntended(
        attempt=len(state.attempts) + 1,
        account=command.account,
        provider=command.provider,
        lane=command.lane,
        route=command.route,
        ceiling_microusd=command.ceiling_microusd,
        body_digest=command.body_digest,
        deadline_us=command.deadline_us,
        permission=permission,
        callback=command.callback,
        uploads=command.uploads,
        file=command.file,
        reference=command.reference,
    )


def _find(state: TaskState, command: Find) -> tuple[TaskEvent, ...]:
    if any(attempt.job == command.job for attempt in state.attempts):
        return ()
    adopted = AttemptAdopted(attempt=len(state.attempts) + 1, job=command.job, evidence=command.evidence)
    if state.phase not in ENDED:
        events = _intend(state, command.intend)
    elif state.erased:
        raise _refuse(state, "its texts were erased: nothing can be adopted")
    else:
        theirs = (each for each in state.attempts if each.phase == "unknown" and each.account == command.intend.account)
        if doubt := next(theirs, None):
            return (replace(adopted, attempt=doubt.number),)
        events = (_intent(state, replace(command.intend, route=FOUND), permission=0),)
    # All of it in one decision: there is no moment at which the purchase is in doubt.
    return (*events, AttemptAmbiguous(attempt=adopted.attempt, reason="crash"), adopted)


def _record(state: TaskState, command: Record) -> tuple[TaskEvent, ...]:
    fact = command.fact
    legal = LEGAL.get(type(fact))
    if legal is None:
        raise _refuse(state, f"{fact.TYPE} is no fact about an attempt")
    if isinstance(fact, AttemptAdopted) and state.erased:
        raise _refuse(state, "its texts were erased: nothing can be adopted")
    number: int = fact.attempt  # type: ignore[union-attr]  # every event named in LEGAL has it
    attempt = _attempt(state, number)
    if attempt.phase not in legal:
        if attempt.phase in _ON_RECORD.get(type(fact), ()) and _same_job(attempt, fact):
            return ()
        raise _refuse(state, f"{fact.TYPE} for attempt {number}, which is {attempt.phase},")
    if isinstance(fact, TaskCompleted):
        if state.filled:
            # A later result never replaces the one that is there (RES-3); it is paid, so it is kept (MON-9).
            return (
                ResultSpared(
                    attempt=number,
                    sha256=fact.sha256,
                    size=fact.size,
                    media_type=fact.media_type,
                    cost_microusd=fact.cost_microusd,
                ),
            )
        return (replace(fact, version=state.slot),)
    return (fact, *_follow_ups(state, command, fact))


def _same_job(attempt: AttemptState, fact: TaskEvent) -> bool:
    if isinstance(fact, AttemptAccepted | AttemptAdopted):
        return attempt.job == fact.job
    return True


def _follow_ups(state: TaskState, command: Record, fact: TaskEvent) -> tuple[TaskEvent, ...]:
    """What an ended attempt means for its task, when no other attempt is under way for it."""
    after = evolve_task(state, fact, epoch=0, at_us=0)
    if after.phase != "queued":
        return ()
    if isinstance(fact, AttemptLost):
        return (TaskFailed(reason="lost"),)
    if state.cancel_asked:
        return (TaskCancelled(operator=state.cancel_operator),)
    match fact:
        case AttemptRejected(reason="invalid", detail=detail):
            return (TaskFailed(reason="rejected", detail=detail),)
        case AttemptRejected(reason="policy", detail=detail) | AttemptFailed(reason="policy", detail=detail):
            return (TaskFailed(reason="policy", detail=detail),)
        case AttemptFailed(detail=detail):
            if not command.retryable:
                return (TaskFailed(reason="failed_for_good", detail=detail),)
            if after.failures >= command.max_attempts:
                return (TaskFailed(reason="attempts_exhausted", detail=detail),)
    return ()


def _cancel(state: TaskState, command: Cancel) -> tuple[TaskEvent, ...]:
    match state.phase:
        case "queued":
            return (TaskCancelled(operator=command.operator),)
        case "held":
            # Whoever cancels a held task gives its doubtful purchase up: that ends the money at risk.
            given_up = _decided(state, "give_up", command.operator)
            if _after(state, given_up).phase == "queued":
                return (*given_up, TaskCancelled(operator=command.operator))
            # An earlier purchase that turned up is under way beside it.
            return (*given_up, *(() if state.cancel_asked else (CancelAsked(operator=command.operator),)))
        case "intended" | "ambiguous" | "accepted" | "ready":
            return () if state.cancel_asked else (CancelAsked(operator=command.operator),)
        case "succeeded" | "failed" | "cancelled":
            return ()
        case _:
            assert_never(state.phase)


def _retry(state: TaskState, command: Retry) -> tuple[TaskEvent, ...]:
    if state.erased:
        raise _refuse(state, "its texts were erased: it cannot be bought again")
    match state.phase:
        case "failed" | "cancelled":
            slot = state.slot + 1 if state.filled else state.slot
        case "succeeded":
            if state.current is None or state.current.verdict != "rejected":
                raise _refuse(state, "its image was not rejected, cannot be bought again")
            slot = state.slot + 1
        case "held":
            raise _refuse(state, "an attempt is in doubt and must be resolved first: cannot be retried")
        case _:
            return ()
    # An attempt may have fallen in doubt after the task was settled; retrying is leave to buy beside it.
    return (
        *_decided(state, "buy_again", command.operator),
        TaskRetried(operator=command.operator, version=slot),
    )


def _after(state: TaskState, events: Sequence[TaskEvent]) -> TaskState:
    """The state as these events will leave it."""
    for event in events:
        state = evolve_task(state, event, epoch=0, at_us=0)
    return state


def _decided(state: TaskState, decision: str, operator: str) -> tuple[OperatorDecided, ...]:
    return tuple(
        OperatorDecided(
            attempt=attempt.number,
            decision="give_up" if decision == "give_up" else "buy_again",
            operator=operator,
        )
        for attempt in state.attempts
        if attempt.doubtful
    )


def _decide(state: TaskState, command: Decide) -> tuple[TaskEvent, ...]:
    attempt = _attempt(state, command.attempt)
    if attempt.phase != "unknown":
        if attempt.decided == command.decision and attempt.job == command.job:
            return ()
        raise _refuse(state, f"attempt {attempt.number} is {attempt.phase}, nothing to decide")
    if attempt.decided and command.decision != "adopt":
        if attempt.decided == command.decision:
            return ()
        raise _refuse(state, f"attempt {attempt.number} was decided already ({attempt.decided})")
    decided = OperatorDecided(
        attempt=attempt.number, decision=command.decision, operator=command.operator, job=command.job
    )
    match command.decision:
        case "buy_again":
            if state.phase != "held":
                raise _refuse(state, "nothing to buy again")
            return (decided,)
        case "give_up":
            # An earlier purchase may have turned up, and be under way: then what comes of that settles the task.
            over = state.phase == "held" and _after(state, (decided,)).phase == "queued"
            return (decided, *((TaskFailed(reason="given_up"),) if over else ()))
        case "adopt":
            if state.erased:
                raise _refuse(state, "its texts were erased: nothing can be adopted")
            if not command.job:
                raise _refuse(state, "adopting needs the provider's job id; it was not given")
            return (
                decided,
                AttemptAdopted(attempt=attempt.number, job=command.job, evidence="operator"),
            )
        case _:
            assert_never(command.decision)


def _share(state: TaskState, command: Share) -> tuple[TaskEvent, ...]:
    if not state.owner or state.owner != command.owner:
        raise _refuse(state, f"does not follow task {command.owner}")
    if state.phase != "queued":
        current = state.current
        if state.phase == "succeeded" and current is not None and current.sha256 == command.sha256:
            return ()
        raise _refuse(state, "cannot take over a shared image")
    shared = TaskShared(
        owner=command.owner,
        version=state.slot,
        sha256=command.sha256,
        size=command.size,
        media_type=command.media_type,
        width=command.width,
        height=command.height,
        flags=command.flags,
    )
    return (shared,)


def _fail(state: TaskState, command: Fail) -> tuple[TaskEvent, ...]:
    match state.phase:
        case "queued":
            return (TaskFailed(reason=command.reason, detail=command.detail),)
        case "failed":
            if state.reason == command.reason:
                return ()
    raise _refuse(state, f"cannot be failed ({command.reason})")


def _erase(state: TaskState, command: Erase) -> tuple[TaskEvent, ...]:
    if state.erased and not command.texts and (state.files_erased or not command.files):
        return ()
    # What was never bought cannot be bought without its text.
    cancelled = (TaskCancelled(operator=command.operator),) if state.phase == "queued" else ()
    wrong = _erasure_breach(_after(state, cancelled))
    if wrong:
        raise _refuse(state, f"{wrong}, cannot be erased")
    return (*cancelled, TaskErased(operator=command.operator, files=command.files))


def _review(state: TaskState, command: Review) -> tuple[TaskEvent, ...]:
    result = next((entry for entry in state.results if entry.version == command.version), None)
    if result is None:
        raise _refuse(state, f"has no image version {command.version}")
    if result.verdict == command.verdict and result.note == command.note:
        return ()
    reviewed = ResultReviewed(
        version=command.version, verdict=command.verdict, operator=command.operator, note=command.note
    )
    return (reviewed,)
