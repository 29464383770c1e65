"""The router: pages the queue in and gives each task to the cheapest allowed lane with room.

It owns a task while it is queued.  Tasks that the same lanes can take stand in one line, so that a full lane
holds up only its own line (LIVE-3).  What it buys and where is decided by plain functions; the loop only waits
for room, for work that comes back, and for the next page.
"""

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal, TypeAlias

import msgspec
import trio

from adapters.prices import Price
from ledger.commands import Fail
from ledger.decisions import Count, Exceeded, Guard, Reserve
from ledger.errors import CommandRejected
from ledger.events import OperatorDecided
from ledger.money import Balance, account_money, batch_money, day_money, duplicates_money, lane_money, risk_money
from ledger.openwork import QueuedTask
from ledger.reader import Reader
from ledger.streams import task_stream
from runtime.account import AccountActor
from runtime.accounts import Account
from runtime.gateway import Submission
from runtime.ports import Clock
from runtime.pricing import Quote
from runtime.requests import decode_request
from runtime.waiting import Bell
from runtime.work import StreamConflict, TaskLog, Work, WorkKey, load_work

_log = logging.getLogger(__name__)

_POLICY = "on-unknown resubmit"  # who lets a task be bought beside a doubtful attempt, where no person does
_WINDOW = 2000  # tasks in memory at most, beside those in flight
_PAGE = 1000
_IDLE_LOOK_S = 1.0

StopReason: TypeAlias = Literal[
    "", "budget", "at_risk", "no_provider", "disk_full", "interrupted", "cancelled", "deadline", "takeover"
]


class Terms(msgspec.Struct, frozen=True):
    """What the batch may cost and how much of it is bought in this run.

    ``max_duplicate_microusd``: for how much tasks in doubt are bought again without asking (MON-4); None = never.
    ``leaves_microusd``: where never, how much the leaves that this policy gave in earlier runs may cost in all, for one
    whose purchase failed is free again; None = all leaves are a person's.
    ``waiting_through``: tasks up to this number are not bought, since the ledger was taken over (REC-10).
    ``limit`` and ``sample`` choose the same tasks each time: the first N, or N spread evenly over ``tasks``.
    """

    batch: int
    tasks: int
    budget_microusd: int | None
    max_at_risk_microusd: int
    limit: int = 0
    sample: int = 0
    waiting_through: int = 0
    max_duplicate_microusd: int | None = None
    leaves_microusd: int | None = None

    @property
    def most_duplicates_microusd(self) -> int | None:
        """The cap on what is bought beside a doubtful attempt by the batch's policy, of this run or of earlier ones."""
        return self.leaves_microusd if self.max_duplicate_microusd is None else self.max_duplicate_microusd

    def waits(self, n: int) -> bool:
        """Whether another copy of the ledger may have bought the task: then it is left alone."""
        return n <= self.waiting_through

    def wants(self, n: int) -> bool:
        if self.waits(n):
            return False
        if self.limit and n > self.limit:
            return False
        if self.sample and self.sample < self.tasks:
            return n * self.sample // self.tasks != (n - 1) * self.sample // self.tasks
        return True


class Choice(msgspec.Struct, frozen=True):
    """A lane that can take a task, at this price."""

    ceiling_microusd: int
    account: str
    lane: str


class Router:
    """``moving`` holds every task that is in somebody's hands; the night is over when it is empty."""

    def __init__(
        self,
        terms: Terms,
        actors: Sequence[AccountActor],
        *,
        reader: Reader,
        log: TaskLog,
        clock: Clock,
        quote: Quote,
        disk_room: Callable[[int], bool],
        late: Sequence[Account] = (),
    ) -> None:
        """``disk_room`` says whether the disk would still hold so many more images than are in flight, ``late`` are the
        accounts that are too slow for tonight's deadline."""
        self.terms = terms
        self._actors = {actor.account.name: actor for actor in actors}
        self._reader = reader
        self._log = log
        self._clock = clock
        self._quote = quote
        self._disk_room = disk_room
        self._late = late
        self._lines: dict[tuple[Choice, ...], deque[Work]] = {}
        self._full: dict[str, int] = {}  # what refused an intent -> the smallest ceiling, until something moves
        self._cursor = 0
        self._exhausted = False
        self._disk_tight = False
        self._stranded = False
        self._set_aside: StopReason = ""  # why tasks were left to the next run, though others could still be bought
        self._left_alone = False  # a task was left alone because another copy of the ledger may have bought it
        self._beside: set[tuple[WorkKey, int]] = set()  # doubtful attempts that a purchase was lined up beside
        self._short: dict[WorkKey, tuple[int, Work]] = {}  # their ceilings; they wait for the budget for duplicates
        self._bell = Bell()
        self.moving: dict[WorkKey, Work] = {}
        self.stopped: StopReason = ""

    def __repr__(self) -> str:
        return f"<Router waiting={self._waiting} moving={len(self.moving)} cursor={self._cursor} {self.stopped}>"

    @property
    def _waiting(self) -> int:
        return sum(len(line) for line in self._lines.values())

    # --- messages from the others -------------------------------------------------------------------------

    def follow(self, works: Iterable[Work]) -> None:
        """Count tasks that somebody else already owns."""
        for work in works:
            self.moving[work.key] = work

    def give_back(self, work: Work) -> None:
        """A task is queued again."""
        self.moved()
        if self.moving.get(work.key, work) is not work:
            return  # it was paged in meanwhile: the other one goes its way
        self._left_alone = self._left_alone or self.terms.waits(work.n)
        follows = bool(work.state.owner)  # it shares the purchase of another task, and is never bought itself
        if work.key.batch != self.terms.batch or self.stopped or follows or not self.terms.wants(work.n):
            self.left(work)
        else:
            self.moving[work.key] = work
            self._line_up(work)

    def settled(self, work: Work) -> None:
        if self._buys_beside(work):
            self._line_up_beside(work)
        else:
            self.left(work)
        self.moved()

    def strand(self, work: Work) -> None:
        """Nobody can go on with an open task in this run: the night ends without it, and says so."""
        self._stranded = True
        self.left(work)

    def left(self, work: Work) -> None:
        """Nobody works on the task any more in this run."""
        if self.moving.get(work.key) is work:
            del self.moving[work.key]
        self._bell.ring()

    def blocked(self, submission: Submission, exceeded: Exceeded) -> None:
        """A guard refused the intent: the task waits until something that is open ends."""
        guard, ceiling = exceeded.guard, submission.ceiling_microusd
        if self.stopped:
            self.left(submission.work)
            return
        name = guard.account if isinstance(guard, Reserve) else guard.lane
        if name == duplicates_money(self.terms.batch):
            _log.warning("%r waits: the budget for duplicates has no room for it", submission.work)
            self._short[submission.work.key] = ceiling, submission.work
            self.left(submission.work)  # nothing waits for it: the night may end without it
            self._take_up_short()  # room that came since the refusal has been told of already
            return
        self._full[name] = min(ceiling, self._full.get(name, ceiling))
        self._line_up(submission.work, first=True)
        self._bell.ring()

    def moved(self) -> None:
        """Something ended or was acknowledged: what was full may have room again."""
        self._full.clear()
        self._take_up_short()
        self._bell.ring()

    def stop(self, reason: StopReason) -> None:
        """Buy nothing more; what is in flight is still brought home.  The first reason stays."""
        if not self.stopped:
            self.stopped = reason
        lines = list(self._lines.values())
        self._lines.clear()
        for line in lines:
            for work in line:
                self.left(work)
        for actor in self._actors.values():
            for work in actor.stop_buying():
                self.left(work)
        self._bell.ring()

    def let_go(self) -> None:
        """Wait for nothing more: what is open goes on with the next run."""
        self.moving.clear()
        self._bell.ring()

    # --- the loop -----------------------------------------------------------------------------------------

    async def run(self) -> StopReason:
        """Route until every wanted task is settled or buying was stopped and nothing is left in flight."""
        self._take_in_held()
        while True:
            if not self.stopped:
                await self._page_in()
                await self._fail_unplaceable()
                self._place()
                self._look_for_dead_end()
            if not self.moving and (self._exhausted or self.stopped):
                return self._ended()
            await self._bell.wait_rung(deadline=self._clock.monotonic() + self._next_look_s())

    def _ended(self) -> StopReason:
        """Nothing is left to do in this run; perhaps something is left to do."""
        if not self.stopped:
            if self._stranded:
                self.stopped = "no_provider"
            elif self._set_aside:
                self.stopped = self._set_aside
            elif self._left_alone:
                self.stopped = "takeover"
            elif any(work.state.phase == "queued" for _, work in self._short.values()):
                self.stopped = "budget"
        return self.stopped

    async def _page_in(self) -> None:
        while not self._exhausted and not self.stopped and self._waiting < _WINDOW:
            page = self._reader.queued(self.terms.batch, after=self._cursor, limit=_PAGE)
            for task in page:
                self._cursor = task.n
                self._left_alone = self._left_alone or self.terms.waits(task.n)
                if self.terms.wants(task.n) and WorkKey(self.terms.batch, task.n) not in self.moving:
                    self._take_in(task)
            self._exhausted = len(page) < _PAGE or bool(self.terms.limit and self._cursor >= self.terms.limit)
            await trio.lowlevel.checkpoint()  # a small sample of a large batch is many pages

    def _take_in_held(self) -> None:
        """What earlier runs left in doubt, where the batch allows to buy beside it."""
        if self.terms.max_duplicate_microusd is None:
            return
        for held in self._reader.held(self.terms.batch):
            work = load_work(self._reader, held.batch, held.n)
            if self._buys_beside(work) and work.key not in self.moving:
                self._line_up_beside(work)

    def _buys_beside(self, work: Work) -> bool:
        """Whether a task whose attempt is in doubt is bought again without asking: once per attempt."""
        return (
            self.terms.max_duplicate_microusd is not None
            and not self.stopped
            and work.state.phase == "held"
            and work.batch == self.terms.batch
            and self.terms.wants(work.n)
            and (work.key, len(work.state.attempts)) not in self._beside
        )

    def _line_up_beside(self, work: Work) -> None:
        self._beside.add((work.key, len(work.state.attempts)))
        self.moving[work.key] = work
        self._line_up(work)

    def _take_up_short(self) -> None:
        """Line up again what the budget for duplicates has room for by now: charges may be below their ceilings."""
        if not self._short or self.stopped:
            return
        name = duplicates_money(self.terms.batch)
        spent = self._reader.money(name).get(name, Balance()).total
        room = (self.terms.most_duplicates_microusd or 0) - spent
        if room < min(ceiling for ceiling, _ in self._short.values()):
            return
        for key, (ceiling, work) in sorted(self._short.items(), key=lambda item: item[1][0]):
            room -= ceiling
            if room < 0:
                return
            del self._short[key]
            unchanged = self._reader.version(task_stream(work.batch, work.n)) == work.state.version
            if unchanged and key not in self.moving:  # else somebody decided about it meanwhile
                self.moving[key] = work
                self._line_up(work)

    def _take_in(self, task: QueuedTask) -> None:
        if task.request is None:  # erased before it was bought: nobody can know what was wanted
            return
        work = Work(self.terms.batch, task.n, task.state, decode_request(task.request), task.salt)
        self.moving[work.key] = work
        self._line_up(work)

    async def _fail_unplaceable(self) -> None:
        """Tasks that no account can take fail with that reason; those that only the deadline keeps from one wait."""
        for work in self._lines.pop((), ()):
            if any(self._price(account, work) for account in self._late):
                self._set_aside = self._set_aside or "deadline"
            else:
                # An operator may have been faster; then there is nothing to do.
                with contextlib.suppress(StreamConflict, CommandRejected):
                    await self._log.record(work, Fail(reason="no_provider"))
            self.left(work)

    def _place(self) -> None:
        for choices, line in list(self._lines.items()):
            while line and not self.stopped:
                placed = self._choose(choices)
                if placed is None:
                    break
                choice, route = placed
                self._disk_tight = not self._disk_room(len(self.moving) - self._waiting + 1)
                if self._disk_tight:
                    return
                self._offer(line.popleft(), choice, route)
            if not line:
                self._lines.pop(choices, None)

    def _choose(self, choices: tuple[Choice, ...]) -> tuple[Choice, str] | None:
        """Return the cheapest choice with room, and why it was chosen."""
        for place, choice in enumerate(choices):
            if self._is_full(choice):
                continue
            if self._actors[choice.account].room(choice.lane) > 0:
                return choice, "only" if len(choices) == 1 else ("cheapest" if place == 0 else "spill")
        return None

    def _is_full(self, choice: Choice) -> bool:
        """Whether an intent at this price, or a cheaper one, was refused since anything moved."""
        if not self._full:
            return False
        names = (
            batch_money(self.terms.batch),
            risk_money(self.terms.batch),
            account_money(choice.account),
            day_money(choice.account, self._clock.now_us()),
            lane_money(choice.account, choice.lane),
        )
        return any(choice.ceiling_microusd >= self._full[name] for name in names if name in self._full)

    def _offer(self, work: Work, choice: Choice, route: str) -> None:
        beside = work.state.phase == "held"
        duplicate = beside or self._allowed_by_policy(work)
        actor = self._actors[choice.account]
        actor.offer(
            Submission(
                work=work,
                account=actor.account,
                lane=choice.lane,
                route=route,
                ceiling_microusd=choice.ceiling_microusd,
                guards=partial(self._guards, actor, choice, duplicate),
                done=_nobody,
                beside=_POLICY if beside else "",
            )
        )

    def _allowed_by_policy(self, work: Work) -> bool:
        """Whether it was the batch's policy, and no person, that let a queued task be bought beside a doubtful attempt.

        Such a leave is free again when its purchase failed, and the money for it may be gone by then (MON-4).
        """
        if self.terms.most_duplicates_microusd is None or not work.state.doubted:
            return False
        events = self._reader.events(stream=task_stream(work.batch, work.n))
        leaves = [row.event.operator for row in events if isinstance(row.event, OperatorDecided)]
        return leaves[-1:] == [_POLICY]

    def _guards(self, actor: AccountActor, choice: Choice, duplicate: bool, at_us: int) -> tuple[Guard, ...]:
        batch, account = self.terms.batch, actor.account
        guards: list[Guard] = [
            Count(lane_money(account.name, choice.lane), actor.most_unacknowledged),
            Reserve(risk_money(batch), self.terms.max_at_risk_microusd),
        ]
        if duplicate:
            guards.append(Reserve(duplicates_money(batch), self.terms.most_duplicates_microusd or 0))
        if self.terms.budget_microusd is not None:
            guards.append(Reserve(batch_money(batch), self.terms.budget_microusd))
        if account.budget_microusd is not None:
            guards.append(Reserve(account_money(account.name), account.budget_microusd))
        if account.budget_day_microusd is not None:
            guards.append(Reserve(day_money(account.name, at_us), account.budget_day_microusd))
        return tuple(guards)

    def _choices(self, work: Work) -> tuple[Choice, ...]:
        """Return the lanes that can take the task, cheapest first (then by name, so that plans are stable)."""
        choices = []
        for account in (actor.account for actor in self._actors.values()):
            price = self._price(account, work)
            if price is not None:
                choices.append(Choice(price.ceiling_microusd, account.name, account.codec.lane(work.request)))
        return tuple(sorted(choices, key=lambda choice: (choice.ceiling_microusd, choice.account)))

    def _price(self, account: Account, work: Work) -> Price | None:
        """What the task costs there; None where it cannot be bought."""
        if account.models and work.request.model not in account.models:
            return None
        if work.wanted.provider not in ("", account.provider) or account.codec.problem(work.request) is not None:
            return None
        return self._quote(account, work.request)

    def _line_up(self, work: Work, *, first: bool = False) -> None:
        line = self._lines.setdefault(self._choices(work), deque())
        if first:
            line.appendleft(work)
        else:
            line.append(work)

    def _look_for_dead_end(self) -> None:
        """Stop when what waits can never be placed: nothing is in flight that could make room.

        The window holds the first tasks of the queue only.  Where those behind it may have an account of their own that
        still buys, these here make room for them.
        """
        if not self._waiting or len(self.moving) > self._waiting:
            return
        if self._disk_tight:
            self.stop("disk_full")
            return
        open_choices = [choice for line in self._lines for choice in line if not self._actors[choice.account].parked]
        if not all(self._is_full(choice) for choice in open_choices):
            return
        capped: StopReason = "at_risk" if risk_money(self.terms.batch) in self._full else "budget"
        reason: StopReason = capped if open_choices else "no_provider"
        if self._exhausted or not self._others_buy():
            self.stop(reason)
            return
        self._set_aside = self._set_aside or reason
        for work in [work for line in self._lines.values() for work in line]:
            self.left(work)
        self._lines.clear()

    def _others_buy(self) -> bool:
        """Whether an account is neither parked nor known to be out of money."""
        working = [Choice(2**63, name, "") for name, actor in self._actors.items() if not actor.parked]
        return not all(self._is_full(choice) for choice in working)

    def _next_look_s(self) -> float:
        soon = min((actor.seconds_until_room for actor in self._actors.values()), default=_IDLE_LOOK_S)
        return max(0.01, min(_IDLE_LOOK_S, soon))


def _nobody(*_: object) -> None:
    """Stands in ``Submission.done`` until the account actor puts itself there."""
