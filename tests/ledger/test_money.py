"""How the books move; the laws over all histories are in ``test_laws.py``."""

from ledger.commands import Decide, Record
from ledger.events import (
    AttemptAccepted,
    AttemptAdopted,
    AttemptAmbiguous,
    AttemptFailed,
    AttemptIntended,
    AttemptLost,
    AttemptResent,
    AttemptUnknown,
    ResultReady,
    ResultSpared,
    TaskCompleted,
    TaskEvent,
)
from ledger.folds import TaskState, evolve_task
from ledger.money import (
    Balance,
    Move,
    account_money,
    adopted_money,
    ambiguous_money,
    batch_money,
    day_money,
    decided_money,
    duplicates_money,
    failed_money,
    held_money,
    holdings,
    lane_money,
    lost_money,
    moves,
    overcharge_money,
    risk_money,
    surplus_money,
    utc_day,
)
from ledger.rules import decide_task
from tests.ledger.stories import INTEND, UNKNOWN, after, completed

LANE = lane_money("kie", "default")


def step(state: TaskState, event: TaskEvent, epoch: int = 1) -> tuple[TaskState, dict[str, tuple[int, int, int]]]:
    new = evolve_task(state, event, epoch=epoch, at_us=0)
    moved = moves(state, new, batch=1, epoch=epoch)
    return new, {move.account: (move.reserved, move.captured, move.open) for move in moved}


def test_an_intent_reserves_everywhere_and_the_answer_frees_the_lane_and_the_risk() -> None:
    """MON-3, MON-8."""
    (intent,) = decide_task(after(), INTEND)
    state, moved = step(after(), intent)
    assert moved == {
        batch_money(1): (60_000, 0, 0),
        account_money("kie"): (60_000, 0, 0),
        day_money("kie", 0): (60_000, 0, 0),
        risk_money(1): (60_000, 0, 1),
        LANE: (60_000, 0, 1),
    }
    state, moved = step(state, AttemptAccepted(attempt=1, job="j"))
    assert moved == {risk_money(1): (-60_000, 0, -1), LANE: (-60_000, 0, -1)}
    state, moved = step(state, ResultReady(attempt=1))
    assert moved == {}
    state, moved = step(state, completed(1))
    assert moved[batch_money(1)] == (-60_000, 50_000, 0)


def test_a_charge_above_the_ceiling_is_captured_truly() -> None:
    """MON-8."""
    state = after(INTEND)
    for event in (AttemptAccepted(attempt=1, job="j"), ResultReady(attempt=1)):
        state, _ = step(state, event)
    over = TaskCompleted(
        attempt=1,
        version=1,
        sha256="aa",
        size=1,
        media_type="image/png",
        width=1,
        height=1,
        cost_microusd=90_000,
    )
    _, moved = step(state, over)
    assert moved[batch_money(1)] == (-60_000, 90_000, 0)


def test_what_an_older_epoch_left_open_never_moves_the_lanes_of_this_one() -> None:
    """MON-3: the lanes start empty in each epoch."""
    state, _ = step(after(INTEND), AttemptAmbiguous(attempt=1, reason="crash"), epoch=2)
    judged, moved = step(state, AttemptUnknown(attempt=1, reason="no_evidence"), epoch=2)
    assert moved == {ambiguous_money(1): (-60_000, 0, -1), held_money(1): (60_000, 0, 1)}
    assert judged.phase == "held"
    _, moved = step(state, AttemptResent(attempt=1), epoch=2)
    assert moved == {LANE: (60_000, 0, 1), ambiguous_money(1): (-60_000, 0, -1)}


def test_a_decision_releases_the_risk_but_not_the_reservation_and_a_second_purchase_is_a_duplicate() -> None:
    """MON-3, MON-4."""
    held = after(*UNKNOWN)
    (decided,) = decide_task(held, Decide(operator="ann", decision="buy_again", attempt=1))
    state, moved = step(held, decided)
    assert moved == {
        risk_money(1): (-60_000, 0, -1),
        held_money(1): (-60_000, 0, -1),
        decided_money(1): (60_000, 0, 1),
    }
    (intent,) = decide_task(state, INTEND)
    assert isinstance(intent, AttemptIntended)
    state, moved = step(state, intent)
    assert moved[duplicates_money(1)] == (60_000, 0, 0)
    books = {move.account: move for move in holdings(state, batch=1, epoch=1)}
    assert books[batch_money(1)] == Move(batch_money(1), 120_000, 0, 0)


def test_days_are_utc_and_balances_add_up() -> None:
    assert utc_day(1_795_305_599_999_999) == "2026-11-21"
    assert utc_day(1_795_305_600_000_000) == "2026-11-22"
    assert Balance(1, 2, 3).total == 3


def test_surplus_and_lost_are_lines_of_their_own_beside_the_cost() -> None:
    """MON-9, MON-10."""
    ready = (INTEND, Record(AttemptAccepted(attempt=1, job="j")), Record(ResultReady(attempt=1)))
    spared = ResultSpared(attempt=1, sha256="", size=1, media_type="image/png", cost_microusd=40_000)
    for fact, line in (
        (spared, surplus_money(1)),
        (AttemptLost(attempt=1, reason="expired", cost_microusd=40_000), lost_money(1)),
    ):
        state, moved = step(after(*ready), fact)
        assert moved[line] == (0, 40_000, 1)
        assert moved[batch_money(1)] == (-60_000, 40_000, 0)
        # Not a legal step, but history is never refused: the line goes with the attempt.
        _, moved = step(state, AttemptAccepted(attempt=1, job="j"))
        assert moved[line] == (0, -40_000, -1)


def test_what_was_found_again_is_a_line_until_it_turns_out_to_be_of_no_use() -> None:
    """MON-10: adopted in place of another purchase, first with its ceiling, then with its charge."""
    held = after(*UNKNOWN)
    state, moved = step(held, AttemptAdopted(attempt=1, job="j", evidence="lookup"))
    assert moved[adopted_money(1)] == (60_000, 0, 1)
    assert moved[held_money(1)] == (-60_000, 0, -1)
    ready, moved = step(state, ResultReady(attempt=1))
    assert moved == {}
    _, moved = step(ready, completed(1))
    assert moved[adopted_money(1)] == (-60_000, 50_000, 0)
    _, moved = step(ready, AttemptLost(attempt=1, reason="expired", cost_microusd=50_000))
    assert moved[adopted_money(1)] == (-60_000, 0, -1)
    assert moved[lost_money(1)] == (0, 50_000, 1)
    _, moved = step(state, AttemptFailed(attempt=1, reason="provider"))
    assert moved[adopted_money(1)] == (-60_000, 0, -1)
    assert failed_money(1) not in moved


def test_a_charge_for_a_failed_job_and_a_charge_above_the_ceiling_have_lines_of_their_own() -> None:
    """MON-8, MON-10."""
    accepted = after(INTEND, Record(AttemptAccepted(attempt=1, job="j")))
    _, moved = step(accepted, AttemptFailed(attempt=1, reason="policy", cost_microusd=70_000))
    assert moved == {
        batch_money(1): (-60_000, 70_000, 0),
        account_money("kie"): (-60_000, 70_000, 0),
        day_money("kie", 0): (-60_000, 70_000, 0),
        failed_money(1): (0, 70_000, 1),
        overcharge_money(1): (0, 10_000, 1),
    }
    _, moved = step(accepted, AttemptFailed(attempt=1, reason="policy"))
    assert not {failed_money(1), overcharge_money(1)} & set(moved)
