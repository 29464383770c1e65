"""A provider that says what a test tells it, and a journal in memory: for tests of the actors."""

import hashlib
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import TypeAlias

import msgspec
import trio
import trio.testing

from adapters.base import (
    AdapterError,
    Context,
    FileBytes,
    HttpCall,
    HttpReply,
    ImageRequest,
    JobPage,
    ListedJob,
    PollOutcome,
    Secret,
    Standing,
    SubmitOutcome,
    Uploaded,
    UploadSteps,
)
from adapters.capabilities import Capabilities, Known, Listing, Rate
from adapters.kie import CAPABILITIES
from adapters.references import LocalFile
from ledger.decisions import Committed, Conflict, Decision, Exceeded, Guard, NewPayload, Outcome
from ledger.events import Event, PayloadRef, TaskQueued
from ledger.folds import TaskState
from ledger.streams import task_stream
from runtime.accountkeys import AccountKeys, KeySpan
from runtime.accountlog import AccountLog
from runtime.accounts import Account
from runtime.blobs import BlobStore
from runtime.ports import Fetched, FetchRules
from runtime.references import ReferenceFiles
from runtime.requests import TaskRequest
from runtime.simulated import SimClock, SimDisk, SimThreads
from runtime.spool import Spool
from runtime.work import TaskLog, Work

Answer: TypeAlias = object  # an outcome, or an exception to be raised instead


def known(value: object) -> Known:  # type: ignore[type-arg]  # of whatever the field holds
    return Known(value, "test", "2026-11-22", "assumed")


CAPS = msgspec.structs.replace(
    CAPABILITIES,
    provider="fake",
    submit_rate=known(Rate(1000, 1.0)),
    poll_rate=known(Rate(1000, 1.0)),
    visible_after_s=known(90.0),
    result_life_s=known(3600.0),
    listing=known(Listing(lag_s=1.0, shows_input_s=86_400.0, keeps_s=86_400.0, page_size=100)),
)


class FakeProvider:
    """Codec and wire in one.  Each question takes the next answer of its kind; the last one is repeated.

    ``latency_s`` passes between the first byte and the answer.  ``calls`` counts what reached it.
    """

    def __init__(self, *, caps: Capabilities = CAPS, latency_s: float = 0.1) -> None:
        self.capabilities = caps
        self.latency_s = latency_s
        self.answers: dict[str, deque[Answer]] = defaultdict(deque)
        self.calls: list[str] = []
        self.before: Callable[[str], None] = lambda kind: None  # called when a question arrives
        self._told: list[Answer] = []

    def say(self, kind: str, *answers: Answer) -> None:
        self.answers[kind].extend(answers)

    def count(self, kind: str) -> int:
        return sum(call.startswith(kind) for call in self.calls)

    # --- the wire ---

    async def send(self, call: HttpCall, on_sent: Callable[[], None] | None = None) -> HttpReply:
        kind = call.url.partition("/")[0]
        waiting = self.answers[kind]
        answer = waiting.popleft() if len(waiting) > 1 else waiting[0]
        if not (isinstance(answer, Exception) and getattr(answer, "sent", True) is False) and on_sent is not None:
            on_sent()
        self.calls.append(call.url)
        self.before(kind)
        await trio.sleep(self.latency_s)
        if isinstance(answer, Exception) and not (kind == "upload" and isinstance(answer, AdapterError)):
            raise answer
        self._told.append(answer)
        return HttpReply(200, {}, str(len(self._told) - 1).encode())

    async def stream(self, call: HttpCall, sink: Callable[[bytes], Awaitable[None]]) -> HttpReply:
        """Like a download: bytes go to the sink, a number is the status of another answer."""
        self.calls.append(call.url)
        waiting = self.answers["results"]
        answer = waiting.popleft() if len(waiting) > 1 else waiting[0]
        await trio.sleep(self.latency_s)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            return HttpReply(answer, {}, b"")
        assert isinstance(answer, bytes)
        await sink(answer)
        return HttpReply(200, {}, b"")

    async def fetch(self, url: str, sink: Callable[[bytes], Awaitable[None]], rules: FetchRules) -> Fetched:
        self.calls.append(f"fetch/{url}")
        waiting = self.answers["fetch"]
        answer = waiting.popleft() if len(waiting) > 1 else waiting[0]
        await trio.sleep(self.latency_s)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            return Fetched(answer, {}, 0)
        assert isinstance(answer, bytes)
        await sink(answer)
        return Fetched(200, {}, len(answer))

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    # --- the codec ---

    def problem(self, request: ImageRequest) -> str | None:
        return "not here" if "unplaceable" in request.prompt else None

    def lane(self, request: ImageRequest) -> str:
        return request.aspect

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        return HttpCall("POST", f"submit/{request.prompt}", {}, _shown(request).encode())

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        return self._told[int(reply.body)]  # type: ignore[return-value]

    def build_poll(self, job: str, ctx: Context) -> HttpCall:
        return HttpCall("GET", f"poll/{job}", {})

    def read_poll(self, reply: HttpReply) -> PollOutcome:
        return self._told[int(reply.body)]  # type: ignore[return-value]

    def build_check(self, ctx: Context) -> HttpCall:
        return HttpCall("GET", "check/", {})

    def read_check(self, reply: HttpReply) -> Standing:
        return Standing("ok")

    def fingerprint(self, request: ImageRequest, ctx: Context) -> str:
        return _shown(request)

    def upload(self, file: FileBytes, ctx: Context) -> UploadSteps:
        reply = yield HttpCall("POST", f"upload/{file.name}", {}, file.data)
        answer = self._told[int(reply.body)]
        if isinstance(answer, AdapterError):
            raise answer
        assert isinstance(answer, Uploaded)
        return Uploaded(f"{answer.url}/{file.name}", answer.life_s)

    def build_list(self, ctx: Context, *, since_us: int, until_us: int, cursor: str | None) -> HttpCall:
        return HttpCall("GET", f"list/{since_us}/{until_us}", {})

    def read_list(self, reply: HttpReply) -> JobPage:
        jobs = self._told[int(reply.body)]
        assert isinstance(jobs, tuple)
        return JobPage(jobs, None)

    def build_cancel(self, job: str, ctx: Context) -> HttpCall:
        return HttpCall("POST", f"cancel/{job}", {})

    def read_cancel(self, reply: HttpReply) -> PollOutcome:
        return self._told[int(reply.body)]  # type: ignore[return-value]


def _shown(request: ImageRequest) -> str:
    """What tells one request from another."""
    return "|".join((request.prompt, *request.references))


def listed(job: str, prompt: str | None, created_us: int, outcome: PollOutcome) -> ListedJob:
    return ListedJob(job, created_us, prompt, outcome)


class FakeJournal:
    """Implements :class:`runtime.writer.Journal`: versions are checked, a guard refuses when ``refuses`` says so."""

    def __init__(self, *, epoch: int = 5) -> None:
        self.epoch = epoch
        self.versions: dict[int, int] = defaultdict(int)
        self.events: list[Event] = []
        self.refuses: Callable[[Guard], bool] = lambda guard: False
        self.broken: Exception | None = None
        self._payloads = 1000
        self.texts: dict[int, str] = {}

    async def append(self, decision: Decision) -> Outcome:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.001)
        if self.broken is not None:
            raise self.broken
        for append in decision.appends:
            if self.versions[append.stream] != append.expected:
                return Conflict(append.stream, append.expected, self.versions[append.stream])
        for guard in decision.guards:
            if self.refuses(guard):
                return Exceeded(guard, 0)
        self.texts |= {payload.row: payload.text for payload in decision.payloads}
        for append in decision.appends:
            self.versions[append.stream] += len(append.events)
            self.events += append.events
        return Committed(len(self.events))

    def payload(self, text: str) -> tuple[PayloadRef, NewPayload]:
        self._payloads += 1
        return PayloadRef(self._payloads, "d"), NewPayload(self._payloads, b"s", text)

    def types(self) -> list[str]:
        """The events so far, by their class names."""
        return [type(event).__name__ for event in self.events]


class Bench:
    """What the actors of one test share."""

    def __init__(self, *, caps: Capabilities = CAPS, epoch: int = 5, latency_s: float = 0.1) -> None:
        self.provider = FakeProvider(caps=caps, latency_s=latency_s)
        self.journal = FakeJournal(epoch=epoch)
        self.clock = SimClock()
        self.random = Random(1)
        self.log = TaskLog(self.journal, self.clock)
        self.disk = SimDisk()
        self.spool = Spool(SimThreads(), lambda work: BlobStore(self.disk, Path("/out")))
        self.files = ReferenceFiles(SimThreads(), self.disk)
        self.account = Account(
            name="fake",
            provider="fake",
            codec=self.provider,
            key=Secret("sandbox"),
            quarantine_s=10.0,
            latency_s=2.0,
        )

    def account_log(self, *, key_epoch: int = 0) -> AccountLog:
        """``key_epoch``: since when it has another key than before; 0 = it never had another one."""
        keys = AccountKeys((KeySpan(0, "old"),))
        if key_epoch:
            keys = keys.changed(key_epoch, "new", "")
        return AccountLog(self.journal, self.clock, number=1, version=0, keys=keys)

    def file(self, name: str, data: bytes = b"") -> str:
        """Put a reference file on the disk; returns it as it stands in a request."""
        data = data or name.encode()
        path = Path("/pics") / name
        self.disk.make_dir(path.parent)
        self.disk.remove(path)
        self.disk.write_new(path, data)
        return LocalFile(hashlib.sha256(data).hexdigest(), len(data), "image/png", str(path)).text

    def work(self, n: int = 1, *, prompt: str = "", aspect: str = "1:1", references: tuple[str, ...] = ()) -> Work:
        """A queued task, on record in the journal."""
        request = ImageRequest(prompt=prompt or f"picture {n}", aspect=aspect, references=references)
        queued = TaskQueued(
            id=f"row{n}",
            request=PayloadRef(n, "d"),
            model=request.model,
            aspect=aspect,
            resolution="1K",
            line=n,
            number=1,
        )
        work = Work(1, n, TaskState(version=1, queued=queued), TaskRequest(request, {}), b"salt")
        self.journal.versions[task_stream(1, n)] = 1
        return work


def run(test: Callable[[], Awaitable[None]]) -> None:
    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


def nothing(*_: object) -> None:
    return None
