"""Laws of the pure core, over any history."""

from collections import defaultdict
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from ledger.commands import Intend, Record, TaskCommand
from ledger.encoding import decode_event, encode_event
from ledger.errors import CommandRejected
from ledger.events import AttemptResent, EpochStarted, OperatorDecided, TaskEvent
from ledger.folds import EMPTY_TASK, LIVE, TaskState, evolve_task
from ledger.money import Balance, holdings, moves
from ledger.projection import Projection
from ledger.rules import breach, decide_task
from ledger.streams import task_stream
from tests.ledger.stories import QUEUED, follower
from tests.ledger.strategies import events, stories

STREAM = task_stream(1, 1)
STARTED = EpochStarted(
    ledger_id="",
    machine="",
    device=0,
    inode=0,
    pid=0,
    app_version="",
    sqlite_version="",
    operator="",
    command="",
)


def replay(history: list[TaskEvent], start: TaskState = EMPTY_TASK) -> TaskState:
    return reduce(lambda state, event: evolve_task(state, event, epoch=1, at_us=0), history, start)


def tell(story: list[TaskCommand], queued: bool = True) -> list[tuple[TaskState, TaskEvent, TaskState]]:
    """Every step (before, event, after) that the commands make; refused ones make none."""
    state = replay([QUEUED if queued else follower()])
    steps = []
    for command in story:
        try:
            decided = decide_task(state, command)
        except CommandRejected:
            continue
        for event in decided:
            after = evolve_task(state, event, epoch=1, at_us=0)
            steps.append((state, event, after))
            state = after
    return steps


@given(history=st.lists(events, max_size=20), cut=st.integers(0, 20))
def test_replay_is_total_and_may_be_cut_anywhere(history: list[TaskEvent], cut: int) -> None:
    """REC-1, REC-3: a stored and re-read half makes no difference either."""
    head, tail = history[:cut], history[cut:]
    stored = [(event.TYPE, encode_event(event).decode()) for event in tail]
    again = [decode_event(tag, data) for tag, data in stored]
    state = replay(history)
    assert replay(again, start=replay(head)) == state  # type: ignore[arg-type]  # they were task events before
    assert state.version == len(history)


@given(story=stories, owns=st.booleans())
def test_whatever_is_decided_is_legal_and_deciding_again_adds_nothing(story: list[TaskCommand], owns: bool) -> None:
    """LED-3: a repeated command is on record; only an intent and a resend are never answered so."""
    state = replay([QUEUED if owns else follower()])
    for command in story:
        try:
            decided = decide_task(state, command)
        except CommandRejected:
            continue
        for event in decided:
            assert breach(state, event) == ""
            state = evolve_task(state, event, epoch=1, at_us=0)
        repeatable = not isinstance(command, Intend) and not (
            isinstance(command, Record) and isinstance(command.fact, AttemptResent)
        )
        if repeatable:
            assert decide_task(state, command) == ()


@given(story=stories)
def test_at_most_one_open_purchase_and_one_more_per_permission(story: list[TaskCommand]) -> None:
    """MON-2."""
    for _, _, state in tell(story):
        open_attempts = [a for a in state.attempts if a.phase in LIVE or a.phase == "unknown"]
        assert len(open_attempts) <= 1 + state.permissions
        assert state.permissions_used <= state.permissions
        assert len({a.permission for a in open_attempts}) == len(open_attempts)


@given(story=stories)
def test_a_slot_is_completed_once_and_no_image_is_ever_replaced(story: list[TaskCommand]) -> None:
    """RES-3."""
    for before, _, after in tell(story):
        versions = [result.version for result in after.results]
        assert len(set(versions)) == len(versions)
        assert [r.sha256 for r in after.results][: len(before.results)] == [r.sha256 for r in before.results]


@given(story=stories, epochs=st.lists(st.booleans(), min_size=40, max_size=40))
def test_the_books_are_the_sum_of_the_attempts_and_never_negative(story: list[TaskCommand], epochs: list[bool]) -> None:
    """MON-3, MON-8, MON-10: under any interleaving with new epochs, which empty the lanes."""
    projection = Projection()
    state = replay([QUEUED])
    epoch = 1
    names: set[str] = set()
    for command, starts in zip(story, epochs, strict=False):
        if starts:
            epoch += 1
            projection.runtime(1, epoch, STARTED)
        try:
            decided = decide_task(state, command)
        except CommandRejected:
            continue
        for event in decided:
            after = evolve_task(state, event, epoch=epoch, at_us=0)
            projection.move(moves(state, after, batch=1, epoch=epoch))
            state = after
            held = {move.account: move for move in holdings(state, batch=1, epoch=epoch)}
            names.update(held)
            for name in names:
                balance = projection.balance(name)
                assert min(balance) >= 0
                move = held.get(name)
                assert balance == (Balance() if move is None else Balance(*move[1:]))
    doubtful = sum(a.ceiling_microusd for a in state.attempts if a.phase in LIVE or a.phase == "unknown")
    assert projection.balance("batch/1").reserved == doubtful


@given(story=stories, owns=st.booleans())
def test_an_erased_task_is_settled_for_good(story: list[TaskCommand], owns: bool) -> None:
    """SEC-8: nothing that needs its text can happen to it any more, so nothing ever asks for it."""
    for before, event, after in tell(story, queued=owns):
        if before.erased or after.erased:
            assert after.phase in ("succeeded", "failed", "cancelled")
            assert not any(a.phase in LIVE or a.doubtful for a in after.attempts)
            assert after.phase == before.phase
            assert after.attempts == before.attempts or isinstance(event, OperatorDecided)
            assert after.erased


@given(story=stories)
def test_counts_follow_the_phases(story: list[TaskCommand]) -> None:
    """Every task is counted in exactly one phase, however it got there."""
    projection = Projection()
    projection.task(1, STREAM, 0, QUEUED, EMPTY_TASK, replay([QUEUED]))
    sums: dict[str, int] = defaultdict(int)
    for seq, (before, event, after) in enumerate(tell(story), 2):
        projection.task(seq, STREAM, 0, event, before, after)
    for _batch, state, _provider, n in projection.take().counts:
        assert isinstance(state, str)
        assert isinstance(n, int)
        assert n >= 0
        sums[state] += n
    final = replay([QUEUED, *(event for _, event, _ in tell(story))])
    phases = {state: n for state, n in sums.items() if n and state not in ("flagged", "rejected", "shared")}
    assert phases == {final.phase: 1}
