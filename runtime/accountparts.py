"""What an account is made of: its parts, put together around the one actor that owns its tasks.

Each part has one idea and knows the others only by what it is given here.  Which parts an account has, who shares a
rate with whom, and who asks whom is decided in this one place, before anything runs; what comes of it all is for
:mod:`runtime.account` to decide, which the parts know as :class:`News`.
"""

from collections.abc import Callable, Collection, Iterable
from random import Random

import msgspec

from adapters.batchfile import BatchFiles
from runtime.accountlog import AccountLog
from runtime.accounts import Account
from runtime.batchfiles import FileDesk, Tell
from runtime.batchpoller import BatchPoller
from runtime.claims import Claims
from runtime.diary import Diary
from runtime.doubts import Doubts, evidence_of
from runtime.evidence import Witnesses
from runtime.gateway import Gateway, Submission
from runtime.keycheck import KeyCheck, KnownJob
from runtime.limits import TokenBucket
from runtime.pace import Pace
from runtime.poller import Poller, Told
from runtime.ports import Clock, Wire
from runtime.references import ReferenceFiles, References
from runtime.spool import Spool
from runtime.trust import Trust, assume
from runtime.waiting import Bell
from runtime.warming import WarmUp
from runtime.work import TaskLog


class Beside(msgspec.Struct, frozen=True):
    """What an account shares with the others of its provider: two names may stand for one account there, and then a
    list of either shows the jobs of both (REC-5).

    ``given``: the jobs that were taken for an attempt in this run.  ``busy``: fingerprints of the others' submits under
    way.
    """

    given: set[str] = msgspec.field(default_factory=set)
    busy: Callable[[], Collection[str]] = frozenset


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What an account needs of the night, and of the record; the last three for its doubts (:mod:`runtime.doubts`)."""

    gateway: Gateway
    log: TaskLog
    account_log: AccountLog
    wire: Wire
    clock: Clock
    random: Random
    ledger_id: str
    spool: Spool
    files: ReferenceFiles
    text: Callable[[int], str | None]  # reads an erasable text by its row
    bound: Callable[[int], Collection[str]]  # jobs that the ledger bound since a time (UTC microseconds)
    taken: Callable[[Collection[str]], Collection[str]]  # those of some jobs that it bound ever
    known_jobs: Callable[[], Iterable[KnownJob]] = tuple  # what it bound here with other keys, newest first
    taken_over: int = 0
    trust: Callable[[int], Trust] = assume
    witnesses: Witnesses = lambda since_us, until_us: ()
    beside: Beside = msgspec.field(default_factory=Beside)


class News(msgspec.Struct, frozen=True):
    """What the parts tell the actor, and what they ask it."""

    followed: Told  # of accepted jobs
    filed: Tell  # of files of requests
    warmed: Callable[[Submission], None]  # of tasks whose reference files were waited for
    busy: Callable[[], set[str]]  # fingerprints of submits under way
    may_buy: Callable[[], bool]


class Parts:
    """``batches`` and ``desk`` are there where the account buys by the file, in the place of single submits and polls;
    ``follower`` is whoever follows accepted jobs."""

    def __init__(self, account: Account, needs: Needs, news: News) -> None:
        caps, foreign = account.codec.capabilities, needs.account_log.foreign
        log, wire, clock, random = needs.log, needs.wire, needs.clock, needs.random
        self.buy_bell = Bell()
        self.diary = Diary(needs.account_log, clock)
        self.pace = Pace(account, clock=clock, random=random, note=self.diary.note)
        self.poller = Poller(
            account,
            queries=self.pace.bucket if caps.polls_share_submit_rate.value else TokenBucket(account.query_rate),
            log=log,
            wire=wire,
            clock=clock,
            random=random,
            told=news.followed,
            foreign=foreign,
        )
        self.references = References(
            account,
            files=needs.files,
            query=self.poller.query,
            account_log=needs.account_log,
            clock=clock,
            random=random,
            text=needs.text,
        )
        self.warm_up = WarmUp(self.references, news.warmed)
        self.batches: BatchPoller | None = None
        self.desk: FileDesk | None = None
        if isinstance(account.codec, BatchFiles):
            self.batches = BatchPoller(
                account,
                account.codec,
                query=self.poller.query,
                log=log,
                wire=wire,
                clock=clock,
                random=random,
                spool=needs.spool,
                told=news.followed,
                foreign=foreign,
            )
            self.desk = FileDesk(
                account,
                account.codec,
                gateway=needs.gateway,
                poller=self.batches,
                log=log,
                clock=clock,
                random=random,
                ledger_id=needs.ledger_id,
                query=self.poller.query,
                bucket=self.pace.bucket,
                lanes=lambda: self.pace.lanes,
                may_buy=news.may_buy,
                prepared=lambda submission: msgspec.structs.replace(submission, resolve=self.references.resolve),
                tell=news.filed,
                bell=self.buy_bell,
            )
        self.follower: Poller | BatchPoller = self.batches or self.poller
        self.key = KeyCheck(
            needs.account_log,
            account=account.name,
            jobs=needs.known_jobs,
            look=self.follower.sees,
            clock=clock,
            random=random,
        )
        self.claims = Claims(
            look=self.poller.look,
            bound=needs.taken,
            clock=clock,
            visible_after_s=caps.visible_after_s.value,
            given=needs.beside.given,
        )
        evidence = evidence_of(
            account,
            query=self.poller.query,
            clock=clock,
            ledger_id=needs.ledger_id,
            busy=lambda: news.busy().union(needs.beside.busy()),
            bound=needs.bound,
            as_sent=self.references.as_sent,
            witnesses=needs.witnesses,
            taken=needs.taken,
        )
        self.doubts = Doubts(
            account,
            log=log,
            clock=clock,
            random=random,
            evidence=evidence,
            foreign=foreign,
            spool=needs.spool,
            claims=self.claims,
            taken_over=needs.taken_over,
            trust=needs.trust,
            key_in_doubt=lambda: self.key.in_doubt,
        )
