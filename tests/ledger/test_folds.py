"""The folds of batches, accounts and the runtime, and stream keys."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.events import (
    AccountEvent,
    AccountKeyChanged,
    AccountOpened,
    AccountParked,
    AccountResumed,
    BatchCancelled,
    BatchConfigured,
    BatchEvent,
    BatchOpened,
    BreakerChanged,
    ControlTaken,
    EpochEnded,
    EpochStarted,
    LimiterSaved,
    Overcharged,
    PayloadRef,
    ReferenceUploaded,
    RuntimeEvent,
    SpendAgreed,
)
from ledger.folds import (
    EMPTY_ACCOUNT,
    EMPTY_BATCH,
    EMPTY_RUNTIME,
    LaneState,
    evolve_account,
    evolve_batch,
    evolve_runtime,
)
from ledger.replay import empty_state, evolve
from ledger.streams import (
    account_stream,
    batch_stream,
    runtime_stream,
    stream_key,
    stream_label,
    stream_parts,
    task_stream,
)


def test_settings_keep_their_last_value() -> None:
    state = EMPTY_BATCH
    agreed = SpendAgreed(images=3, expected_microusd=1, worst_microusd=2, by="yes", operator="ann")
    for event in (
        BatchOpened(name="night", folder="f", sandbox=True, operator="ann"),
        BatchConfigured(operator="ann", budget_microusd=5, providers=("kie",), on_unknown="hold"),
        BatchConfigured(operator="ann", budget_microusd=9, limit=0),
        agreed,
        BatchCancelled(operator="ann"),
    ):
        state = evolve_batch(state, event, at_us=7)
    assert (state.name, state.sandbox, state.opened_at_us, state.version) == ("night", True, 7, 5)
    assert (state.settings.budget_microusd, state.settings.providers) == (9, ("kie",))
    assert (state.settings.limit, state.settings.attempts) == (0, None)
    assert (state.agreed, state.cancelled, state.open_import) == (agreed, True, None)


def test_an_account_remembers_its_key_its_lanes_and_its_overcharges() -> None:
    state = EMPTY_ACCOUNT
    for event in (
        AccountOpened(name="kie", provider="kie", fingerprint="f1"),
        AccountKeyChanged(fingerprint="f2", confirmed_by="job"),
        AccountParked(reason="no_credit"),
        LimiterSaved(lane="wide", concurrency=6),
        LimiterSaved(lane="default", concurrency=4),
        BreakerChanged(lane="wide", state="open", reason="5xx"),
        Overcharged(batch=1, task=1, attempt=1, ceiling_microusd=5, charged_microusd=8),
        ReferenceUploaded(sha256="aa", url=PayloadRef(1, "x")),
        ReferenceUploaded(sha256="bb", url=PayloadRef(2, "y"), expires_at_us=9),
        ReferenceUploaded(sha256="aa", url=PayloadRef(3, "z"), expires_at_us=7),  # no state grows with uploads
    ):
        state = evolve_account(state, event)
    assert (state.fingerprint, state.parked) == ("f2", "no_credit")
    assert state.lanes == (LaneState("default", 4), LaneState("wide", 6, "open", "5xx"))
    assert state.lane("other") == LaneState("other")
    assert (state.overcharges, state.overcharged_microusd) == (1, 3)
    assert state.version == 10
    assert evolve_account(state, AccountResumed(operator="ann")).parked == ""


STARTED = EpochStarted(
    ledger_id="l",
    machine="m",
    device=1,
    inode=2,
    pid=3,
    app_version="0",
    sqlite_version="3",
    operator="ann",
    command="run",
)


def test_the_runtime_knows_its_latest_epoch_and_how_it_ended() -> None:
    state = evolve_runtime(EMPTY_RUNTIME, STARTED, epoch=1, at_us=5)
    state = evolve_runtime(state, ControlTaken(kind="cancel", operator="ann", result="ok"), epoch=1, at_us=6)
    state = evolve_runtime(state, EpochEnded(stopped_by="done", exit_code=3), epoch=1, at_us=7)
    assert (state.epoch, state.stopped_by, state.exit_code, state.controls) == (1, "done", 3, 1)
    state = evolve_runtime(state, STARTED, epoch=2, at_us=8)
    assert (state.epoch, state.started_at_us, state.stopped_by, state.controls) == (2, 8, "", 1)


ANY: list[tuple[int, st.SearchStrategy[BatchEvent | AccountEvent | RuntimeEvent]]] = [
    (batch_stream(1), st.one_of(*(st.from_type(kind) for kind in get_args(BatchEvent)))),
    (account_stream(1), st.one_of(*(st.from_type(kind) for kind in get_args(AccountEvent)))),
    (runtime_stream(), st.one_of(*(st.from_type(kind) for kind in get_args(RuntimeEvent)))),
]


@pytest.mark.parametrize(("stream", "events"), ANY)
@given(data=st.data())
def test_every_fold_is_total(
    data: st.DataObject, stream: int, events: st.SearchStrategy[BatchEvent | AccountEvent | RuntimeEvent]
) -> None:
    """REC-1."""
    history = data.draw(st.lists(events, max_size=10))
    state = empty_state(stream)
    for event in history:
        state = evolve(stream, state, event, epoch=1, at_us=0)
    assert state.version == len(history)


@given(batch=st.integers(0, (1 << 24) - 1), n=st.integers(0, (1 << 36) - 1))
def test_stream_keys_hold_their_parts_and_sort_by_batch_and_number(batch: int, n: int) -> None:
    assert stream_parts(task_stream(batch, n)) == ("task", batch, n)
    assert 0 < task_stream(batch, n) < 1 << 63


def test_streams_have_names_for_people() -> None:
    keys = (task_stream(3, 17), batch_stream(3), account_stream(2), runtime_stream())
    assert [stream_label(key) for key in keys] == ["task-3-17", "batch-3", "account-2", "runtime"]
    with pytest.raises(ValueError):
        stream_key("task", 1 << 24, 1)
    with pytest.raises(ValueError):
        stream_parts(5)
