"""Hypothesis strategies: any events at all, and commands that often fit."""

from typing import get_args

import msgspec
from hypothesis import strategies as st

from ledger.commands import Cancel, Decide, Erase, Fail, Find, Intend, Record, Retry, Review, Share, TaskCommand
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
    PayloadRef,
    ResultReady,
    ResultSpared,
    TaskCompleted,
    TaskEvent,
)

texts = st.sampled_from(["", "a", "b"])
numbers = st.integers(1, 4)
money = st.integers(0, 100_000)
payload_refs = st.builds(PayloadRef, row=numbers, digest=texts)


def _shaped(kind: type[TaskEvent]) -> st.SearchStrategy[TaskEvent]:
    """Any values that the fields may have; money is not negative."""
    given = {
        field.name: numbers if field.type is int else money
        for field in msgspec.structs.fields(kind)
        if field.type is int or field.name.endswith("_microusd")
    }
    return st.builds(kind, **given)


events: st.SearchStrategy[TaskEvent] = st.one_of(*(_shaped(kind) for kind in get_args(TaskEvent)))
"""Anything that has the shape of a task event, in any order: history is never refused."""

_completed = st.builds(
    TaskCompleted,
    attempt=numbers,
    version=numbers,
    sha256=texts,
    size=money,
    media_type=st.just("image/png"),
    width=numbers,
    height=numbers,
    cost_microusd=money,
    flags=st.sampled_from([(), ("blank",)]),
)
_facts: st.SearchStrategy[TaskEvent] = st.one_of(
    st.builds(AttemptAccepted, attempt=numbers, job=texts),
    st.builds(ResultReady, attempt=numbers),
    _completed,
    st.builds(AttemptNotSent, attempt=numbers, reason=texts),
    st.builds(AttemptRejected, attempt=numbers, reason=st.sampled_from(["throttled", "invalid", "policy"])),
    st.builds(AttemptAmbiguous, attempt=numbers, reason=st.just("no_reply")),
    st.builds(AttemptUnknown, attempt=numbers, reason=st.just("no_evidence")),
    st.builds(AttemptAdopted, attempt=numbers, job=texts, evidence=st.just("listing")),
    st.builds(AttemptAbsent, attempt=numbers, evidence=st.just("listing")),
    st.builds(AttemptResent, attempt=numbers),
    st.builds(
        AttemptFailed, attempt=numbers, reason=st.sampled_from(["provider", "policy", "bad_image"]), cost_microusd=money
    ),
    st.builds(AttemptLost, attempt=numbers, reason=texts, cost_microusd=money),
    st.builds(
        ResultSpared,
        attempt=numbers,
        sha256=texts,
        size=money,
        media_type=st.just("image/png"),
        cost_microusd=money,
    ),
)
intends = st.builds(
    Intend,
    account=st.sampled_from(["kie", "kie-eu"]),
    provider=st.just("kie"),
    lane=st.just("default"),
    route=st.just("only"),
    ceiling_microusd=st.integers(1, 100_000),
    body_digest=st.just("ab"),
    deadline_us=st.just(0),
)
_records = st.builds(Record, fact=_facts, max_attempts=numbers, retryable=st.booleans())
_others: st.SearchStrategy[TaskCommand] = st.one_of(
    st.builds(Cancel, operator=texts),
    st.builds(Retry, operator=texts),
    st.builds(Erase, operator=texts, files=st.booleans()),
    st.builds(
        Decide,
        operator=texts,
        decision=st.sampled_from(["buy_again", "give_up", "adopt"]),
        attempt=numbers,
        job=texts,
    ),
    st.builds(Find, intend=intends, job=texts, evidence=st.just("listing")),
    st.builds(Fail, reason=st.sampled_from(["input_changed", "no_provider"])),
    st.builds(Review, version=numbers, verdict=st.sampled_from(["accepted", "rejected"]), operator=texts),
    st.builds(
        Share,
        owner=numbers,
        version=numbers,
        sha256=texts,
        size=money,
        media_type=st.just("image/png"),
        width=numbers,
        height=numbers,
    ),
)
commands: st.SearchStrategy[TaskCommand] = st.one_of(intends, _records, _records, _records, _others)

# A walk that gets far: bought, doubted, decided, bought again.  Random commands alone mostly end early.
_doubt: tuple[TaskCommand, ...] = (
    Record(AttemptAmbiguous(attempt=1, reason="crash")),
    Record(AttemptUnknown(attempt=1, reason="no_evidence")),
    Decide(operator="a", decision="buy_again", attempt=1),
)
beginnings: st.SearchStrategy[tuple[TaskCommand, ...]] = st.one_of(
    st.just(()), intends.map(lambda intend: (intend,)), intends.map(lambda intend: (intend, *_doubt, intend))
)
stories: st.SearchStrategy[list[TaskCommand]] = st.tuples(beginnings, st.lists(commands, max_size=25)).map(
    lambda parts: [*parts[0], *parts[1]]
)
