"""What became of an attempt, in words, with the evidence that carried each verdict.

From the events of the task alone, so what is told is what is on record.
"""

from collections.abc import Sequence

import msgspec

from adapters import registry
from bydawn.cli.formats import clock_time, dollars
from ledger.events import (
    AttemptAbsent,
    AttemptAdopted,
    AttemptAmbiguous,
    AttemptFailed,
    AttemptLost,
    AttemptUnknown,
    Fact,
    OperatorDecided,
    Recorded,
    ResultReady,
    ResultSpared,
)
from ledger.folds import FOUND, AttemptState

IN_DOUBT: dict[str, str] = {
    "crash": "the run ended before an outcome was on record",
    "no_reply": "it was sent, and no whole answer came",
    "unclear_reply": "the answer proves neither a job nor that there is none",
    "no_job_id": "the answer says yes and names no job: likely paid",
    "answer_assumed": "that the answer means no job is only assumed",
}
HELD: dict[str, str] = {
    "no_evidence": "{title} cannot be asked, or not about so old a purchase",
    "listing_failed": "{title}'s list or lookup could not be read",
    "several_fit": "{title} shows jobs of that time and not what they were for",
    "account_changed": "when it was looked up, {account} had another key or base URL than it was bought with",
    "clock_changed": "a clock was wrong, so the times in {title}'s list mean nothing",
    "taken_over": "another copy of the ledger may have bought it again",
    "listing_assumed": "that {title}'s list is complete is only assumed",
    "lookup_assumed": "that {title}'s lookup finds every job is only assumed",
    "answer_assumed": "that the answer means no job is only assumed",
}
ABSENT: dict[str, str] = {
    "same_key": "{title} answered so to the same key",
    "not_found": "{title} knew no job by our reference, asked twice",
    "listing": "it was not in {title}'s complete list",
}


class Told(msgspec.Struct, frozen=True):
    """One step of an attempt that needs words."""

    attempt: int
    at_us: int
    text: str


def title_of(provider: str) -> str:
    """The provider as people write it; its plain name where its package is no longer here."""
    codec = registry.find(provider)
    return codec.capabilities.title if codec else provider


def keeps_jobs(provider: str) -> bool:
    """Whether a job of this provider could be collected later: where the answer is the image, there is none."""
    codec = registry.find(provider)
    return codec is not None and codec.capabilities.shape.value != "sync"


def held_because(attempt: AttemptState) -> str:
    """Why nothing could tell about it."""
    return _worded(HELD, attempt.reason, attempt)


def verdicts(events: Sequence[Recorded], attempts: Sequence[AttemptState]) -> list[Told]:
    """Every step of doubt, evidence and loss of a task's attempts, in order."""
    found = []
    stated = stated_costs(events)
    for recorded in events:
        number = getattr(recorded.event, "attempt", 0)
        if 1 <= number <= len(attempts):
            text = _told(recorded.event, attempts[number - 1], clock_time(recorded.at_us)[:8], stated=number in stated)
            if text:
                found.append(Told(number, recorded.at_us, text))
    return found


def stated_costs(events: Sequence[Recorded]) -> frozenset[int]:
    """The attempts whose provider said with the result what it charged; the cost of others is by our prices."""
    return frozenset(
        each.event.attempt
        for each in events
        if isinstance(each.event, ResultReady) and each.event.cost_microusd is not None
    )


def _told(event: Fact, attempt: AttemptState, at: str, *, stated: bool) -> str:
    title = title_of(attempt.provider)
    whose = "" if stated else f" by our prices: {title} named no cost"
    match event:
        case AttemptAmbiguous() if attempt.route in ("takeover", FOUND):
            return f"bought with another copy of the ledger, as was seen at {at}"
        case AttemptAmbiguous(reason=reason):
            return f"in doubt from {at}: {_worded(IN_DOUBT, reason, attempt)}"
        case AttemptAdopted(evidence="listing", job=job):
            by = "the name of its file" if attempt.file else "its input"
            return f"adopted: found in the list of {title} at {at} by {by}, job {job}"
        case AttemptAdopted(evidence="lookup", job=job):
            return f"adopted: {title} found it at {at} by our reference, job {job}"
        case AttemptAdopted(evidence="callback", job=job):
            return f"adopted: {title} called back about it, and showed job {job} when asked at {at}"
        case AttemptAdopted(job=job):
            return f"adopted: a person named job {job} at {at}"
        case AttemptAbsent(evidence=evidence):
            return f"never taken, proven at {at}: {_worded(ABSENT, evidence, attempt)}"
        case AttemptUnknown(reason=reason):
            return f"held from {at}: {_worded(HELD, reason, attempt)}"
        case OperatorDecided(decision=decision, operator=operator):
            return f"decided at {at} by {operator}: {decision.replace('_', ' ')}"
        case AttemptFailed(cost_microusd=cost) if cost:
            return f"failed at {at}, and charged all the same: {dollars(cost)}"
        case AttemptLost(cost_microusd=cost, reason=reason):
            return f"paid and lost, seen at {at}: {reason} ({dollars(cost)}{whose})"
        case ResultSpared(cost_microusd=cost):
            return f"paid and not needed, kept at {at} as spare ({dollars(cost)}{whose})"
    return ""


def _worded(words: dict[str, str], reason: str, attempt: AttemptState) -> str:
    """The words of a reason; a later version's reason stays as it is."""
    return words.get(reason, reason).format(title=title_of(attempt.provider), account=attempt.account)
