"""The submit gateway: the only place from which a paid request leaves.

Order: record the intent (with its guards), act, record the outcome.  The three steps run in the gateway's own
nursery, shielded with a bounded grace, so that neither a crashing account actor nor a shutdown can cut a submit
off between the send and its record.  One intent is at most one request on the wire: no retry, no redirect
(MON-1, MON-5).
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TypeAlias, TypeVar, assert_never

import msgspec
import trio

from adapters.base import (
    Accepted,
    Failed,
    Finished,
    HttpCall,
    HttpReply,
    ImageRequest,
    Lists,
    LooksUp,
    MalformedReply,
    Refused,
    SubmitOutcome,
    Throttled,
    Unclear,
)
from ledger.commands import Fail, Intend, Record
from ledger.decisions import Exceeded, Guard, NewPayload
from ledger.errors import CommandRejected
from ledger.events import (
    AmbiguousReason,
    AttemptAccepted,
    AttemptAmbiguous,
    AttemptNotSent,
    AttemptRejected,
    PayloadRef,
    TaskEvent,
    TaskFailReason,
)
from runtime import faults
from runtime.accounts import Account
from runtime.bytebudget import ByteBudget
from runtime.callbacks import Addresses, without_token
from runtime.delivery import record_failed, record_ready
from runtime.ports import Clock, DiskFailed, DiskFull, Wire, WireError
from runtime.references import Resolution, Resolved, Unresolved
from runtime.spool import Spool
from runtime.trust import Disbelieved, Trust, assume, weigh
from runtime.work import StreamConflict, TaskLog, Work

_log = logging.getLogger(__name__)

T = TypeVar("T")

_KEPT_REPLY = 2000  # characters of an odd reply that are kept for dispute
_REPLY_MEMORY = 512 << 20  # bytes that large replies may fill at one time (SEC-9)
_SMALL_REPLY = 8 << 20
_ENDS: dict[str, TaskFailReason] = {"input_changed": "input_changed", "refused": "rejected"}


class NotSent(msgspec.Struct, frozen=True):
    """The connection failed before the first byte."""

    reason: str


class Superseded(msgspec.Struct, frozen=True):
    """Nothing was intended: the task changed before (an operator cancelled it), or the gateway is stopping."""


SubmitResult: TypeAlias = SubmitOutcome | Disbelieved | NotSent | Superseded | Exceeded | Unresolved


async def as_it_is(request: ImageRequest, held: AsyncExitStack) -> Resolution:
    """Resolve a request that needs nothing."""
    return Resolved(request)


class Submission(msgspec.Struct, frozen=True):
    """One purchase to make.  ``done`` is called once, in the gateway, after the outcome is durable."""

    work: Work
    account: Account
    lane: str
    route: str
    ceiling_microusd: int
    guards: Callable[[int], Sequence[Guard]]  # by the time of the intent, which decides its day
    done: Callable[["Submission", SubmitResult], None]
    resolve: Callable[[ImageRequest, AsyncExitStack], Awaitable[Resolution]] = as_it_is
    beside: str = ""  # who allows it although an earlier attempt is in doubt


class Gateway:
    def __init__(
        self,
        log: TaskLog,
        wire: Wire,
        clock: Clock,
        ledger_id: str,
        spool: Spool,
        *,
        addresses: Addresses | None = None,
        trust: Callable[[int], Trust] = assume,
    ) -> None:
        """``addresses``: where providers that can shall call back; None = nowhere.  ``trust`` gives, for a batch,
        how sure a fact must be, see :mod:`runtime.trust`."""
        self._log = log
        self._wire = wire
        self._clock = clock
        self._ledger_id = ledger_id
        self._spool = spool
        self._addresses = addresses
        self._trust = trust
        self._memory = ByteBudget(_REPLY_MEMORY)
        self._nursery: trio.Nursery | None = None
        self._exchanges: set[trio.CancelScope] = set()
        self._resolving: set[trio.CancelScope] = set()
        self._stopping = False
        self.open = 0

    def __repr__(self) -> str:
        return f"<Gateway open={self.open}>"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Host the submits until cancelled; those under way still end with a record, within their grace."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self.stop()  # the submits below are shielded: those not begun must not begin now

    def start(self, submission: Submission) -> None:
        """Begin a purchase; the answer comes through ``submission.done``."""
        assert self._nursery is not None, "the gateway is not running"
        self.open += 1
        self._nursery.start_soon(self._submit, submission)

    def host(self, purchase: Callable[[], Awaitable[None]]) -> None:
        """Begin a purchase of another form (a whole file): it records its intents, calls :meth:`exchange` once, and
        records what came of it, protected like every other one."""
        assert self._nursery is not None, "the gateway is not running"
        self.open += 1
        self._nursery.start_soon(self._hosted, purchase)

    @property
    def stopping(self) -> bool:
        """Whether nothing may be sent any more."""
        return self._stopping

    def stop(self) -> None:
        """Send nothing more; what was sent still gets its record (LIVE-5)."""
        self._stopping = True
        for scope in self._resolving:
            scope.cancel()

    def hurry(self, grace_s: float) -> None:
        """Stop, and give every exchange under way ``grace_s`` more; what is unanswered then is recorded as doubtful."""
        self.stop()
        for scope in self._exchanges:
            scope.deadline = min(scope.deadline, self._clock.monotonic() + grace_s)

    async def _submit(self, submission: Submission) -> None:
        try:
            # Bounded: the exchange by its own timeout (or hurry), the two records by the disk.
            with trio.CancelScope(shield=True):
                result = await self._buy(submission)
        finally:
            self.open -= 1
        submission.done(submission, result)

    async def _hosted(self, purchase: Callable[[], Awaitable[None]]) -> None:
        try:
            with trio.CancelScope(shield=True):
                await purchase()
        finally:
            self.open -= 1

    async def _buy(self, submission: Submission) -> SubmitResult:
        work, account = submission.work, submission.account
        if self._stopping:
            return Superseded()
        work.forget_result()  # of an earlier attempt
        codec = account.codec
        number = len(work.state.attempts) + 1
        callback_url = ""
        if self._addresses is not None and account.calls_back:
            callback_url = self._addresses.url(account.name, work.batch, work.n, number)
        ctx = account.context(
            marker=work.marker(self._ledger_id, number),
            reference=work.reference(self._ledger_id, number),
            callback_url=callback_url,
        )
        async with AsyncExitStack() as held:
            resolution = await self.resolve(submission, held)
            if not isinstance(resolution, Resolved):
                return resolution
            call = codec.build_submit(resolution.request, ctx)
            if isinstance(codec, Lists) and resolution.request is not work.request:
                work.fingerprint = codec.fingerprint(resolution.request, ctx)
            large = call.max_reply_bytes if call.max_reply_bytes > _SMALL_REPLY else 0
            await held.enter_async_context(self._memory.hold(large))
            return await self._intend_and_send(submission, call, number, callback_url, resolution.uploads)

    async def resolve(self, submission: Submission, held: AsyncExitStack) -> Resolution | Superseded:
        """Get local references ready.  Nothing is intended yet, so a stop cuts it short; what ends the task is
        recorded."""
        work = submission.work
        resolution: Resolution | None = None
        with trio.CancelScope() as scope:
            self._resolving.add(scope)
            try:
                resolution = await submission.resolve(work.request, held)
            finally:
                self._resolving.discard(scope)
        if resolution is None or self._stopping:
            return Superseded()
        if isinstance(resolution, Unresolved) and (reason := _ENDS.get(resolution.reason)) is not None:
            _log.warning("%r: %s", work, resolution.detail)
            ref, payload = self._log.text(resolution.detail)
            try:
                await self._log.record(work, Fail(reason=reason, detail=ref), payloads=[payload])
            except (StreamConflict, CommandRejected):  # cancelled meanwhile; or held, and then it stays so
                return Superseded()
        return resolution

    async def _intend_and_send(
        self,
        submission: Submission,
        call: HttpCall,
        number: int,
        callback_url: str,
        uploads: tuple[PayloadRef, ...],
    ) -> SubmitResult:
        work, account = submission.work, submission.account
        codec = account.codec
        faults.point("before_intent")
        intent = Intend(
            account=account.name,
            provider=account.provider,
            lane=submission.lane,
            route=submission.route,
            ceiling_microusd=submission.ceiling_microusd,
            body_digest=work.body_digest(call.body),
            deadline_us=self._clock.now_us() + int(codec.capabilities.submit_timeout_s.value * 1e6),
            callback=bool(callback_url),
            uploads=uploads,
            reference=work.reference(self._ledger_id, number) if isinstance(codec, LooksUp) else "",
            beside=submission.beside,
        )
        try:
            refused = await self._log.record(work, intent, guards=submission.guards)
        except StreamConflict:
            return Superseded()
        if refused is not None:
            return refused
        work.intended_at = self._clock.monotonic()
        faults.point("intent_recorded")
        if self._stopping:
            result: SubmitOutcome | Disbelieved | NotSent = NotSent("stopped before the send")
            reply_text = ""
        else:
            answer, reply_text = await self.exchange(call, codec.read_submit, callback_url=callback_url)
            result = self.weighed(work, account, answer)
        faults.point("reply_read")
        await self._record(work, account, number, result, reply_text)
        faults.point("acceptance_recorded")
        return result

    async def _keep(self, work: Work, account: Account, number: int, result: Finished) -> None:
        """The image came with the reply: its bytes are durable before anybody is told (W14)."""
        life_s = account.codec.capabilities.result_life_s.value
        if not result.data:
            await record_ready(self._log, self._clock, work, number, result, life_s=life_s)
            return
        try:
            await self._spool.keep(work, number, result)
            faults.point("reply_spooled")
            result = msgspec.structs.replace(result, data=b"")  # the fetcher takes it from there (SEC-9)
        except (DiskFull, DiskFailed) as exc:
            _log.error("%r: its image is only in memory: %s", work, exc)
        await record_ready(self._log, self._clock, work, number, result, life_s=0.0)

    async def exchange(
        self, call: HttpCall, read: Callable[[HttpReply], T], *, callback_url: str = ""
    ) -> tuple[T | Unclear | NotSent, str]:
        """Send the one paid request of a durable intent; give its outcome and what is kept of the reply for dispute."""
        sent = False

        def on_sent() -> None:
            nonlocal sent
            sent = True
            faults.point("request_sent")

        reply: HttpReply | None = None
        with trio.CancelScope() as scope:
            self._exchanges.add(scope)
            try:
                reply = await self._wire.send(call, on_sent=on_sent)
            except WireError as exc:
                if not exc.sent:
                    return NotSent(str(exc)), ""
                return Unclear(detail=f"no reply: {exc}"), ""
            finally:
                self._exchanges.discard(scope)
        if reply is None:  # told to hurry
            return (Unclear(detail="stopped before the answer") if sent else NotSent("stopped before the send")), ""
        if callback_url:
            reply = msgspec.structs.replace(reply, body=without_token(reply.body, callback_url))
        text = reply.body[:_KEPT_REPLY].decode("utf-8", "replace")
        try:
            return read(reply), text if len(reply.body) <= _SMALL_REPLY else ""
        except MalformedReply as exc:
            success = 200 <= reply.status < 300
            return Unclear(detail=f"malformed reply: {exc}", likely_paid=success), text

    def weighed(self, work: Work, account: Account, answer: T) -> T | Disbelieved:
        """Give an answer as far as the task's batch believes it."""
        weighed = weigh(answer, account.codec.capabilities, self._trust(work.batch))
        if isinstance(weighed, Disbelieved):
            _log.warning("%s: only assumed to prove that nothing was bought: %r", account.name, answer)
        return weighed

    async def _record(
        self, work: Work, account: Account, number: int, result: SubmitOutcome | Disbelieved | NotSent, reply_text: str
    ) -> None:
        match result:
            case Finished():
                await self._keep(work, account, number, result)
            case Failed():
                await record_failed(self._log, work, number, result)
            case _:
                if isinstance(result, Unclear):
                    _log.warning("%r at %s: %s", work, work.attempt.account, result.detail)
                fact, payloads = fact_of(self._log, number, result, reply_text)
                await self._log.record(work, Record(fact), payloads=payloads)


def fact_of(
    log: TaskLog,
    number: int,
    result: Accepted | Refused | Throttled | Unclear | Disbelieved | NotSent,
    reply_text: str,
) -> tuple[TaskEvent, Sequence[NewPayload]]:
    """Say what an answer to a paid call means for attempt ``number``, with the texts that the fact refers to."""
    match result:
        case Accepted(job=job):
            return AttemptAccepted(attempt=number, job=job), ()
        case NotSent(reason=reason):
            return AttemptNotSent(attempt=number, reason=reason), ()
        case Throttled():
            return AttemptRejected(attempt=number, reason="throttled"), ()
        case Refused(reason=reason):
            ref, payload = log.text(reply_text)
            return AttemptRejected(attempt=number, reason=reason, detail=ref), (payload,)
        case Unclear(likely_paid=likely_paid):
            ref, payload = log.text(reply_text or result.detail)
            doubt: AmbiguousReason = "unclear_reply" if reply_text else "no_reply"
            return AttemptAmbiguous(attempt=number, reason="no_job_id" if likely_paid else doubt, detail=ref), (
                payload,
            )
        case Disbelieved():
            ref, payload = log.text(reply_text)
            return AttemptAmbiguous(attempt=number, reason="answer_assumed", detail=ref), (payload,)
        case _:
            assert_never(result)
