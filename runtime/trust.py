"""How sure a provider's fact must be before bydawn buys again because of it (``--trust``).

Two facts of a capability record lead to a second purchase: that a list or a lookup can prove a job's absence, and
that an answer proves that there is no job.  Under ``documented`` both must be *confirmed*, that is, stand in the
provider's own documents or code; under ``assumed`` our own assumptions do as well.  That a job is *there* buys
nothing, so it is believed either way.  Pure.
"""

from typing import Literal, TypeAlias, TypeVar

import msgspec

from adapters.base import Refused, Throttled
from adapters.capabilities import Capabilities, Known, T

Trust: TypeAlias = Literal["documented", "assumed"]
TRUSTS: tuple[Trust, ...] = ("documented", "assumed")
DEFAULT: Trust = "assumed"
AssumedProof: TypeAlias = Literal["listing_assumed", "lookup_assumed"]

Answer = TypeVar("Answer")


class Disbelieved(msgspec.Struct, frozen=True):
    """An answer that would prove that there is no job, if that were documented.  It teaches the account's limits what
    it says all the same; for the purchase it is as good as no answer."""

    answer: Refused | Throttled


def unproven_absence(caps: Capabilities, trust: Trust) -> AssumedProof | None:
    """Name the fact on which an absence would rest that is not sure enough; None when it may be believed."""
    if caps.lookup is not None:
        return None if _enough(caps.lookup, trust) else "lookup_assumed"
    if caps.listing is not None:
        return None if _enough(caps.listing, trust) else "listing_assumed"
    return None  # there is no proof at all


def weigh(answer: Answer, caps: Capabilities, trust: Trust) -> Answer | Disbelieved:
    """Give the answer to a paid call as far as it may be believed."""
    if isinstance(answer, Refused | Throttled) and not answers_believed(caps, trust):
        return Disbelieved(answer)
    return answer


def answers_believed(caps: Capabilities, trust: Trust) -> bool:
    """Whether the answers that the record names are proof enough of no job and no charge."""
    return _enough(caps.no_job_answers, trust)


def _enough(fact: Known[T], trust: Trust) -> bool:
    return trust == "assumed" or fact.mark == "confirmed"


def assume(batch: int) -> Trust:
    """Trust as far as nobody said otherwise."""
    return DEFAULT
