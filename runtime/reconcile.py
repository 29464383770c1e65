"""Which doubtful attempts a provider's listing proves present, absent, or neither.  Pure.

The rules (REC-4, REC-5): one job binds one attempt; attempts with equal fingerprints are interchangeable, so any
of the unbound jobs that fit may be bound to any of them; a job whose input is no longer shown may be anybody's
and forbids the verdict *absent* for every attempt of its time; *absent* is only said by a complete listing that
was read after the quarantine.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Literal, TypeAlias

import msgspec

from adapters.base import ListedJob
from runtime.work import WorkKey

SKEW_S = 600.0  # how far the provider's clock and ours may differ


class Doubt(msgspec.Struct, frozen=True):
    """One ambiguous attempt.  ``ripe``: its quarantine was over when the listing was read."""

    key: WorkKey
    fingerprint: str
    intended_at_us: int
    ripe: bool


class Found(msgspec.Struct, frozen=True):
    key: WorkKey
    job: str


class NotThere(msgspec.Struct, frozen=True):
    key: WorkKey


class CannotTell(msgspec.Struct, frozen=True):
    key: WorkKey
    reason: Literal[
        "several_fit", "no_evidence", "clock_changed", "answer_assumed", "listing_assumed", "lookup_assumed"
    ]


Judgement: TypeAlias = Found | NotThere | CannotTell


def judge(
    doubts: Sequence[Doubt], jobs: Sequence[ListedJob], bound: Collection[str], busy: Collection[str]
) -> list[Judgement]:
    """Judge what can be judged from one complete listing; the others are asked about again later.

    Args:
        jobs: every job of the listing's window, any order.
        bound: job ids that the ledger has bound to attempts already.
        busy: fingerprints of submits that are under way now: a listed job may belong to one of them, so
            attempts of the same fingerprint wait for the next listing.
    """
    bound = set(bound)
    free: dict[str, list[ListedJob]] = defaultdict(list)
    faceless = [job for job in jobs if job.fingerprint is None and job.job not in bound]
    for job in sorted(jobs, key=lambda job: (job.created_us, job.job)):
        if job.fingerprint is not None and job.job not in bound:
            free[job.fingerprint].append(job)
    verdicts: list[Judgement] = []
    for doubt in sorted(doubts, key=lambda doubt: (doubt.intended_at_us, doubt.key)):
        if doubt.fingerprint in busy:
            continue
        earliest_us = doubt.intended_at_us - int(SKEW_S * 1e6)
        fitting = [job for job in free[doubt.fingerprint] if job.created_us >= earliest_us]
        if fitting:
            free[doubt.fingerprint].remove(fitting[0])
            verdicts.append(Found(doubt.key, fitting[0].job))
        elif doubt.ripe:
            if any(job.created_us >= earliest_us for job in faceless):
                verdicts.append(CannotTell(doubt.key, "several_fit"))
            else:
                verdicts.append(NotThere(doubt.key))
    return verdicts
