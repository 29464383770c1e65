"""Counts what simulated nights met, so that a long run can prove that it looked everywhere.

A *window* (docs/recovery.md) counts when a process died in it.  Most are a fault point that it died at.  Three are told
by the books of both sides at the cut: the provider has the job and the ledger has no answer (W4), it has the batch and
the ledger has no name of it (W16), and a run that starts with other keys finds something open (W17).
"""

from collections import Counter
from collections.abc import Iterable

import msgspec

from ledger.folds import AttemptState
from ledger.reader import Reader
from tests.simulation.history import History
from tests.simulation.world import World

_AT_POINTS = {
    "before_intent": "W1",
    "intent_recorded": "W2",
    "request_sent": "W3",
    "reply_read": "W5",
    "acceptance_recorded": "W6",
    "result_seen": "W7",
    "ready_recorded": "W8",
    "download_started": "W9",
    "download_ended": "W10",
    "blob_stored": "W11",
    "completion_recorded": "W13",
    "reply_spooled": "W14",
    "cancel_recorded": "W15",
    "cancel_answered": "W15",
}
_ARRIVED = "died between arrival and reply"
_BATCH = "died between a batch and its name"
_STRANGE = "new keys, something open"
WINDOWS = (*dict.fromkeys(_AT_POINTS.values()), "W4", "W16", "W17")


class Tally(msgspec.Struct):
    """``deadly``: how many schedules had a process that died.  ``heads`` are the ends of the chains, ``stories`` the
    same without what is random in every ledger."""

    schedules: int = 0
    deadly: int = 0
    died: Counter[str] = msgspec.field(default_factory=Counter)
    seen: Counter[str] = msgspec.field(default_factory=Counter)
    evidence: Counter[str] = msgspec.field(default_factory=Counter)
    jobs: Counter[str] = msgspec.field(default_factory=Counter)
    heads: set[str] = msgspec.field(default_factory=set)
    stories: set[str] = msgspec.field(default_factory=set)

    def add(self, other: "Tally") -> None:
        self.schedules += other.schedules
        self.deadly += other.deadly
        self.died += other.died
        self.seen += other.seen
        self.evidence += other.evidence
        self.jobs += other.jobs
        self.heads |= other.heads
        self.stories |= other.stories

    @property
    def windows(self) -> dict[str, int]:
        """How many processes died in each window."""
        found = Counter(dict.fromkeys(WINDOWS, 0))
        for point, window in _AT_POINTS.items():
            found[window] += self.died[point]
        found["W4"], found["W16"], found["W17"] = self.seen[_ARRIVED], self.seen[_BATCH], self.seen[_STRANGE]
        return {window: found[window] for window in sorted(found, key=lambda window: int(window[1:]))}

    def text(self) -> str:
        return "\n".join(
            [
                f"{self.schedules} schedules, {self.deadly} with a death",
                f"{len(self.heads)} chain heads, {len(self.stories)} different stories",
                f"deaths by window: {_listed(self.windows.items())}",
                f"deaths elsewhere: {_listed((k, n) for k, n in self.died.items() if k not in _AT_POINTS)}",
                f"what else happened: {_listed(self.seen.items())}",
                f"how doubts ended: {_listed(self.evidence.items())}",
                f"jobs: {_listed(self.jobs.items())}",
            ]
        )


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts)


def tallied(world: World, history: History, reader: Reader) -> Tally:
    """What one night met."""
    postman = world.postman
    called = Counter({"callbacks": postman.delivered, "callbacks turned away": postman.turned_away} if postman else {})
    return Tally(
        schedules=1,
        deadly=int(bool(world.crashed)),
        died=world.crashed,
        seen=world.seen + called,
        evidence=history.evidence,
        jobs=Counter(line.provider for line in world.bill()),
        heads={reader.head().hash},
        stories={history.story},
    )


def at_the_cut(world: World, reader: Reader) -> Counter[str]:
    """Where, by the books of both sides, the process died that lived last."""
    if not world.died:
        return Counter()
    arrived = batch = False
    jobs = Counter((line.provider, line.prompt) for line in world.bill_so_far())
    for prompt, streams in world.wanting.items():
        attempts = [attempt for stream in streams for attempt in reader.state(stream).attempts]
        cut_off = [each for each in attempts if each.phase == "intended" and each.epoch == world.epoch]
        batch = batch or any(each.file in world.created for each in cut_off)
        for provider in {each.provider for each in cut_off}:
            told = sum(each.provider == provider and _has_job(each) for each in attempts)
            arrived = arrived or jobs[provider, prompt] > told
    return Counter({_ARRIVED: int(arrived), _BATCH: int(batch)})


def _has_job(attempt: AttemptState) -> bool:
    """Whether the ledger knows that there was a job; a synchronous one has no name."""
    return bool(attempt.job) or attempt.phase in ("ready", "done", "failed", "surplus", "lost")
