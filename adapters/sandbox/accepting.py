"""From an accepted request to its bill: what all emulators do with a job in the same way.

An emulator reads a request in its provider's own way and says what is ``Asked``; ``admit`` decides when and how the job
ends, and ``job_of`` makes its row.  Which fates are failures there, and what else is charged than a success, stays with
the emulator.
"""

import hashlib
from collections.abc import Container

import msgspec

from adapters.sandbox.base import Job, JobState
from adapters.sandbox.faults import job_fate, unit
from adapters.sandbox.wirefmt import EmulatorSettings

_ALL = 1_000_000_000


class Asked(msgspec.Struct, frozen=True):
    """What a valid request asks for, whatever its form: the words are those of :class:`~adapters.sandbox.base.Job`."""

    model: str
    prompt: str
    references: tuple[str, ...]
    aspect: str
    resolution: str
    output_format: str  # "jpg" or "png"
    callback_url: str = ""


class Admission(msgspec.Struct, frozen=True):
    """What is decided about a job at the moment it is accepted, all of it from the seed and its number.

    ``entropy`` (32 bytes) is for the provider's own style of job id; it is unique within a sandbox.
    """

    provider: str
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
    return Admission(provider, entropy, created_us, started_us, done_us, job_fate(settings.chaos, entropy))


def latency_s(median_s: float, entropy: bytes) -> float:
    """Jitter the median by up to 40 % either way; one job in fifty takes three times as long."""
    point = unit(b"latency", entropy)
    return median_s * (3.0 if point > 0.98 else 0.6 + 0.8 * point)


def billed(settings: EmulatorSettings, microusd: int) -> int:
    """What a price of the list costs today."""
    return round(microusd * settings.price_factor)


def job_of(
    settings: EmulatorSettings,
    asked: Asked,
    admission: Admission,
    *,
    account: str,
    job_id: str,
    wire: str,
    price_microusd: int,
) -> Job:
    """Make the row of a job that is accepted; whoever asks adds it, alone or with others.

    References are fetched while it runs: one out of reach is its fate, where the provider has not refused it before.

    Args:
        wire: The request as the emulator wants to see it again.
        price_microusd: Of the list; what it costs today is put on the bill.
    """
    return Job(
        id=job_id,
        provider=admission.provider,
        account=account,
        model=asked.model,
        wire=wire,
        prompt=asked.prompt,
        references=asked.references,
        aspect=asked.aspect,
        resolution=asked.resolution,
        output_format=asked.output_format,
        created_us=admission.created_us,
        started_us=admission.started_us,
        done_us=admission.done_us,
        charge_microusd=billed(settings, price_microusd),
        fate="unreachable" if any(map(_is_unreachable, asked.references)) else admission.fate,
        callback_url=asked.callback_url,
    )


def held_s(job: Job, now_us: int) -> float:
    """How long the answer to a synchronous call is held."""
    return (job.done_us - now_us) / 1_000_000


def state_of(job: Job, now_us: int, *, failures: Container[str]) -> JobState:
    """Where a job stands whose end is that of its time or of a cancellation; ``failures`` are the fates that fail."""
    if now_us < job.done_us:
        return "running"
    if job.cancelled_us:
        return "cancelled"
    return "failed" if job.fate in failures else "succeeded"


def charge_on_success(job: Job, state: JobState) -> int:
    """What is charged by now where only an image is."""
    return job.charge_microusd if state == "succeeded" else 0


def own_job(settings: EmulatorSettings, provider: str, account: str, job_id: str) -> Job | None:
    """Find a job by its id; those of other accounts are not there."""
    job = settings.jobs.get(provider, job_id)
    return job if job is not None and job.account == account else None


def jobs_of(settings: EmulatorSettings, provider: str, account: str, *, since_us: int = 0, until_us: int) -> list[Job]:
    """All jobs of an account that were made in that time, newest first."""
    return settings.jobs.list(provider, account, since_us=since_us, until_us=until_us, limit=_ALL)


def _is_unreachable(reference: str) -> bool:
    """Whether nobody can fetch it: the host ``missing.example`` has nothing."""
    return "//missing.example/" in reference
