"""Faults on purpose: what may go wrong, how often, and the wrapper that makes it go wrong around any emulator.

Every draw is a digest of (seed, counter), never a random number: the same requests in the same order meet the
same faults.  The fate of a job is drawn from the job's own entropy, so that it survives a restart.
"""

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec.structs import replace

from adapters.sandbox.base import Call, Embeds, Emulator, Job, JobState, JobTable, Reply, Webhook

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
RequestFault = Literal["throttle", "error_before", "error_after", "reset_after", "cut_reply", "slow_reply"]
_REQUEST_FAULTS: tuple[RequestFault, ...] = (
    "throttle",
    "error_before",
    "error_after",
    "reset_after",
    "cut_reply",
    "slow_reply",
)
_JOB_FATES = {
    "fail_job": "fail",
    "policy_job": "policy",
    "truncated": "truncated",
    "wrong_bytes": "wrong_bytes",
    "blank": "blank",
}
HookFate = Literal["hook_lost", "hook_late", "hook_twice", "hook_forged"]
_HOOK_FATES: tuple[HookFate, ...] = ("hook_lost", "hook_late", "hook_twice", "hook_forged")


class ChaosProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shares between 0 and 1, of requests (first group), of accepted jobs (second), of their callbacks (third)."""

    throttle: Share = 0.0  # 429 in the provider's words, nothing accepted
    error_before: Share = 0.0  # 5xx, nothing accepted
    error_after: Share = 0.0  # 5xx although the request was served
    reset_after: Share = 0.0  # connection reset although the request was served
    cut_reply: Share = 0.0  # half an answer although the request was served
    slow_reply: Share = 0.0  # the answer comes slow_s late

    fail_job: Share = 0.0
    policy_job: Share = 0.0  # refused by the safety filter while generating
    truncated: Share = 0.0  # the result file is cut short
    wrong_bytes: Share = 0.0  # the result file is not an image
    blank: Share = 0.0  # the result is one flat colour

    hook_lost: Share = 0.0  # nobody is called
    hook_late: Share = 0.0  # late_s after the end, and so after those of later jobs
    hook_twice: Share = 0.0
    hook_forged: Share = 0.0  # somebody else calls too: with a wrong address, and with another job and no signature

    slow_s: float = 5.0
    late_s: float = 4.0


PROFILES = {
    "none": ChaosProfile(),
    "flaky": ChaosProfile(
        throttle=0.02,
        error_before=0.01,
        error_after=0.002,
        reset_after=0.002,
        cut_reply=0.001,
        slow_reply=0.01,
        fail_job=0.01,
        policy_job=0.002,
        truncated=0.002,
        wrong_bytes=0.001,
        blank=0.001,
        hook_lost=0.01,
        hook_late=0.02,
        hook_twice=0.05,
    ),
    "storm": ChaosProfile(
        throttle=0.15,
        error_before=0.06,
        error_after=0.04,
        reset_after=0.04,
        cut_reply=0.02,
        slow_reply=0.05,
        fail_job=0.08,
        policy_job=0.02,
        truncated=0.02,
        wrong_bytes=0.02,
        blank=0.01,
        hook_lost=0.15,
        hook_late=0.15,
        hook_twice=0.2,
        hook_forged=0.1,
    ),
}


def load_profile(name: str) -> ChaosProfile:
    """Find a profile by name, or read it from a TOML file with the same field names.

    Raises:
        ValueError: no such name or file, or not a profile; the text is fit for the user.
    """
    if name in PROFILES:
        return PROFILES[name]
    try:
        with Path(name).open("rb") as file:
            return msgspec.convert(tomllib.load(file), ChaosProfile)
    except OSError as exc:
        known = ", ".join(PROFILES)
        raise ValueError(f"chaos profile {name!r}: neither a name ({known}) nor a readable file") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as exc:
        raise ValueError(f"chaos profile {name!r}: {exc}") from exc


def job_fate(chaos: ChaosProfile, entropy: bytes) -> str:
    """Draw how a job ends, in the words of :class:`~adapters.sandbox.base.Job`."""
    point = unit(b"fate", entropy)
    for field, fate in _JOB_FATES.items():
        share: float = getattr(chaos, field)
        if point < share:
            return fate
        point -= share
    return "ok"


def hook_fate(chaos: ChaosProfile, job: Job) -> HookFate | None:
    """Draw what becomes of the callback of a job; None = it is delivered as it should be."""
    point = unit(b"hook", job.id.encode())
    for fate in _HOOK_FATES:
        share: float = getattr(chaos, fate)
        if point < share:
            return fate
        point -= share
    return None


def forgeries(hook: Webhook) -> tuple[Webhook, ...]:
    """What a stranger might send, who has seen a callback pass: to an address that nobody has, and about another job to
    the right one.  He has no secret."""
    other = hook.job[:-1] + ("0" if hook.job[-1:] != "0" else "1")
    body = hook.body.replace(hook.job.encode(), other.encode())
    return (
        replace(hook, url=hook.url[:-1] + ("0" if hook.url[-1:] != "0" else "1"), extra=True),
        replace(hook, body=body, extra=True),
    )


def unit(*parts: bytes) -> float:
    """Turn a digest of ``parts`` into a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(b"/".join(parts)).digest()[:7], "big") / (1 << 56)


class Dice:
    """Draws what goes wrong with the next request of one kind, the same way for the same seed."""

    def __init__(self, name: str, *, profile: ChaosProfile, seed: int, start: int) -> None:
        self._profile = profile
        self._name = f"{name}/{seed}".encode()
        self._counter = start

    def draw(self) -> RequestFault | None:
        self._counter += 1
        point = unit(self._name, str(self._counter).encode())
        for fault in _REQUEST_FAULTS:
            share: float = getattr(self._profile, fault)
            if point < share:
                return fault
            point -= share
        return None

    def spoil(self, reply: Reply, fault: RequestFault | None) -> Reply:
        """Make the way of an answer as bad as the fault says; other faults change nothing here."""
        match fault:
            case "reset_after":
                return replace(reply, transport="reset")
            case "cut_reply":
                return replace(reply, transport="cut")
            case "slow_reply":
                return replace(reply, delay_s=reply.delay_s + self._profile.slow_s)
            case _:
                return reply


class Chaos:
    """An emulator that misbehaves around another one: the single place where its requests go wrong.

    Faults after acceptance are applied to submits only when something was accepted: a refusal that got lost would
    tell nothing about doubt.  Free calls meet the same faults.
    """

    def __init__(self, inner: Emulator, *, jobs: JobTable, profile: ChaosProfile, seed: int) -> None:
        self._inner = inner
        self._jobs = jobs
        # Starting behind what an earlier process accepted, so that a restart does not meet the same first fault.
        self._dice = Dice(inner.name, profile=profile, seed=seed, start=jobs.count())

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def result_life_s(self) -> float:
        return self._inner.result_life_s

    def is_submit(self, call: Call) -> bool:
        return self._inner.is_submit(call)

    def refusal(self, kind: Literal["throttled", "broken"]) -> Reply:
        return self._inner.refusal(kind)

    def state(self, job: Job, now_us: int) -> JobState:
        return self._inner.state(job, now_us)

    def charged(self, job: Job, now_us: int) -> int:
        return self._inner.charged(job, now_us)

    def embed(self, reply: Reply, picture: bytes) -> Reply:
        return self._inner.embed(reply, picture) if isinstance(self._inner, Embeds) else reply

    def handle(self, call: Call, now_us: int) -> Reply:
        fault = self._dice.draw()
        if fault == "throttle":
            return self._inner.refusal("throttled")
        if fault == "error_before":
            return self._inner.refusal("broken")
        jobs_before = self._jobs.count()
        reply = self._inner.handle(call, now_us)
        if self._inner.is_submit(call) and self._jobs.count() == jobs_before:
            return reply
        return self._inner.refusal("broken") if fault == "error_after" else self._dice.spoil(reply, fault)
