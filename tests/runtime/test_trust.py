"""How sure a fact must be before something is bought again because of it: the rule, and where it is applied."""

import msgspec
import pytest

from adapters.base import Accepted, Failed, Refused, Throttled, Unclear
from adapters.capabilities import Known, Lookup, Mark
from adapters.registry import PROVIDERS, codec
from runtime.pace import Pace
from runtime.trust import Disbelieved, unproven_absence, weigh
from tests.runtime.fakes import CAPS, Bench, known, nothing, run
from tests.runtime.test_gateway import buy

MARKS: tuple[Mark, ...] = ("confirmed", "reported", "assumed")


@pytest.mark.parametrize("mark", MARKS)
def test_only_what_the_provider_itself_documents_is_documented(mark: Mark) -> None:
    """REC-4."""
    caps = msgspec.structs.replace(
        CAPS,
        listing=msgspec.structs.replace(known(CAPS.facts["listing"].value), mark=mark),
        no_job_answers=msgspec.structs.replace(CAPS.no_job_answers, mark=mark),
    )
    refused = Refused("invalid")
    sure = mark == "confirmed"
    assert unproven_absence(caps, "documented") == (None if sure else "listing_assumed")
    assert weigh(refused, caps, "documented") == (refused if sure else Disbelieved(refused))
    assert unproven_absence(caps, "assumed") is None
    assert weigh(refused, caps, "assumed") is refused


def test_a_lookup_is_asked_before_a_listing_and_named_so() -> None:
    caps = msgspec.structs.replace(CAPS, lookup=Known(Lookup(lag_s=1.0), "test", "2026-11-22", "reported"))
    assert unproven_absence(caps, "documented") == "lookup_assumed"


@pytest.mark.parametrize("answer", [Accepted("j1"), Unclear(), Failed("provider")])
def test_other_answers_stay_what_they_are(answer: object) -> None:
    caps = msgspec.structs.replace(CAPS, no_job_answers=msgspec.structs.replace(CAPS.no_job_answers, mark="assumed"))
    assert weigh(answer, caps, "documented") is answer


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_default_believes_every_record(provider: str) -> None:
    """So nothing stays held where list or lookup can tell; see docs/decisions/trust.md."""
    caps = codec(provider).capabilities
    assert unproven_absence(caps, "assumed") is None
    assert weigh(Throttled(), caps, "assumed") == Throttled()


@pytest.mark.parametrize("answer", [Refused("unauthorized", "no"), Throttled(5.0)])
def test_a_disbelieved_answer_leaves_the_purchase_in_doubt(answer: Refused | Throttled) -> None:
    """MON-2: it is not bought again, and the answer is kept."""
    caps = msgspec.structs.replace(CAPS, no_job_answers=msgspec.structs.replace(CAPS.no_job_answers, mark="assumed"))
    bench = Bench(caps=caps)
    bench.provider.say("submit", answer)
    work = bench.work()
    assert buy(bench, work, trust="documented") == Disbelieved(answer)
    assert (work.attempt.phase, work.attempt.reason) == ("ambiguous", "answer_assumed")


def test_the_account_learns_from_it_all_the_same() -> None:
    """A key that is refused buys no more, whether the refusal proves anything or not."""
    bench = Bench()

    async def go() -> None:
        pace = Pace(bench.account, clock=bench.clock, random=bench.random, note=nothing)
        assert pace.learn(pace.lane("1:1"), Disbelieved(Refused("unauthorized", "no"))) == "unauthorized: no"

    run(go)
