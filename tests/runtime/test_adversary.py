"""Lists and lookups that lie: cut short, broken half-way, in a circle, late, out of order, twice, and full of twins.

The providers are the emulators, the codecs are real, and what comes back is bent on its way to the codec's caller.
Whatever is shown: nothing that the provider took is bought again, and no job is bound that is not the attempt's own or
one that was asked for the very same (REC-4, REC-5).
"""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, TypeVar, cast, get_args

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import registry
from adapters.base import (
    Accepted,
    Codec,
    FileBytes,
    HttpCall,
    HttpReply,
    ImageRequest,
    JobPage,
    ListedJob,
    Lists,
    LooksUp,
    MalformedReply,
    PollOutcome,
    Secret,
)
from adapters.batchfile import BatchFiles, BatchPage, batch_of_job
from adapters.sandbox.base import Emulator
from adapters.sandbox.google import GoogleBatchEmulator
from adapters.sandbox.replicate import ReplicateEmulator
from adapters.sandbox.segmind import SegmindEmulator
from adapters.sandbox.toapis import ToapisEmulator
from adapters.sandbox.wavespeed import WaveSpeedEmulator
from ledger.commands import Intend, Record
from ledger.events import AttemptAccepted
from runtime.accounts import Account
from runtime.claims import Claims
from runtime.doubts import Doubts, evidence_of
from runtime.ports import WireError
from runtime.work import Work
from tests.adapters.everyone import driven
from tests.adapters.inprocess import ask, base_url, sandbox
from tests.runtime.fakes import Bench, nothing, run

Trick: TypeAlias = Literal["none", "broken", "reset", "throttled", "circle", "backwards", "again", "nameless", "cut"]
Sent: TypeAlias = Literal["lost", "arrived", "answered"]
Item = TypeVar("Item")

LEDGER = "ledger"
EMULATORS: dict[str, tuple[Callable[..., Emulator], str]] = {  # and the option for its lag
    "replicate": (ReplicateEmulator, "listing_lag_s"),
    "segmind": (SegmindEmulator, "listing_lag_s"),
    "wavespeed": (WaveSpeedEmulator, "listing_lag_s"),
    "toapis": (ToapisEmulator, "lookup_lag_s"),
    "google-batch": (GoogleBatchEmulator, "listing_lag_s"),
}


class Buy(msgspec.Struct, frozen=True):
    """One attempt of ours.  ``answered``: its job is on record, so it is not in doubt."""

    prompt: str
    sent: Sent


class Stranger(msgspec.Struct, frozen=True):
    """A job of another program, or of another account, that may have been asked for the same."""

    prompt: str
    same_account: bool
    before: bool


class Scene(msgspec.Struct, frozen=True):
    buys: list[Buy]
    strangers: list[Stranger]
    tricks: list[Trick]
    lag: float  # as a share of the quarantine: much more than the record says
    page: int


prompts = st.sampled_from(["a red kettle", "a blue jug"])
scenes = st.builds(
    Scene,
    buys=st.lists(st.builds(Buy, prompts, st.sampled_from(get_args(Sent))), min_size=1, max_size=4),
    strangers=st.lists(st.builds(Stranger, prompts, st.booleans(), st.booleans()), max_size=3),
    # A list that is cut short twice in a row, and says nothing of it, is the only liar that nobody can catch.
    tricks=st.tuples(
        st.integers(0, 15).map(lambda quiet: ["none"] * quiet),
        st.lists(st.sampled_from(get_args(Trick)), max_size=12).filter(lambda tricks: tricks.count("cut") <= 1),
    ).map(lambda parts: parts[0] + parts[1]),
    lag=st.sampled_from((0.0, 0.03, 0.5, 1.0)),
    page=st.integers(1, 3),
)


class Liar:
    """Bends what a provider shows, one trick a page, until it has no more tricks."""

    def __init__(self, scene: Scene) -> None:
        self._tricks = list(scene.tricks)
        self._size = scene.page
        self._shown: Sequence[object] = ()
        self._trick: Trick = "none"
        self._chunk, self._cursor = 0, ""

    def asked(self, cursor: str | None) -> str | None:
        """What the provider is asked for, in the place of what the caller asked for."""
        chunk, _, self._cursor = (cursor or "0|").partition("|")
        self._chunk = int(chunk)
        return self._cursor or None

    def sent(self) -> Trick:
        self._trick = self._tricks.pop(0) if self._tricks else "none"
        if self._trick == "reset":
            raise WireError("reset", sent=True)
        return self._trick

    def bend(self, items: Sequence[Item], following: str | None) -> tuple[tuple[Item, ...], str | None]:
        """One chunk of a page, and where the next one is."""
        begin, end = self._chunk * self._size, (self._chunk + 1) * self._size
        shown = list(items[begin:end])
        cursor = f"{self._chunk + 1}|{self._cursor}" if end < len(items) else following and f"0|{following}"
        match self._trick:
            case "broken":
                raise MalformedReply("half a page")
            case "circle":
                cursor = f"{self._chunk}|{self._cursor}"
            case "backwards":
                shown.reverse()
            case "again":
                shown += cast(Sequence[Item], self._shown)
            case "nameless" if shown and isinstance(shown[0], ListedJob):
                shown[0] = msgspec.structs.replace(shown[0], fingerprint=None)
            case "cut":
                shown, cursor = [], None
        self._shown = shown
        return tuple(shown), cursor


def lying(codec: Codec, liar: Liar) -> Codec:
    """The codec, whose lists pass through the liar's hands."""
    kind = type(codec)

    def build_list(self: Lists, *args: object, cursor: str | None, **more: object) -> HttpCall:
        return kind.build_list(self, *args, cursor=liar.asked(cursor), **more)  # type: ignore[attr-defined,no-any-return]

    def read_list(self: Lists, reply: HttpReply) -> JobPage:
        page: JobPage = kind.read_list(self, reply)  # type: ignore[attr-defined]
        return JobPage(*liar.bend(page.jobs, page.next_cursor))

    def build_batches(self: BatchFiles, *args: object, cursor: str | None) -> HttpCall:
        return kind.build_batches(self, *args, cursor=liar.asked(cursor))  # type: ignore[attr-defined,no-any-return]

    def read_batches(self: BatchFiles, reply: HttpReply) -> BatchPage:
        page: BatchPage = kind.read_batches(self, reply)  # type: ignore[attr-defined]
        return BatchPage(*liar.bend(page.batches, page.next_cursor))

    bent = {"build_list": build_list, "read_list": read_list}
    if isinstance(codec, BatchFiles):
        bent = {"build_batches": build_batches, "read_batches": read_batches}
    elif not isinstance(codec, Lists):
        return codec
    return cast(Codec, type("Lying", (kind,), bent)())


class Market:
    """A provider with its customers, and what it really took."""

    def __init__(self, provider: str, scene: Scene) -> None:
        make, option = EMULATORS[provider]
        self.bench = Bench()
        self.liar = Liar(scene)
        self.codec = registry.codec(provider)
        account = Account(provider, provider, lying(self.codec, self.liar), Secret("sandbox-mine"), loopback=True)
        self.emulator = make(sandbox(), **{option: scene.lag * (account.quarantine - 1.0)})
        self.account = msgspec.structs.replace(account, base_url=base_url(self.emulator))
        self.bound: dict[str, int] = {}
        self.intended: dict[str, int] = {}  # when those were sent
        self.took: dict[str, tuple[str, int]] = {}  # job on this account -> its prompt, and the task that it was for
        self.judged: list[Work] = []

    def send(self, call: HttpCall) -> HttpReply:
        return ask(self.emulator, call, self.bench.clock.now_us())

    async def query(self, call: HttpCall) -> HttpReply:
        trick = self.liar.sent()
        await trio.sleep(0.05)
        if trick == "cut" and isinstance(self.codec, LooksUp):  # a replica that is behind
            call = self.codec.build_lookup("bd-nobodys", self.account.context())
        return HttpReply(429, {}, b"{}") if trick == "throttled" else self.send(call)

    def make(self, work: Work, *, key: str = "sandbox-mine", file: str = "", ours: bool = True) -> str:
        """The provider takes a job; its id."""
        marker, reference = (work.marker(LEDGER, 1), work.reference(LEDGER, 1)) if ours else (7, "somebody-elses")
        ctx = msgspec.structs.replace(self.account.context(marker=marker, reference=reference), key=Secret(key))
        codec = self.codec
        if isinstance(codec, BatchFiles):
            lines = FileBytes("lines", "application/jsonl", codec.line(f"1-{work.n}-1", work.request))
            uploaded = driven(codec.upload_lines(lines, ctx), self.send).url
            create = codec.build_create(codec.lane(work.request), uploaded, file, ctx)
            made: object = codec.read_create(self.send(create))
        else:
            made = codec.read_submit(self.send(codec.build_submit(work.request, ctx)))
        assert isinstance(made, Accepted), made
        return made.job

    async def play(self, scene: Scene) -> list[Work]:
        """Buy, crash, and judge what is in doubt."""
        strangers = [
            (stranger, self.bench.work(100 + n, prompt=stranger.prompt)) for n, stranger in enumerate(scene.strangers)
        ]
        for stranger, work in strangers:
            if stranger.before:
                self._foreign(stranger, work)
        doubtful = []
        for n, buy in enumerate(scene.buys, 1):
            work = self.bench.work(n, prompt=buy.prompt)
            file = f"bydawn-file-{n}" if isinstance(self.codec, BatchFiles) else ""
            asked = work.reference(LEDGER, 1) if isinstance(self.codec, LooksUp) else ""
            name = self.account.name
            intend = Intend(name, name, "x", "only", 60_000, "d", 0, file=file, reference=asked)
            await self.bench.log.record(work, intend)
            intended_us = self.bench.clock.now_us()
            await trio.sleep(0.5)
            if buy.sent != "lost":
                job = self.make(work, file=file)
                self.took[job] = (buy.prompt, n)
                if buy.sent == "answered":
                    self.bound[job] = self.bench.clock.now_us()
                    self.intended[job] = intended_us
                    await self.bench.log.record(work, Record(AttemptAccepted(attempt=1, job=job)))
            if buy.sent != "answered":
                doubtful.append(work)
        for stranger, work in strangers:
            if not stranger.before:
                self._foreign(stranger, work)
        await trio.sleep(3.0)
        self.bench.journal.epoch += 1
        doubts = self._doubts()
        for work in doubtful:
            doubts.add(work)
        with trio.move_on_after(3_000.0):
            await doubts.run(judged=self.judged.append, first_pass_done=nothing)
        return doubtful

    def _foreign(self, stranger: Stranger, work: Work) -> None:
        key = "sandbox-mine" if stranger.same_account else "sandbox-another"
        job = self.make(work, key=key, file="somebody's file", ours=False)
        if stranger.same_account:
            self.took[job] = (stranger.prompt, 0)

    def _doubts(self) -> Doubts:
        bench = self.bench
        evidence = evidence_of(
            self.account,
            query=self.query,
            clock=bench.clock,
            ledger_id=LEDGER,
            busy=lambda: (),
            bound=self._bound_since,
            as_sent=self._as_sent,
            witnesses=self._witnesses,
        )
        return Doubts(
            self.account,
            log=bench.log,
            clock=bench.clock,
            random=bench.random,
            evidence=evidence,
            foreign=lambda epoch: False,
            spool=bench.spool,
            claims=Claims(look=_nobody_calls, bound=lambda jobs: (), clock=bench.clock, visible_after_s=9.0),
        )

    def _bound_since(self, at_us: int) -> set[str]:
        """As the ledger tells: what was answered, and what was adopted since."""
        adopted = {work.attempt.job for work in self.judged if work.attempt.job}
        return adopted | {job for job, bound_us in self.bound.items() if bound_us >= at_us}

    def _witnesses(self, since_us: int, until_us: int) -> set[str]:
        return {job for job, at_us in self.bound.items() if since_us <= self.intended[job] and at_us <= until_us}

    async def _as_sent(self, work: Work) -> ImageRequest:
        return work.request


async def _nobody_calls(job: str) -> PollOutcome:
    raise AssertionError(f"nobody called back about {job}")


def acted(provider: str, scene: Scene) -> None:
    market = Market(provider, scene)
    found: list[Work] = []

    async def go() -> None:
        found.extend(await market.play(scene))

    run(go)
    check(market, found)


@pytest.mark.parametrize("provider", EMULATORS)
def test_no_lie_leads_to_a_second_purchase_or_to_another_ones_job(provider: str) -> None:
    @settings(max_examples=60, deadline=None)
    @given(scene=scenes)
    def law(scene: Scene) -> None:
        acted(provider, scene)

    law()


@pytest.mark.parametrize("provider", EMULATORS)
def test_what_is_shown_late_may_be_hidden_once_more(provider: str) -> None:
    """REC-4: at any one of the questions, also the last one."""
    for quiet in range(16):
        tricks: list[Trick] = [*["none"] * quiet, "cut"]  # type: ignore[list-item]  # mypy widens the literal
        acted(provider, Scene([Buy("a red kettle", "arrived")], [], tricks, lag=1.0, page=3))


@pytest.mark.parametrize("provider", ["replicate", "segmind", "wavespeed"])
def test_a_list_that_always_stops_short_is_given_away_by_the_jobs_that_were_answered(provider: str) -> None:
    """REC-4: it leaves out what the provider itself said that it had taken."""
    scene = Scene([Buy("a blue jug", "arrived"), Buy("a red kettle", "answered")], [], ["cut"] * 200, lag=0.0, page=1)
    market = Market(provider, scene)
    found: list[Work] = []

    async def go() -> None:
        found.extend(await market.play(scene))

    run(go)
    assert [(work.state.phase, work.attempt.reason) for work in found] == [("held", "listing_failed")]


@pytest.mark.parametrize("provider", ["replicate", "segmind"])
def test_a_list_without_its_oldest_is_given_away_by_a_job_from_before_the_doubt(provider: str) -> None:
    """REC-4: newest first, it stops short of both, and nothing was answered after what is in doubt."""
    buys = [Buy("a red kettle", "answered"), Buy("a blue jug", "arrived")]
    later = Stranger("a green mug", before=False, same_account=True)
    scene = Scene(buys, [later], ["cut"] * 200, lag=0.0, page=1)
    market = Market(provider, scene)
    found: list[Work] = []

    async def go() -> None:
        found.extend(await market.play(scene))

    run(go)
    assert [(work.state.phase, work.attempt.reason) for work in found] == [("held", "listing_failed")]


def check(market: Market, doubtful: list[Work]) -> None:
    adopted: dict[str, Work] = {}
    for work in doubtful:
        if work.state.phase == "accepted":
            job = batch_of_job(work.attempt.job)[0] if isinstance(market.codec, BatchFiles) else work.attempt.job
            assert job not in adopted, "one job, two attempts"
            assert job not in market.bound, "a job that has its attempt"
            adopted[job] = work
            assert job in market.took, "another account's job"
            prompt, n = market.took[job]
            assert prompt == work.request.prompt
            if market.account.name != "replicate":  # which shows nothing of ours, so twins are interchangeable
                assert n == work.n
    absent = {work.n for work in doubtful if work.attempt.phase == "absent"}
    lost = {n: job for job, (_, n) in market.took.items() if n in absent and job not in adopted}
    assert lost == {}, "paid for, and bought again"
    for work in doubtful:
        assert work.state.phase in ("accepted", "queued", "held"), "nobody judged it"
        assert work.state.phase != "held" or work.attempt.reason in ("several_fit", "listing_failed", "no_evidence")
