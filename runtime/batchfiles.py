"""Buys by the file: gathers the tasks of a lane, uploads them as lines, and lets one call pay for all of them.

What can be repeated comes first: references are resolved and the file is uploaded while nothing is intended yet.  Then,
hosted by the gateway and in its order:

    one commit   the intents of all lines, each with the file's name, under the guards of all (MON-1, MON-8)
    one call     makes a batch of that name; no retry (MON-5)
    one commit   what the answer means for every line

The name is new for each file.  So whatever is lost on the way, the list of batches tells afterwards whether this
file became a batch (:mod:`runtime.batchevidence`); the lines of one that did are followed by
:class:`~runtime.batchpoller.BatchPoller`.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from functools import partial
from random import Random

import msgspec
import trio

from adapters.base import Accepted, FileBytes, Refused, Unclear
from adapters.batchfile import BatchFiles, CreateOutcome, line_job
from ledger.commands import Intend, Record
from ledger.decisions import Exceeded, Guard, NewPayload
from runtime import faults
from runtime.accounts import Account
from runtime.batchevidence import file_prefix, line_key
from runtime.batchpoller import BatchPoller
from runtime.evidence import Query
from runtime.gateway import Gateway, NotSent, Submission, SubmitResult, Superseded, fact_of
from runtime.gathering import Gathering
from runtime.lanes import Lane
from runtime.limits import TokenBucket
from runtime.ports import Clock
from runtime.references import Resolved, Unresolved
from runtime.trust import Disbelieved
from runtime.uploads import UploadFailed, upload
from runtime.waiting import Bell
from runtime.work import Overtaken, TaskLog, Work

_log = logging.getLogger(__name__)

_MEDIA_TYPE = "application/jsonl"


class Tell(msgspec.Struct, frozen=True):
    """What the account hears.  Every submission that was taken from a queue ends in one of the two."""

    ended: Callable[[Lane, Sequence[Submission], SubmitResult], None]  # one answer for all of them
    not_begun: Callable[[Lane, Sequence[Submission]], None]  # nothing was intended: they may go elsewhere


class _Line(msgspec.Struct, frozen=True):
    submission: Submission
    key: str
    data: bytes

    @property
    def work(self) -> Work:
        return self.submission.work


class _File(msgspec.Struct, frozen=True):
    lane: Lane
    name: str
    lines: tuple[_Line, ...]
    uploaded: str  # how the provider calls it

    @property
    def submissions(self) -> list[Submission]:
        return [line.submission for line in self.lines]


class FileDesk:
    """Makes the files of one account, one at a time."""

    def __init__(
        self,
        account: Account,
        codec: BatchFiles,
        *,
        gateway: Gateway,
        poller: BatchPoller,
        log: TaskLog,
        clock: Clock,
        random: Random,
        ledger_id: str,
        query: Query,
        bucket: TokenBucket,
        lanes: Callable[[], Collection[Lane]],
        may_buy: Callable[[], bool],
        prepared: Callable[[Submission], Submission],
        tell: Tell,
        bell: Bell,
    ) -> None:
        """``query`` sends a free call under the account's query limit, ``bucket`` is its rate of creations,
        ``prepared`` says how a submission resolves its references, ``bell`` rings when something may have changed."""
        record = account.codec.capabilities.batch_file
        assert record is not None, f"{account.name}: batch files in the codec and none in the record"
        self._limits = record.value
        self.gathering = Gathering(self._limits, codec)
        self._account = account
        self._codec = codec
        self._gateway = gateway
        self._poller = poller
        self._log = log
        self._clock = clock
        self._random = random
        self._ledger_id = ledger_id
        self._query = query
        self._bucket = bucket
        self._lanes = lanes
        self._may_buy = may_buy
        self._prepared = prepared
        self._tell = tell
        self._bell = bell
        self._files = 0
        self._preparing: trio.CancelScope | None = None

    def __repr__(self) -> str:
        return f"<FileDesk {self._account.name} files={self._files}>"

    def stop(self) -> None:
        """Begin no more files; one that is being uploaded is let go of."""
        if self._preparing is not None:
            self._preparing.cancel()

    async def run(self) -> None:
        """Make files until cancelled."""
        while True:
            now = self._clock.monotonic()
            found: tuple[Lane, int] | float = float("inf")
            if self._may_buy():
                lanes = list(self._lanes())
                self._random.shuffle(lanes)  # none starves under the shared limits
                found = self.gathering.next_file(
                    lanes, now, open_batches=self._poller.open, waiting_tokens=self._poller.tokens
                )
                if isinstance(found, tuple) and (free_s := self._bucket.seconds_until_free(now)) > 0:
                    found = free_s
            if isinstance(found, tuple):
                self._bucket.take(now)
                await self._make(*found)
            else:
                await self._bell.wait_rung(deadline=now + found)

    # --- before anything is intended ------------------------------------------------------------------------

    async def _make(self, lane: Lane, size: int) -> None:
        """Prepare a file and have it bought."""
        taken = [lane.queue.popleft() for _ in range(size)]
        lane.in_flight += size
        lane.breaker.passed()
        file: _File | None = None
        try:
            with trio.CancelScope() as self._preparing:
                file = await self._prepare(lane, taken)
        finally:
            self._preparing = None
            if file is None:  # stopped, failed or crashed: what is left in the list was told nothing yet
                self._tell.not_begun(lane, taken)
        if file is not None:
            ended = trio.Event()
            self._gateway.host(partial(self._buy, file, ended))
            await ended.wait()

    async def _prepare(self, lane: Lane, taken: list[Submission]) -> _File | None:
        """Spell the lines and upload them.  ``taken`` loses those that have heard what became of them."""
        lines: list[_Line] = []
        size = 0
        for submission in list(taken):
            line = await self._line(lane, submission, taken)
            if line is None:
                continue
            size += len(line.data)
            if lines and size > self._limits.file_bytes:
                self._put_back(lane, taken[len(lines) :])
                del taken[len(lines) :]
                break
            lines.append(line)
        if not lines:
            return None
        self._files += 1
        salt = self._random.getrandbits(32)
        name = f"{file_prefix(self._ledger_id)}{self._log.epoch}-{self._files}-{salt:08x}"
        data = b"".join(line.data for line in lines)
        uploaded = await self._upload(FileBytes(name, _MEDIA_TYPE, data))
        if isinstance(uploaded, Unresolved):
            _log.warning("%s: %s: %s", self._account.name, name, uploaded.detail)
            told, taken[:] = list(taken), []
            self._tell.ended(lane, told, uploaded)
            return None
        return _File(lane, name, tuple(lines), uploaded)

    async def _line(self, lane: Lane, submission: Submission, taken: list[Submission]) -> _Line | None:
        """Spell one line, or tell why there is none."""
        work = submission.work
        async with AsyncExitStack() as held:
            resolution = await self._gateway.resolve(self._prepared(submission), held)
            if isinstance(resolution, Resolved):
                key = line_key(work, len(work.state.attempts) + 1)
                return _Line(submission, key, self._codec.line(key, resolution.request))
        taken.remove(submission)
        self._tell.ended(lane, [submission], resolution)
        return None

    async def _upload(self, file: FileBytes) -> str | Unresolved:
        """Upload the lines.  A file that is refused says nothing about its tasks: they may go into another one."""
        context = self._account.context()
        try:
            uploaded = await upload(
                lambda: self._codec.upload_lines(file, context), self._query, clock=self._clock, random=self._random
            )
            return uploaded.url
        except UploadFailed as exc:
            if exc.reason == "account":
                return Unresolved("account", str(exc))
            return Unresolved("later", f"the upload of a file of requests failed: {exc}")

    def _put_back(self, lane: Lane, submissions: Sequence[Submission]) -> None:
        """Let tasks wait for the next file, before all others."""
        lane.in_flight -= len(submissions)
        lane.queue.extendleft(reversed(submissions))
        self._bell.ring()

    # --- the purchase, hosted by the gateway ----------------------------------------------------------------

    async def _buy(self, file: _File, ended: trio.Event) -> None:
        try:
            if self._gateway.stopping or not self._may_buy():
                self._tell.not_begun(file.lane, file.submissions)
            elif await self._intend(file):
                result = await self._send(file)
                self._tell.ended(file.lane, file.submissions, result)
        finally:
            ended.set()

    async def _intend(self, file: _File) -> bool:
        """Make the intents of all lines durable in one commit; False when there is nothing to send."""
        deadline_s = self._account.codec.capabilities.submit_timeout_s.value
        intents = [
            (
                line.work,
                Intend(
                    account=self._account.name,
                    provider=self._account.provider,
                    lane=file.lane.name,
                    route=line.submission.route,
                    ceiling_microusd=line.submission.ceiling_microusd,
                    body_digest=line.work.body_digest(line.data),
                    deadline_us=self._clock.now_us() + int(deadline_s * 1e6),
                    file=file.name,
                    beside=line.submission.beside,
                ),
            )
            for line in file.lines
        ]

        def guards(at_us: int) -> tuple[Guard, ...]:
            return tuple(dict.fromkeys(guard for line in file.lines for guard in line.submission.guards(at_us)))

        for line in file.lines:
            line.work.forget_result()  # of an earlier attempt
        faults.point("before_intent")
        try:
            refused = await self._log.record_all(intents, guards=guards)
        except Overtaken as exc:  # an operator was faster with one of them
            self._put_back(file.lane, [each for each in file.submissions if each.work is not exc.work])
            self._tell.ended(file.lane, [each for each in file.submissions if each.work is exc.work], Superseded())
            return False
        if refused is not None:
            self._refused(file, refused)
            return False
        for line in file.lines:
            line.work.intended_at = self._clock.monotonic()
        faults.point("intent_recorded")
        return True

    def _refused(self, file: _File, refused: Exceeded) -> None:
        """A guard has no room for the whole file: perhaps it has for a smaller one."""
        if self.gathering.too_large(file.lane, file.submissions, refused):
            self._put_back(file.lane, file.submissions)
        else:
            self._tell.ended(file.lane, file.submissions, refused)

    async def _send(self, file: _File) -> CreateOutcome | Disbelieved | NotSent:
        """Send the one call, and record what its answer means for every line, in one commit."""
        call = self._codec.build_create(file.lane.name, file.uploaded, file.name, self._account.context())
        result: CreateOutcome | Disbelieved | NotSent = NotSent("stopped before the send")
        text = ""
        if not self._gateway.stopping:
            result, text = await self._gateway.exchange(call, self._codec.read_create)
        faults.point("reply_read")
        if isinstance(result, Refused) and result.reason == "invalid" and len(file.lines) > 1:
            # One of the lines may be bad, and nobody knows which: none of them fails for it, the next file is smaller.
            self.gathering.at_most(file.lane, len(file.lines) // 2)
            result = Refused("unavailable", result.detail)
        result = self._gateway.weighed(file.lines[0].work, self._account, result)
        if isinstance(result, Unclear):
            _log.warning(
                "%s: %s is doubtful with its %d lines: %s",
                self._account.name,
                file.name,
                len(file.lines),
                result.detail,
            )
        records: list[tuple[Work, Record]] = []
        payloads: list[NewPayload] = []
        for line in file.lines:
            told = Accepted(line_job(result.job, line.key)) if isinstance(result, Accepted) else result
            fact, texts = fact_of(self._log, line.work.attempt.number, told, text)
            records.append((line.work, Record(fact)))
            payloads.extend(texts)
        await self._log.record_all(records, payloads=payloads)
        faults.point("acceptance_recorded")
        return result
