"""The router: who buys what next, and when the night is over (MON-3, MON-8, LIVE-1, LIVE-3)."""

from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import msgspec
import pytest
import trio

from adapters.base import ImageRequest
from adapters.prices import Price
from ledger.commands import Decide, Intend, Record
from ledger.decisions import Exceeded, Guard, Reserve
from ledger.events import AttemptAmbiguous, AttemptUnknown, OperatorDecided, Recorded
from ledger.money import Balance, account_money, batch_money, day_money, duplicates_money, risk_money
from ledger.openwork import LiveAttempt, QueuedTask
from ledger.reader import Reader
from ledger.streams import task_stream
from runtime.account import AccountActor
from runtime.accounts import Account
from runtime.gateway import Submission
from runtime.requests import encode_request
from runtime.router import Router, StopReason, Terms
from runtime.work import Work, WorkKey
from tests.runtime.fakes import Bench, run


class FakeActor:
    """An account with so much room; what it is offered waits until the test ends it."""

    def __init__(self, account: Account, *, room: int = 1) -> None:
        self.account = account
        self.free = room
        self.parked = ""
        self.offered: list[Submission] = []
        self.seconds_until_room = float("inf")
        self.most_unacknowledged = 10

    def room(self, lane: str) -> int:
        return 0 if self.parked else self.free - len(self.offered)

    def offer(self, submission: Submission) -> None:
        self.offered.append(submission)

    def stop_buying(self) -> list[Work]:
        return []

    def prompts(self) -> list[str]:
        return [submission.work.request.prompt for submission in self.offered]


class FakeReader:
    """The queue of one batch, and what was spent on duplicates."""

    def __init__(self, bench: Bench, prompts: Sequence[str]) -> None:
        self.tasks = [bench.work(n, prompt=prompt) for n, prompt in enumerate(prompts, 1)]
        self.gone: set[int] = set()
        self.duplicates = 0
        self.newer: set[int] = set()  # tasks that somebody else has written to meanwhile
        self.leaves: list[Recorded] = []

    def held(self, batch: int) -> list[LiveAttempt]:
        return []

    def money(self, prefix: str) -> dict[str, Balance]:
        return {prefix: Balance(captured=self.duplicates)}

    def events(self, *, stream: int) -> list[Recorded]:
        return self.leaves

    def version(self, stream: int) -> int:
        work = next(work for work in self.tasks if task_stream(1, work.n) == stream)
        return work.state.version + (work.n in self.newer)

    def queued(self, batch: int, *, after: int, limit: int) -> list[QueuedTask]:
        return [
            QueuedTask(work.n, work.state, encode_request(work.request, {}), b"salt")
            for work in self.tasks
            if work.n > after and work.n not in self.gone
        ][:limit]


class Routing:
    def __init__(
        self,
        prompts: Sequence[str],
        *,
        rooms: dict[str, int],
        prices: dict[str, int] | None = None,
        limit: int = 0,
        sample: int = 0,
        max_duplicate: int | None = None,
        leaves: int | None = None,
        late: Sequence[str] = (),
    ) -> None:
        self.bench = Bench()
        self.actors = {
            name: FakeActor(msgspec.structs.replace(self.bench.account, name=name), room=room)
            for name, room in rooms.items()
        }
        self.prices = prices or {}
        self.disk = True
        self.reader = FakeReader(self.bench, prompts)
        self.router = Router(
            Terms(
                batch=1,
                tasks=len(prompts),
                budget_microusd=None,
                max_at_risk_microusd=10**9,
                limit=limit,
                sample=sample,
                max_duplicate_microusd=max_duplicate,
                leaves_microusd=leaves,
            ),
            [cast(AccountActor, actor) for actor in self.actors.values()],
            reader=cast(Reader, self.reader),
            log=self.bench.log,
            clock=self.bench.clock,
            quote=self.quote,
            disk_room=lambda images: self.disk,
            late=[msgspec.structs.replace(self.bench.account, name=name) for name in late],
        )

    def quote(self, account: Account, request: ImageRequest) -> Price | None:
        microusd = self.prices.get(request.prompt, self.prices.get(account.name, 40_000))
        nowhere = "unplaceable" in request.prompt or f"not at {account.name}" in request.prompt
        return None if nowhere else Price(microusd, "test", "2026-11-22", "assumed")

    def take(self, name: str = "a") -> Submission:
        """The oldest submission of an account, as its actor would take it."""
        return self.actors[name].offered.pop(0)

    def refuse(self, submission: Submission, guard: Guard) -> None:
        self.router.blocked(submission, Exceeded(guard, 0))


def route(routing: Routing, body: Callable[[], Awaitable[None]]) -> StopReason:
    """Run the router beside the body; the night must end within an hour after it."""
    stopped: list[StopReason] = []

    async def go() -> None:
        with trio.fail_after(3600.0):
            async with trio.open_nursery() as nursery:

                async def routed() -> None:
                    stopped.append(await routing.router.run())

                nursery.start_soon(routed)
                await trio.sleep(0.5)
                await body()

    run(go)
    return stopped[0]


def cap(name: str) -> Reserve:
    return Reserve(name, 1)


def test_a_purchase_is_held_to_the_budgets_of_its_account_and_of_its_day() -> None:
    """MON-8: the day is that of the intent, which may be another one than when the task was offered."""
    routing = Routing(["x"], rooms={"a": 1})
    actor = routing.actors["a"]
    actor.account = msgspec.structs.replace(actor.account, budget_microusd=700_000, budget_day_microusd=300_000)

    async def body() -> None:
        submission = routing.take()
        for at_us, day in ((0, "1970-01-01"), (86_399_999_999, "1970-01-01"), (86_400_000_000, "1970-01-02")):
            guards = submission.guards(at_us)
            assert Reserve("account/a", 700_000) in guards
            assert [each for each in guards if isinstance(each, Reserve) and each.account.startswith("day/")] == [
                Reserve(f"day/a/{day}", 300_000)
            ]
        routing.router.settled(submission.work)

    assert route(routing, body) == ""


def test_the_cheapest_takes_all_it_can_and_the_rest_spills() -> None:
    routing = Routing(["x", "y"], rooms={"a": 1, "b": 1}, prices={"a": 50_000, "b": 40_000})

    async def body() -> None:
        assert (routing.actors["b"].prompts(), routing.actors["a"].prompts()) == (["x"], ["y"])
        assert (routing.take("b").route, routing.actors["a"].offered[0].route) == ("cheapest", "spill")
        routing.router.let_go()

    route(routing, body)


def test_a_task_that_follows_another_is_not_bought_when_it_is_wanted_again() -> None:
    """MON-2, LIVE-3: a retry in a running night lined it up, and the refused intent ended the night."""
    routing = Routing(["x"], rooms={"a": 2})

    async def body() -> None:
        follower = routing.bench.work(7)
        follower.state = msgspec.structs.replace(follower.state, owner=1)
        routing.router.give_back(follower)
        await trio.sleep(5.0)
        assert routing.actors["a"].prompts() == ["x"]
        routing.router.settled(routing.take("a").work)

    assert route(routing, body) == ""


def test_the_night_is_over_when_everything_is_settled() -> None:
    """LIVE-1."""
    routing = Routing(["x", "y", "z"], rooms={"a": 1})

    async def body() -> None:
        for prompt in ("x", "y", "z"):
            submission = routing.take()
            assert submission.work.request.prompt == prompt
            routing.router.settled(submission.work)
            await trio.sleep(0.5)

    assert route(routing, body) == ""


def test_a_refused_purchase_is_not_tried_again_until_something_moves() -> None:
    """MON-8: it was offered again at once, over and over, and took the account's rate."""
    routing = Routing(["x", "y"], rooms={"a": 2})

    async def body() -> None:
        first, second = routing.take(), routing.take()
        routing.refuse(first, cap(day_money("a", routing.bench.clock.now_us())))
        await trio.sleep(10.0)
        assert routing.actors["a"].offered == []
        routing.router.settled(second.work)
        await trio.sleep(0.5)
        assert routing.take().work is first.work
        routing.router.settled(first.work)

    assert route(routing, body) == ""


@pytest.mark.parametrize(
    ("money", "reason"), [(batch_money(1), "budget"), (account_money("a"), "budget"), (risk_money(1), "at_risk")]
)
def test_a_full_cap_ends_the_night_when_nothing_in_flight_can_make_room(money: str, reason: str) -> None:
    """MON-3, MON-8."""
    routing = Routing(["x", "y"], rooms={"a": 2})

    async def body() -> None:
        first, second = routing.take(), routing.take()
        routing.refuse(second, cap(money))
        await trio.sleep(100.0)
        assert routing.router.stopped == ""  # the first one may still make room
        routing.router.settled(first.work)
        await trio.sleep(0.5)
        routing.refuse(routing.take(), cap(money))

    assert route(routing, body) == reason


def test_a_task_too_dear_for_what_is_left_does_not_stop_the_cheaper_ones() -> None:
    """LIVE-3, MON-8: the whole batch counted as out of budget."""
    routing = Routing(["dear", "cheap"], rooms={"a": 1}, prices={"dear": 200_000, "cheap": 10_000})

    async def body() -> None:
        for bought in ("dear", "cheap", "dear"):
            submission = routing.take()
            assert submission.work.request.prompt == bought
            if bought == "dear":
                routing.refuse(submission, cap(batch_money(1)))
            else:
                routing.router.settled(submission.work)
            await trio.sleep(0.5)

    assert route(routing, body) == "budget"


@pytest.mark.parametrize(
    ("spent", "decided", "bought"), [(20_000, False, True), (20_001, False, False), (0, True, False)]
)
def test_what_the_budget_for_duplicates_refused_is_tried_again_when_it_has_room(
    spent: int, decided: bool, bought: bool
) -> None:
    """MON-4, LIVE-1: a charge below its ceiling makes room, and only the next run used it.  What somebody decided about
    meanwhile is left to them."""
    routing = Routing(["x", "y"], rooms={"a": 2}, max_duplicate=70_000)
    routing.reader.duplicates = 70_000

    async def body() -> None:
        first, second = routing.take(), routing.take()
        routing.refuse(second, cap(duplicates_money(1)))
        routing.router.moved()
        await trio.sleep(10.0)
        assert routing.actors["a"].offered == []
        routing.reader.duplicates = spent
        routing.reader.newer = {2} if decided else set()
        routing.router.settled(first.work)
        await trio.sleep(0.5)
        assert [each.work for each in routing.actors["a"].offered] == ([second.work] if bought else [])
        if bought:
            routing.router.settled(routing.take().work)

    assert route(routing, body) == ("budget" if spent == 20_001 else "")


@pytest.mark.parametrize("operator", ["on-unknown resubmit", "ann"])
@pytest.mark.parametrize(("now", "leaves"), [(70_000, None), (None, 70_000), (None, None)])
def test_a_leave_of_the_policy_is_held_to_its_budget_also_when_the_policy_is_another(
    operator: str, now: int | None, leaves: int | None
) -> None:
    """MON-4: its purchase failed, the batch went back to holding, and it was bought again without a cap.  What a person
    allowed, or said yes to, has none."""
    routing = Routing(["x"], rooms={"a": 1}, max_duplicate=now, leaves=leaves)
    leave = OperatorDecided(attempt=1, decision="buy_again", operator=operator)
    routing.reader.leaves = [Recorded(1, 1, 1, 1, 0, leave)]

    async def body() -> None:
        submission = routing.take()
        reserved = [guard for guard in submission.guards(0) if guard == Reserve(duplicates_money(1), 70_000)]
        assert len(reserved) == (operator != "ann" and (now or leaves) is not None)
        routing.router.settled(submission.work)

    work = routing.reader.tasks[0]

    async def left_queued_by_a_run() -> None:
        for command in (
            Intend("a", "a", "1:1", "only", 40_000, "d", 0),
            Record(AttemptAmbiguous(attempt=1, reason="no_reply")),
            Record(AttemptUnknown(attempt=1, reason="no_evidence")),
            Decide(operator, "buy_again", 1),
        ):
            await routing.bench.log.record(work, command)

    run(left_queued_by_a_run)
    assert work.state.phase == "queued"
    assert work.state.doubted
    assert route(routing, body) == ""


def test_room_for_duplicates_that_came_before_the_refusal_was_heard_is_used() -> None:
    """MON-4, LIVE-1: nobody would have told of it again."""
    routing = Routing(["x"], rooms={"a": 1}, max_duplicate=70_000)

    async def body() -> None:
        routing.refuse(routing.take(), cap(duplicates_money(1)))
        await trio.sleep(0.5)
        routing.router.settled(routing.take().work)

    assert route(routing, body) == ""


def test_waiting_for_a_slow_lane_is_no_dead_end() -> None:
    """A full cap elsewhere and an account that is only between two calls: the night was ended as out of budget."""
    routing = Routing(["x"], rooms={"a": 1, "b": 0})

    async def body() -> None:
        first = routing.take()
        routing.refuse(first, cap(account_money("a")))
        await trio.sleep(100.0)
        assert routing.router.stopped == ""
        routing.actors["b"].free = 1
        routing.router.moved()
        await trio.sleep(0.5)
        routing.router.settled((routing.take("a") if routing.actors["a"].offered else routing.take("b")).work)

    assert route(routing, body) == ""


def test_all_accounts_parked_ends_the_night() -> None:
    routing = Routing(["x"], rooms={"a": 0, "b": 0})

    async def body() -> None:
        routing.actors["a"].parked = "no_credit"
        await trio.sleep(5.0)
        assert routing.router.stopped == ""
        routing.actors["b"].parked = "no_credit"

    assert route(routing, body) == "no_provider"


@pytest.mark.parametrize("cap_of", ["", "account/a"])
def test_a_window_full_of_tasks_that_nobody_takes_does_not_hide_those_behind_it(cap_of: str) -> None:
    """LIVE-1, LIVE-4: what the first tasks of the queue waited for ended the night, and others could still buy."""
    routing = Routing(["not at b"] * 2500 + ["not at a"] * 2, rooms={"a": 1, "b": 1})

    async def body() -> None:
        if not cap_of:
            routing.actors["a"].parked = "no_credit"
            routing.router.give_back(routing.take("a").work)
        bought: list[int] = []
        while len(bought) < 2:
            while routing.actors["a"].offered:  # each time something has moved, the cap is tried again
                routing.refuse(routing.take("a"), cap(cap_of))
            await trio.sleep(5.0)
            for submission in routing.actors["b"].offered[:]:
                bought.append(routing.take("b").work.n)
                routing.router.settled(submission.work)
            await trio.sleep(0.5)
        assert bought == [2501, 2502]
        while routing.actors["a"].offered:
            routing.refuse(routing.take("a"), cap(cap_of))

    assert route(routing, body) == ("budget" if cap_of else "no_provider")


def test_tasks_of_a_parked_account_go_to_others() -> None:
    """LIVE-4."""
    routing = Routing(["x"], rooms={"a": 1, "b": 1}, prices={"a": 1, "b": 2})

    async def body() -> None:
        work = routing.take("a").work
        routing.actors["a"].parked = "no_credit"
        routing.router.give_back(work)
        await trio.sleep(0.5)
        assert routing.actors["b"].offered[0].work is work
        routing.router.settled(routing.take("b").work)

    assert route(routing, body) == ""


def test_a_refusal_after_the_stop_ends_the_task_for_this_run() -> None:
    """LIVE-5: it was lined up again and waited for, and nobody bought any more: the run never ended."""
    routing = Routing(["x"], rooms={"a": 1})

    async def body() -> None:
        submission = routing.take()
        routing.router.stop("deadline")
        routing.refuse(submission, cap(batch_money(1)))

    assert route(routing, body) == "deadline"


def test_what_was_stopped_brings_home_what_is_in_flight() -> None:
    """LIVE-5."""
    routing = Routing(["x", "y", "z"], rooms={"a": 2})

    async def body() -> None:
        first, second = routing.take(), routing.take()
        routing.router.stop("interrupted")
        await trio.sleep(50.0)
        assert set(routing.router.moving) == {WorkKey(1, 1), WorkKey(1, 2)}
        routing.router.give_back(first.work)
        routing.router.settled(second.work)

    assert route(routing, body) == "interrupted"


def test_two_objects_of_one_task_do_not_end_each_other() -> None:
    """MON-2: a retry that was paged in before it was handed over; the second one's end must not end the first."""
    routing = Routing(["x"], rooms={"a": 1})

    async def body() -> None:
        submission = routing.take()
        other = routing.bench.work(1, prompt="x")
        routing.router.give_back(other)
        routing.router.settled(other)
        await trio.sleep(5.0)
        assert routing.router.moving == {WorkKey(1, 1): submission.work}
        assert routing.actors["a"].offered == []
        routing.router.settled(submission.work)

    assert route(routing, body) == ""


def test_what_nobody_can_take_fails_and_the_others_are_bought() -> None:
    """LIVE-1, LIVE-3; also when it is queued again by a retry."""
    routing = Routing(["unplaceable one", "x"], rooms={"a": 1})

    async def body() -> None:
        assert routing.bench.journal.types() == ["TaskFailed"]
        routing.router.give_back(routing.bench.work(3, prompt="unplaceable too"))
        await trio.sleep(0.5)
        assert routing.bench.journal.types() == ["TaskFailed", "TaskFailed"]
        routing.router.settled(routing.take().work)

    assert route(routing, body) == ""


def test_what_only_the_deadline_keeps_from_an_account_waits_for_another_night() -> None:
    """LIVE-1: it failed for want of a provider, and was never bought unless somebody asked for it again."""
    routing = Routing(["not at a", "unplaceable", "x"], rooms={"a": 1}, late=["b"])

    async def body() -> None:
        routing.router.settled(routing.take().work)

    assert route(routing, body) == "deadline"
    assert routing.bench.journal.types() == ["TaskFailed"]  # the one that nobody takes


def test_a_task_that_nobody_can_follow_is_not_all_done() -> None:
    """LIVE-4: a refused key leaves a paid job open; the night ended as if everything were settled."""
    routing = Routing(["x", "y"], rooms={"a": 2})

    async def body() -> None:
        routing.router.strand(routing.take().work)
        routing.router.settled(routing.take().work)

    assert route(routing, body) == "no_provider"


def test_a_disk_without_room_stops_the_buying() -> None:
    routing = Routing(["x", "y"], rooms={"a": 1})

    async def body() -> None:
        submission = routing.take()
        routing.disk = False
        routing.router.settled(submission.work)

    assert route(routing, body) == "disk_full"


@pytest.mark.parametrize(("terms", "wanted"), [((3, 0), [1, 2, 3]), ((0, 2), [5, 10]), ((0, 0), [*range(1, 11)])])
def test_limit_and_sample_choose_the_same_tasks_each_time(terms: tuple[int, int], wanted: list[int]) -> None:
    routing = Routing([f"{n}" for n in range(1, 11)], rooms={"a": 20}, limit=terms[0], sample=terms[1])

    async def body() -> None:
        assert [submission.work.n for submission in routing.actors["a"].offered] == wanted
        routing.router.let_go()

    route(routing, body)


def test_tasks_of_other_batches_are_waited_for_and_not_bought() -> None:
    routing = Routing([], rooms={"a": 1})
    other = Work(2, 1, routing.bench.work(1).state, routing.bench.work(1).wanted, b"")
    routing.router.follow([other])

    async def body() -> None:
        assert routing.router.moving
        routing.router.give_back(other)

    assert route(routing, body) == ""
