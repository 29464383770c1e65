"""Whether a key that an account name has now is of the account that bought with another one before (REC-9).

A job that was made with the other key and is readable with this one is the proof: an authenticated read, which shows a
provider's jobs to their own account.  That it is not readable proves nothing.
"""

import itertools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable
from random import Random
from typing import Literal, TypeAlias

import msgspec

from adapters.base import Finished, Gone, Pending, PollOutcome, Throttled, Unreadable
from adapters.batchfile import BatchOutcome, ResultFile
from runtime.accountlog import AccountLog
from runtime.ports import Clock
from runtime.work import Work

Seen: TypeAlias = Literal["yes", "no", "later"]

_log = logging.getLogger(__name__)

_JOBS_PER_KEY = 3
_TRIES = 6  # a job that could not be read is asked for so often
_AT_MOST_S = 600.0  # what was bought with the other key waits meanwhile


class KnownJob(msgspec.Struct, frozen=True):
    """A job of the account that the ledger knows, and the epoch of its purchase."""

    job: str
    epoch: int


def seen(outcome: PollOutcome | BatchOutcome) -> Seen:
    """What a read of a job, or of a batch, tells of the key.

    Only a job that runs, has finished, or whose result has expired since is there for sure.  A failure proves nothing:
    some providers tell of a job that the key does not see that it failed.
    """
    if isinstance(outcome, Throttled) or (isinstance(outcome, Unreadable) and not outcome.unauthorized):
        return "later"
    if isinstance(outcome, Pending) and outcome.unnamed:  # perhaps the name of a job that the key does not see
        return "later"
    return "yes" if isinstance(outcome, Pending | Finished | ResultFile | Gone) else "no"


async def confirm_by_jobs(
    log: AccountLog,
    jobs: Iterable[KnownJob],
    look: Callable[[str], Awaitable[Seen]],
    *,
    account: str,
    clock: Clock,
    random: Random,
) -> None:
    """Look at a few jobs of each key that may be of the same account; a key of which one is seen is, durably.

    Safe to be cut short at any point: the next run looks again.
    """
    asked = Counter[str]()
    until = clock.monotonic() + _AT_MOST_S
    jobs = iter(jobs)
    # Not one job more than will be asked for: the next one may be far back in the ledger.
    while left := {key for key in log.keys.confirmable if asked[key] < _JOBS_PER_KEY}:
        known = next(jobs, None)
        if known is None:
            return
        fingerprint = log.keys.span_of(known.epoch).fingerprint
        if fingerprint not in left:
            continue
        asked[fingerprint] += 1
        if await _sees(known.job, look, clock, random, until):
            _log.warning("%s: the new key reads a job made with another one: it is the same account", account)
            await log.confirm(by=f"job {known.job}", others=(fingerprint,))


class KeyCheck:
    """Finds out, once in a run, whose the key of an account is."""

    def __init__(
        self,
        log: AccountLog,
        *,
        account: str,
        jobs: Callable[[], Iterable[KnownJob]],
        look: Callable[[str], Awaitable[Seen]],
        clock: Clock,
        random: Random,
    ) -> None:
        """``jobs`` gives those that the ledger knows of the account, newest first."""
        self._log = log
        self._account = account
        self._jobs = jobs
        self._look = look
        self._clock = clock
        self._random = random
        self.in_doubt = len(log.keys.spans) > 1

    async def run(self, owned: Collection[Work]) -> None:
        """Look; ``owned`` are the purchases that are open or looked up again, whose jobs are asked for first."""
        mine = [KnownJob(work.attempt.job, work.attempt.epoch) for work in owned if work.attempt.job]
        jobs = itertools.chain(mine, self._jobs())
        await confirm_by_jobs(
            self._log, jobs, self._look, account=self._account, clock=self._clock, random=self._random
        )
        self.in_doubt = False
        strange = sum(self._log.foreign(work.attempt.epoch) for work in owned)
        if strange:
            confirm = f"; if it is the same account: bydawn providers confirm {self._account}"
            _log.error(
                "BD-118: %s: %d open %s made with another key or base URL, and this reads none of their "
                "jobs: nothing is concluded about them%s",
                self._account,
                strange,
                "purchase was" if strange == 1 else "purchases were",
                confirm if self._log.keys.confirmable else "",
            )


async def _sees(job: str, look: Callable[[str], Awaitable[Seen]], clock: Clock, random: Random, until: float) -> bool:
    for tried in range(_TRIES):
        told = await look(job)
        pause_s = 2.0**tried * random.uniform(0.5, 1.0)
        if told != "later" or clock.monotonic() + pause_s > until:
            return told == "yes"
        await clock.sleep_until(clock.monotonic() + pause_s)
    return False
