"""Which tasks of a lane make the next batch file, and when.  Plain bookkeeping: no waiting, no clock of its own.

A file is closed when it is as full as the limits allow, or when its lane has been quiet for a moment.  It is never
larger than what may be bought at once: a file is in doubt as a whole until its one call is answered (MON-3).
"""

from collections.abc import Callable, Collection, Iterable

from adapters.batchfile import BatchFiles
from adapters.capabilities import BatchFile
from ledger.decisions import Count, Exceeded, Reserve
from ledger.money import risk_money
from runtime.gateway import Submission
from runtime.lanes import Lane

QUIET_S = 1.0  # a file waits so long for more lines
FILES_UNACKNOWLEDGED = 4  # so many files of one lane may be doubtful at one time, counted by their lines


class Gathering:
    def __init__(self, limits: BatchFile, codec: BatchFiles) -> None:
        self._limits = limits
        self._codec = codec
        self._seen: dict[str, tuple[int, float]] = {}  # lane -> how many wait there, and since when no more came
        self._next_most: dict[str, int] = {}  # lane -> bound of the next file alone

    def room(self, lane: Lane, now: float) -> int:
        """How many more tasks the lane would take: enough for the file that is gathered and for one behind it."""
        return max(0, min(2 * self._limits.lines - len(lane.queue), lane.room(now)))

    def next_file(
        self, lanes: Iterable[Lane], now: float, *, open_batches: int, waiting_tokens: Callable[[str], int]
    ) -> tuple[Lane, int] | float:
        """Return the lane whose file is to be closed now, with how many tasks from its head; else the seconds after
        which one might be (infinity: only news can change that)."""
        wait_s = float("inf")
        for lane in lanes:
            waiting = len(lane.queue)
            if not waiting:
                self._seen.pop(lane.name, None)
                continue
            if self._seen.get(lane.name, (0, 0.0))[0] != waiting:
                self._seen[lane.name] = (waiting, now + QUIET_S)
            if not lane.startable(now):
                shut_s = lane.breaker.seconds_until_open(now)
                wait_s = min(wait_s, shut_s) if shut_s > 0 else wait_s
                continue
            if open_batches >= self._limits.batches:
                continue
            most = self._most(lane, now)
            fitting = self._fitting(lane, min(most, waiting), waiting_tokens(lane.name))
            quiet_at = self._seen[lane.name][1]
            if fitting and (waiting >= most or now >= quiet_at):
                self._seen.pop(lane.name, None)
                self._next_most.pop(lane.name, None)
                return lane, fitting
            if fitting:
                wait_s = min(wait_s, quiet_at - now)
        return wait_s

    def too_large(self, lane: Lane, lines: Collection[Submission], refused: Exceeded) -> bool:
        """Learn from a guard that refused a file; False when not even its smallest line would pass."""
        guard = refused.guard
        excess = refused.value - (guard.cap if isinstance(guard, Count) else guard.cap_microusd)
        each = 1 if isinstance(guard, Count) else max(line.ceiling_microusd for line in lines)
        return self.at_most(lane, len(lines) - max(1, -(-excess // max(1, each))))

    def at_most(self, lane: Lane, lines: int) -> bool:
        """Bound the next file of the lane; False when that would be none."""
        if lines < 1:
            return False
        self._next_most[lane.name] = lines
        return True

    def _most(self, lane: Lane, now: float) -> int:
        most = min(self._limits.lines, lane.startable(now), self._next_most.get(lane.name, self._limits.lines))
        submission = lane.queue[0]
        risk = risk_money(submission.work.batch)
        for guard in submission.guards(0):
            if isinstance(guard, Reserve) and guard.account == risk:
                most = min(most, guard.cap_microusd // max(1, submission.ceiling_microusd))
        return max(1, most)  # one that is too dear for every cap must hear so

    def _fitting(self, lane: Lane, most: int, waiting: int) -> int:
        """How many from the head of the queue the provider lets wait, by their tokens.

        While others wait there, a remnant of the budget is left alone: it would make many small files.
        """
        left = self._codec.token_budget(lane.name) - waiting
        fitting = 0
        for submission in list(lane.queue)[:most]:
            left -= self._codec.tokens(submission.work.request)
            if left < 0:
                break
            fitting += 1
        if not waiting:
            return max(1, fitting)  # a task that is larger than the whole budget is the provider's to refuse
        return fitting if fitting == most or fitting >= self._limits.lines // 2 else 0
