"""Examples of decide and evolve, one story each; the laws are in ``test_laws.py``."""

import pytest
from msgspec.structs import replace

from ledger.commands import Cancel, Decide, Erase, Fail, Find, Record, Retry, Review, Share, TaskCommand
from ledger.errors import CommandRejected
from ledger.events import (
    AttemptAbsent,
    AttemptAccepted,
    AttemptAdopted,
    AttemptAmbiguous,
    AttemptFailed,
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
    TaskEvent,
    TaskFailed,
    TaskRetried,
)
from ledger.folds import EMPTY_TASK, TaskState
from ledger.rules import breach, decide_task
from tests.ledger.stories import INTEND, QUEUED, UNKNOWN, after, bought, completed, fold, follower, intent


def test_a_task_that_goes_well_takes_five_events() -> None:
    state = after(INTEND, *bought(1))
    assert (state.phase, state.version, state.attempts[0].phase) == ("succeeded", 5, "done")
    assert state.current is not None
    assert state.current.sha256 == "aa"


def test_a_second_intent_is_refused_and_never_answered_with_silence() -> None:
    """MON-2: silence would read as leave to send."""
    with pytest.raises(CommandRejected):
        decide_task(after(INTEND), INTEND)


def test_a_doubtful_attempt_blocks_until_a_permission_and_allows_one_purchase_per_permission() -> None:
    """MON-2."""
    held = after(*UNKNOWN)
    assert held.phase == "held"
    with pytest.raises(CommandRejected):
        decide_task(held, INTEND)
    again = after(*UNKNOWN, Decide(operator="ann", decision="buy_again", attempt=1))
    assert (again.phase, again.open_permission) == ("queued", 1)
    second = fold(again, decide_task(again, INTEND))
    assert (second.attempts[1].permission, second.permissions_used, second.open_permission) == (1, 1, 0)
    rejected = fold(second, decide_task(second, Record(AttemptRejected(attempt=2, reason="throttled"))))
    assert (rejected.phase, rejected.open_permission) == ("queued", 1)


def test_a_late_adopted_job_is_spared_when_the_slot_is_filled() -> None:
    """RES-3, MON-9."""
    state = after(
        *UNKNOWN,
        Decide(operator="ann", decision="buy_again", attempt=1),
        INTEND,
        *bought(2),
        Record(AttemptAdopted(attempt=1, job="job-1", evidence="callback")),
        Record(ResultReady(attempt=1)),
    )
    (event,) = decide_task(state, Record(completed(1, "bb")))
    assert isinstance(event, ResultSpared)
    state = fold(state, (event,))
    assert (state.phase, state.attempts[0].phase, len(state.results)) == ("succeeded", "surplus", 1)


FOUND_IT = Find(replace(INTEND, route="takeover", account="replicate", provider="replicate"), "theirs", "listing")
CALLED_OFF = Cancel(operator="ann")
GIVEN_UP = Decide(operator="ann", decision="give_up", attempt=1)


@pytest.mark.parametrize(
    ("story", "ends"),
    [((INTEND, *bought(1)), "surplus"), ((CALLED_OFF,), "done"), ((*UNKNOWN, GIVEN_UP), "done")],
)
def test_what_another_copy_bought_of_a_settled_task_is_put_on_record(story: tuple[TaskCommand, ...], ends: str) -> None:
    """MON-9, MON-10, REC-10: its image is kept as a spare, or is the one that the task lacks."""
    before = after(*story)
    n = len(before.attempts) + 1
    events = decide_task(before, FOUND_IT)
    for event in events:
        assert breach(before if event is events[0] else fold(before, events[: events.index(event)]), event) == ""
    found = fold(before, events)
    assert (found.phase, found.attempts[-1].phase, found.attempts[-1].route) == (before.phase, "accepted", "found")
    assert decide_task(found, FOUND_IT) == (), "twice is once"
    state = fold(found, decide_task(found, Record(ResultReady(attempt=n))))
    state = fold(state, decide_task(state, Record(completed(n, "bb"))))
    assert (state.phase, state.attempts[-1].phase) == ("succeeded", ends)


def test_a_waiting_task_is_bought_by_what_was_found_and_an_open_one_takes_nothing() -> None:
    """MON-2, REC-10."""
    found = fold(after(), decide_task(after(), FOUND_IT))
    assert (found.phase, found.attempts[0].route, found.attempts[0].job) == ("accepted", "takeover", "theirs")
    with pytest.raises(CommandRejected):
        decide_task(after(INTEND), FOUND_IT)
    assert "bought while intended" in breach(after(INTEND), replace(intent(2), route="found"))


def test_a_doubt_of_a_settled_task_is_what_was_found() -> None:
    """REC-5: at the same account; another purchase beside it is not made up."""
    state = after(*UNKNOWN, GIVEN_UP)
    here = replace(FOUND_IT, intend=INTEND)
    assert decide_task(state, here) == (AttemptAdopted(attempt=1, job="theirs", evidence="listing"),)


def test_for_an_erased_task_nothing_is_found() -> None:
    """SEC-8."""
    state = after(CALLED_OFF, Erase(operator="ann"))
    with pytest.raises(CommandRejected, match="erased"):
        decide_task(state, FOUND_IT)
    assert breach(state, replace(intent(1), route="found")) == "its texts were erased"
    assert breach(after(CALLED_OFF), replace(intent(2), route="found")) == "is no next purchase"


@pytest.mark.parametrize(
    ("fact", "retryable", "reason"),
    [
        (AttemptRejected(attempt=1, reason="invalid"), True, "rejected"),
        (AttemptRejected(attempt=1, reason="policy"), True, "policy"),
        (AttemptFailed(attempt=1, reason="policy"), True, "policy"),
        (AttemptFailed(attempt=1, reason="provider"), False, "failed_for_good"),
    ],
)
def test_failures_that_end_a_task(fact: TaskEvent, retryable: bool, reason: str) -> None:
    state = after(INTEND, Record(fact, retryable=retryable))
    assert (state.phase, state.reason) == ("failed", reason)


@pytest.mark.parametrize(
    "fact",
    [
        AttemptNotSent(attempt=1, reason="connect"),
        AttemptRejected(attempt=1, reason="throttled"),
        AttemptFailed(attempt=1, reason="provider"),
    ],
)
def test_outcomes_that_queue_the_task_again(fact: TaskEvent) -> None:
    state = after(INTEND, Record(fact))
    assert state.phase == "queued"
    assert state.failures == isinstance(fact, AttemptFailed)


def test_attempts_are_exhausted_by_failures_alone_and_a_retry_counts_anew() -> None:
    failed = Record(AttemptFailed(attempt=2, reason="provider"), max_attempts=1)
    state = after(INTEND, Record(AttemptNotSent(attempt=1, reason="connect")), INTEND, failed)
    assert (state.phase, state.reason) == ("failed", "attempts_exhausted")
    state = fold(state, decide_task(state, Retry(operator="ann")))
    assert (state.phase, state.failures, state.slot) == ("queued", 0, 1)


def test_absence_queues_again_and_loss_fails() -> None:
    ambiguous = (INTEND, Record(AttemptAmbiguous(attempt=1, reason="no_reply")))
    assert after(*ambiguous, Record(AttemptAbsent(attempt=1, evidence="listing"))).phase == "queued"
    lost = after(
        INTEND,
        Record(AttemptAccepted(attempt=1, job="j")),
        Record(AttemptLost(attempt=1, reason="expired", cost_microusd=5)),
    )
    assert (lost.phase, lost.reason) == ("failed", "lost")


def test_a_resend_puts_the_attempt_on_the_wire_again_in_this_epoch() -> None:
    """MON-5."""
    state = after(INTEND, Record(AttemptAmbiguous(attempt=1, reason="crash")))
    state = fold(state, decide_task(state, Record(AttemptResent(attempt=1))), epoch=7)
    assert (state.phase, state.attempts[0].epoch) == ("intended", 7)


def test_cancel_in_every_phase() -> None:
    assert after(Cancel(operator="ann")).phase == "cancelled"
    held = decide_task(after(*UNKNOWN), Cancel(operator="ann"))
    assert [type(event) for event in held] == [OperatorDecided, TaskCancelled]
    asked = after(INTEND, Cancel(operator="ann"))
    assert (asked.phase, asked.cancel_asked) == ("intended", True)
    assert decide_task(asked, Cancel(operator="ann")) == ()
    assert decide_task(after(INTEND), Cancel(operator="ann")) == (CancelAsked(operator="ann"),)
    assert decide_task(after(INTEND, *bought(1)), Cancel(operator="ann")) == ()
    # What ends unpaid after the wish is cancelled; what was paid for all the same is kept (MON-9).
    stopped = after(INTEND, Cancel(operator="ann"), Record(AttemptFailed(attempt=1, reason="cancelled")))
    assert (stopped.phase, stopped.cancel_operator) == ("cancelled", "ann")
    assert after(INTEND, Cancel(operator="ann"), *bought(1)).phase == "succeeded"


def test_a_rejected_image_opens_the_next_version() -> None:
    """RES-3: all versions stay, one is current."""
    done = after(INTEND, *bought(1))
    with pytest.raises(CommandRejected):
        decide_task(done, Retry(operator="ann"))
    review = Review(version=1, verdict="rejected", operator="ann")
    retried = after(INTEND, *bought(1), review, Retry(operator="ann"))
    assert (retried.phase, retried.slot) == ("queued", 2)
    assert decide_task(after(INTEND, *bought(1), review), review) == ()
    again = after(INTEND, *bought(1), review, Retry(operator="ann"), INTEND, *bought(2, "bb"))
    assert [(r.version, r.sha256) for r in again.results] == [(1, "aa"), (2, "bb")]
    with pytest.raises(CommandRejected):
        decide_task(again, Review(version=3, verdict="accepted", operator="ann"))


def test_resolving_a_held_task() -> None:
    held = after(*UNKNOWN)
    give_up = decide_task(held, Decide(operator="ann", decision="give_up", attempt=1))
    assert fold(held, give_up).reason == "given_up"
    adopt = Decide(operator="ann", decision="adopt", attempt=1, job="job-9")
    adopted = fold(held, decide_task(held, adopt))
    assert (adopted.phase, adopted.attempts[0].job, adopted.attempts[0].adopted_by) == (
        "accepted",
        "job-9",
        "operator",
    )
    assert decide_task(adopted, adopt) == ()
    for refused in (
        Decide(operator="ann", decision="adopt", attempt=1),
        Decide(operator="ann", decision="give_up", attempt=2),
    ):
        with pytest.raises(CommandRejected):
            decide_task(held, refused)
    with pytest.raises(CommandRejected):
        decide_task(after(INTEND), Decide(operator="ann", decision="give_up", attempt=1))


def test_a_decision_is_made_once() -> None:
    buy = Decide(operator="ann", decision="buy_again", attempt=1)
    decided = after(*UNKNOWN, buy)
    assert decide_task(decided, buy) == ()
    with pytest.raises(CommandRejected):
        decide_task(decided, Decide(operator="ann", decision="give_up", attempt=1))


def test_retrying_a_given_up_task_is_leave_to_buy_beside_the_doubt() -> None:
    """MON-2."""
    give_up = Decide(operator="ann", decision="give_up", attempt=1)
    state = after(*UNKNOWN, give_up, Retry(operator="ann"))
    assert (state.phase, state.permissions) == ("queued", 1)
    assert fold(state, decide_task(state, INTEND)).attempts[1].permission == 1


def test_doubt_that_falls_on_a_settled_task_is_decided_without_touching_it() -> None:
    """MON-2: the doubtful money is released from the risk line, the image stays."""
    state = after(
        *UNKNOWN,
        Decide(operator="ann", decision="buy_again", attempt=1),
        INTEND,
        Record(AttemptAmbiguous(attempt=2, reason="no_reply")),
        Record(AttemptAdopted(attempt=1, job="job-1", evidence="listing")),
        *bought(1)[1:],
        Record(AttemptUnknown(attempt=2, reason="no_evidence")),
    )
    assert (state.phase, state.attempts[1].doubtful) == ("succeeded", True)
    with pytest.raises(CommandRejected):
        decide_task(state, Decide(operator="ann", decision="buy_again", attempt=2))
    events = decide_task(state, Decide(operator="ann", decision="give_up", attempt=2))
    assert [type(event) for event in events] == [OperatorDecided]
    assert fold(state, events).phase == "succeeded"


SHARE = Share(owner=1, version=1, sha256="aa", size=1, media_type="image/png", width=1, height=1)


def test_a_follower_takes_the_owners_image_and_never_buys_before_it_is_rejected() -> None:
    with pytest.raises(CommandRejected):
        decide_task(after(queued=follower()), INTEND)
    shared = after(SHARE, queued=follower())
    assert (shared.phase, shared.results[0].owner) == ("succeeded", 1)
    assert decide_task(shared, SHARE) == ()
    rejected = after(
        SHARE,
        Review(version=1, verdict="rejected", operator="ann"),
        Retry(operator="ann"),
        queued=follower(),
    )
    assert rejected.owner == 0
    assert fold(rejected, decide_task(rejected, INTEND)).phase == "intended"
    for state in (after(), after(Cancel(operator="ann"), queued=follower())):
        with pytest.raises(CommandRejected):
            decide_task(state, SHARE)


def test_fail_is_for_tasks_that_wait() -> None:
    failed = after(Fail(reason="input_changed"))
    assert (failed.phase, failed.reason) == ("failed", "input_changed")
    assert decide_task(failed, Fail(reason="input_changed")) == ()
    for state in (after(INTEND), failed):
        with pytest.raises(CommandRejected):
            decide_task(state, Fail(reason="no_provider"))


def test_retry_of_unsettled_tasks() -> None:
    assert decide_task(after(INTEND), Retry(operator="ann")) == ()
    with pytest.raises(CommandRejected):
        decide_task(after(*UNKNOWN), Retry(operator="ann"))


def test_a_repeated_fact_is_on_record_and_a_contradiction_is_refused() -> None:
    state = after(INTEND, Record(AttemptAccepted(attempt=1, job="j")))
    assert decide_task(state, Record(AttemptAccepted(attempt=1, job="j"))) == ()
    for fact in (
        AttemptAccepted(attempt=1, job="other"),
        AttemptNotSent(attempt=1, reason="connect"),
        AttemptAccepted(attempt=2, job="j"),
        TaskFailed(reason="lost"),
    ):
        with pytest.raises(CommandRejected):
            decide_task(state, Record(fact))


def test_nothing_happens_to_a_task_that_was_never_queued() -> None:
    with pytest.raises(CommandRejected):
        decide_task(EMPTY_TASK, Cancel(operator="ann"))


@pytest.mark.parametrize(
    ("state", "event", "words"),
    [
        (EMPTY_TASK, intent(1), "before it was queued"),
        (after(INTEND), intent(2), "bought while intended"),
        (after(), intent(2), "attempt 2 follows attempt 0"),
        (after(*UNKNOWN, Decide(operator="a", decision="give_up", attempt=1)), intent(2), "bought while failed"),
        (after(*UNKNOWN, Decide(operator="a", decision="buy_again", attempt=1)), intent(2), "without leave"),
        (after(), AttemptAccepted(attempt=1, job="j"), "there is no attempt 1"),
        (after(INTEND), ResultSpared(attempt=1, sha256="", size=1, media_type="", cost_microusd=1), "is intended"),
        (after(INTEND, *bought(1)[:2]), completed(1, version=2), "image version 2 while version 1"),
        (after(), QUEUED, "queued twice"),
        (after(INTEND), TaskCancelled(operator="a"), "the task is intended"),
        (after(), CancelAsked(operator="a"), "the task is queued"),
        (after(), TaskRetried(operator="a", version=1), "the task is queued"),
        (after(INTEND), OperatorDecided(attempt=1, decision="give_up", operator="a"), "not in doubt"),
        (after(), ResultReviewed(version=1, verdict="accepted", operator="a"), "no image version 1"),
    ],
)
def test_what_may_not_happen_is_named(state: TaskState, event: TaskEvent, words: str) -> None:
    """MON-2, RES-3: the audit holds the same rules against history."""
    assert words in breach(state, event)


def test_falling_in_doubt_after_settling_is_decided_by_a_retry() -> None:
    """MON-2: a task that was given up while another attempt was on its way."""
    state = after(
        *UNKNOWN,
        Decide(operator="ann", decision="buy_again", attempt=1),
        INTEND,
        Record(AttemptAmbiguous(attempt=2, reason="no_reply")),
        Record(AttemptAdopted(attempt=1, job="job-1", evidence="listing")),
        *bought(1)[1:],
        Record(AttemptUnknown(attempt=2, reason="no_evidence")),
        Review(version=1, verdict="rejected", operator="ann"),
    )
    events = decide_task(state, Retry(operator="ann"))
    assert [type(event) for event in events] == [OperatorDecided, TaskRetried]
    retried = fold(state, events)
    assert (retried.phase, retried.slot, retried.open_permission) == ("queued", 2, 2)


def test_an_intent_for_a_task_that_was_retried_over_an_image_fills_the_next_slot() -> None:
    state = after(INTEND, *bought(1), Review(version=1, verdict="rejected", operator="ann"), Retry(operator="ann"))
    assert not state.filled
    state = fold(state, decide_task(state, Cancel(operator="ann")))
    again = fold(state, decide_task(state, Retry(operator="ann")))
    assert (again.slot, again.attempt(9)) == (2, None)


def test_even_a_state_that_should_not_exist_buys_nothing_beside_a_doubt() -> None:
    """MON-2: no walk leads to a queued task in doubt without a permission; if a fault did, nothing is bought."""
    decided = after(*UNKNOWN, Decide(operator="ann", decision="buy_again", attempt=1))
    with pytest.raises(CommandRejected):
        decide_task(replace(decided, permissions=0), INTEND)
