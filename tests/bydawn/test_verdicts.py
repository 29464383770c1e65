"""The evidence that carried a verdict, in words; each from the events of a task alone."""

from pathlib import Path

import msgspec
import pytest

from bydawn.verdicts import held_because, title_of, verdicts
from ledger.commands import Cancel, Decide, Find, Intend, Record, TaskCommand
from ledger.events import (
    AttemptAbsent,
    AttemptAccepted,
    AttemptAdopted,
    AttemptAmbiguous,
    AttemptFailed,
    AttemptLost,
    AttemptUnknown,
    ResultReady,
    ResultSpared,
    TaskEvent,
    UnknownReason,
)
from ledger.reader import Reader
from ledger.streams import task_stream
from tests.ledger.ledgers import do, opened

AT_DOUBT = Record(AttemptAmbiguous(attempt=1, reason="crash"))
SPARED = ResultSpared(attempt=1, sha256="", size=1, media_type="image/png", cost_microusd=40_000)
READY = (Record(AttemptAccepted(attempt=1, job="j")), Record(ResultReady(attempt=1)))


def told(path: Path, provider: str, *commands: TaskCommand, file: str = "") -> list[str]:
    """What is told of a purchase at a provider."""
    with opened(path, tasks=1) as ledger:
        do(ledger, 1, Intend(provider, provider, "default", "only", 60_000, "ab", 99, file=file), *commands)
    with Reader(path) as reader:
        events = reader.events(stream=task_stream(1, 1))
        found = verdicts(events, reader.state(task_stream(1, 1)).attempts)
    assert {each.attempt for each in found} <= {1}
    assert [each.at_us for each in found] == sorted(each.at_us for each in found)
    return [each.text for each in found]


@pytest.mark.parametrize(
    ("provider", "fact", "file", "text"),
    [
        (
            "replicate",
            AttemptAdopted(attempt=1, job="j1", evidence="listing"),
            "",
            "adopted: found in the list of Replicate at {at} by its input, job j1",
        ),
        (
            "google-batch",
            AttemptAdopted(attempt=1, job="b.1", evidence="listing"),
            "f1",
            "adopted: found in the list of Google Batch at {at} by the name of its file, job b.1",
        ),
        (
            "toapis",
            AttemptAdopted(attempt=1, job="j1", evidence="lookup"),
            "",
            "adopted: Toapis found it at {at} by our reference, job j1",
        ),
        (
            "kie",
            AttemptAdopted(attempt=1, job="j1", evidence="callback"),
            "",
            "adopted: Kie called back about it, and showed job j1 when asked at {at}",
        ),
        (
            "segmind",
            AttemptAbsent(attempt=1, evidence="listing"),
            "",
            "never taken, proven at {at}: it was not in Segmind's complete list",
        ),
        (
            "toapis",
            AttemptAbsent(attempt=1, evidence="not_found"),
            "",
            "never taken, proven at {at}: Toapis knew no job by our reference, asked twice",
        ),
        (
            "wavespeed",
            AttemptUnknown(attempt=1, reason="several_fit"),
            "",
            "held from {at}: WaveSpeed shows jobs of that time and not what they were for",
        ),
    ],
)
def test_a_verdict_names_its_evidence_and_its_time(
    tmp_path: Path, provider: str, fact: TaskEvent, file: str, text: str
) -> None:
    """REC-4, REC-5, REC-7."""
    first, second = told(tmp_path / "l.db", provider, AT_DOUBT, Record(fact), file=file)
    at = first.removeprefix("in doubt from ").partition(": ")[0]
    assert first == f"in doubt from {at}: the run ended before an outcome was on record"
    assert second == text.format(at=at)


def test_a_decision_and_what_was_adopted_by_a_person_name_who_and_when(tmp_path: Path) -> None:
    """MON-2, REC-5."""
    held = Record(AttemptUnknown(attempt=1, reason="no_evidence"))
    adopt = Decide(operator="ann", decision="adopt", attempt=1, job="j9")
    *_, decided, adopted = told(tmp_path / "l.db", "kie", AT_DOUBT, held, adopt)
    assert decided.startswith("decided at ")
    assert decided.endswith(" by ann: adopt")
    assert adopted.startswith("adopted: a person named job j9 at ")


@pytest.mark.parametrize("before", [(), (Cancel(operator="ann"),)])
def test_what_another_copy_bought_is_told_as_that(tmp_path: Path, before: tuple[TaskCommand, ...]) -> None:
    """REC-10: it was never in doubt here."""
    intend = Intend("toapis", "toapis", "default", "takeover", 60_000, "ab", 99)
    with opened(tmp_path / "l.db", tasks=1) as ledger:
        do(ledger, 1, *before, Find(intend, "j1", "lookup"))
        with ledger.reader() as reader:
            events = reader.events(stream=task_stream(1, 1))
        steps = verdicts(events, ledger.state(task_stream(1, 1)).attempts)
    first, second = (step.text for step in steps)
    assert first.startswith("bought with another copy of the ledger, as was seen at ")
    assert second.endswith("by our reference, job j1")


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        (AttemptFailed(attempt=1, reason="policy", cost_microusd=40_000), "and charged all the same: $0.04"),
        (AttemptLost(attempt=1, reason="expired", cost_microusd=40_000), "expired ($0.04)"),
        (SPARED, "as spare ($0.04)"),
    ],
)
def test_what_was_paid_for_nothing_is_told_in_dollars(tmp_path: Path, fact: TaskEvent, words: str) -> None:
    """MON-9, MON-10."""
    stated = Record(ResultReady(attempt=1, cost_microusd=40_000))
    (text,) = told(tmp_path / "l.db", "kie", READY[0], stated, Record(fact))
    assert text.endswith(words)


@pytest.mark.parametrize("fact", [SPARED, AttemptLost(attempt=1, reason="expired", cost_microusd=40_000)])
def test_dollars_that_no_provider_named_are_told_as_ours(tmp_path: Path, fact: TaskEvent) -> None:
    """MON-10: a surplus that was found at a takeover looked as sure as one that the provider put a price on."""
    (text,) = told(tmp_path / "l.db", "kie", *READY, Record(fact))
    assert text.endswith(" ($0.04 by our prices: Kie named no cost)")


def test_a_failure_that_cost_nothing_needs_no_words(tmp_path: Path) -> None:
    assert told(tmp_path / "l.db", "kie", *READY[:1], Record(AttemptFailed(attempt=1, reason="provider"))) == []


@pytest.mark.parametrize("reason", ["account_changed", "a_reason_of_a_later_version"])
def test_a_held_attempt_says_why(tmp_path: Path, reason: UnknownReason) -> None:
    """LED-9: also for a reason that this version does not know."""
    with opened(tmp_path / "l.db", tasks=1) as ledger:
        do(ledger, 1, Intend("kie-eu", "kie", "default", "only", 60_000, "ab", 99), AT_DOUBT)
        do(ledger, 1, Record(AttemptUnknown(attempt=1, reason="account_changed")))
        (attempt,) = ledger.state(task_stream(1, 1)).attempts
    words = held_because(msgspec.structs.replace(attempt, reason=reason))
    other_key = "when it was looked up, kie-eu had another key or base URL than it was bought with"
    assert words in (other_key, "a_reason_of_a_later_version")
    assert ("kie-eu" in words) == (reason == "account_changed")


def test_a_provider_of_a_package_that_is_gone_keeps_its_name() -> None:
    assert (title_of("wavespeed"), title_of("nobody")) == ("WaveSpeed", "nobody")
