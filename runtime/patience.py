"""When to stop asking for an accepted job tonight: it stays invisible, its key is refused, its answers cannot be read.

None of this is a local timeout of the job (MON-6): a job that only runs for long is asked for as long as it runs.
"""

from adapters.base import Gone, NotVisible, Pending, PollOutcome, Throttled, Unreadable
from adapters.batchfile import BatchOutcome
from adapters.capabilities import Capabilities
from runtime.ports import Clock
from runtime.reconcile import SKEW_S
from runtime.work import TaskLog, Work, WorkKey

_LOST_AFTER_S = 600.0  # an accepted job that is older than this and invisible is lost,
_UNSEEN_S = 60.0  # once it has been so for this long: a single "not found" may be a slow replica
_REFUSED_S = 300.0  # a key that is refused for so long will hardly be good again tonight
_GARBLED_S = 600.0  # so long, answers that cannot be read may be a mistake of the moment;
_GARBLED_AGAIN_S = 60.0  # a later run has learned
_LONGEST_JOB_S = 3600.0  # the life of a result is counted from the end of a job, which nobody may have seen


class Patience:
    """One account's.  What was heard of a job stands in its work."""

    def __init__(self, caps: Capabilities, clock: Clock, log: TaskLog) -> None:
        self._caps = caps
        self._clock = clock
        self._log = log
        self._gone_at: dict[tuple[WorkKey, int], float] = {}  # by attempt; since when its result is said to be gone

    def heard(self, work: Work, outcome: PollOutcome | BatchOutcome) -> None:
        """Note an answer.  A broken or refused one says nothing of the job, and so does not make it visible again."""
        now = self._clock.monotonic()
        if isinstance(outcome, NotVisible):
            work.unseen_at = now if work.unseen_at is None else work.unseen_at
        elif not isinstance(outcome, Throttled | Unreadable):
            work.unseen_at = None
        if isinstance(outcome, Gone):
            self._gone_at.setdefault((work.key, work.attempt.number), now)
        elif not isinstance(outcome, Throttled | Unreadable):
            self._gone_at.pop((work.key, work.attempt.number), None)
        refused = isinstance(outcome, Unreadable) and outcome.unauthorized
        if not refused or work.refused_at is None:
            work.refused_at = now if refused else None
        unnamed = isinstance(outcome, Pending) and outcome.unnamed
        if unnamed or (isinstance(outcome, Unreadable) and outcome.garbled):
            work.garbled_at = now if work.garbled_at is None else work.garbled_at
        elif not isinstance(outcome, Throttled | Unreadable):
            work.garbled_at = None

    def unseen(self, work: Work) -> bool:
        """Whether more than a slow replica says that it is not there."""
        return work.unseen_at is not None and self._clock.monotonic() - work.unseen_at >= _UNSEEN_S

    def invisible_for_good(self, work: Work) -> bool:
        """Whether the job has been invisible for too long to be on its way.

        Counted on the monotonic clock since this process asks for it; the recorded time is only believed for
        attempts of older epochs, and with a margin (REC-8).
        """
        if not self.unseen(work):
            return False
        longest_s = max(_LOST_AFTER_S, self._caps.visible_after_s.value)
        if work.followed_at is not None and self._clock.monotonic() - work.followed_at > longest_s:
            return True
        return self._is_older(work) and self._age_s(work) > longest_s + SKEW_S

    def gone_for_good(self, work: Work) -> bool:
        """Whether it is no answer of a moment, in which a job had ended and its result was not there yet."""
        gone_at = self._gone_at.get((work.key, work.attempt.number))
        return gone_at is not None and self._clock.monotonic() - gone_at >= _UNSEEN_S

    def refused_for_good(self, work: Work) -> bool:
        return work.refused_at is not None and self._clock.monotonic() - work.refused_at > _REFUSED_S

    def garbled_for_good(self, work: Work) -> bool:
        """Whether answers that nobody can read (a success without an address of the image, for instance) came for so
        long that asking on would only keep the night from ending."""
        longest_s = _GARBLED_AGAIN_S if self._is_older(work) else _GARBLED_S
        return work.garbled_at is not None and self._clock.monotonic() - work.garbled_at > longest_s

    def unnamed_for_good(self, work: Work) -> bool:
        """Whether a job is in a state without a known name for longer than a job may take."""
        return work.garbled_at is not None and self._clock.monotonic() - work.garbled_at > _LONGEST_JOB_S

    def outlived(self, work: Work) -> bool:
        """Whether the job's result, if there was one, has expired by now: only then is it lost (RES-6)."""
        files = self._caps.batch_file
        life_s = self._caps.result_life_s.value + (files.value.expires_s if files is not None else _LONGEST_JOB_S)
        if self._is_older(work):
            return self._age_s(work) > life_s + SKEW_S
        return work.followed_at is not None and self._clock.monotonic() - work.followed_at > life_s

    def _is_older(self, work: Work) -> bool:
        return work.attempt.epoch < self._log.epoch

    def _age_s(self, work: Work) -> float:
        """Since its intent, by the wall clock, as recorded."""
        return (self._clock.now_us() - work.attempt.intended_at_us) / 1e6
