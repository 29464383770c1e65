"""From an accepted request to its bill: what all emulators do with a job in the same way."""

import hashlib
from collections.abc import Iterable

import msgspec

from adapters.sandbox.base import Job
from adapters.sandbox.faults import job_fate, unit
from adapters.sandbox.wirefmt import EmulatorSettings


class Admission(msgspec.Struct, frozen=True):
    """What is decided about a job at the moment it is accepted, all of it from the seed and its number.

    ``entropy`` (32 bytes) is for the provider's own style of job id; it is unique within a sandbox.
    """

    entropy: bytes
    created_us: int
    started_us: int
    done_us: int
    fate: str


def admit(settings: EmulatorSettings, provider: str, now_us: int, *, queue_s: float = 0.0) -> Admission:
    """Decide times and fate of the next job; adds nothing to the table."""
    number = settings.jobs.count() + 1
    entropy = hashlib.sha256(f"{settings.seed}/{provider}/{number}".encode()).digest()
    created_us = settings.jobs.fresh_us(now_us)
    started_us = created_us + round(queue_s * 1_000_000)
    done_us = started_us + max(1, round(latency_s(settings.latency_s, entropy) * 1_000_000))
    return Admission(entropy, created_us, started_us, done_us, job_fate(settings.chaos, entropy))


def latency_s(median_s: float, entropy: bytes) -> float:
    """Jitter the median by up to 40 % either way; one job in fifty takes three times as long."""
    point = unit(b"latency", entropy)
    return median_s * (3.0 if point > 0.98 else 0.6 + 0.8 * point)


def billed(settings: EmulatorSettings, microusd: int) -> int:
    """What a price of the list costs today."""
    return round(microusd * settings.price_factor)


def unreachable(references: Iterable[str]) -> bool:
    """Whether the provider cannot fetch one of the references: the host ``missing.example`` has nothing."""
    return any("//missing.example/" in url for url in references)


def held_s(job: Job, now_us: int) -> float:
    """How long the answer to a synchronous call is held."""
    return (job.done_us - now_us) / 1_000_000
