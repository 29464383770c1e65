"""Reads the events of a finished night in order, for the promises that no state shows any more.

What every ledger must keep (legal steps, one purchase at a time, versions, hash chain, views equal to their fold) is
``verify``'s to say; here is what only the simulator knows, or only the order of events tells.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator

from ledger.events import (
    AttemptAbsent,
    AttemptAmbiguous,
    AttemptFailed,
    AttemptIntended,
    AttemptLost,
    BatchCancelled,
    ControlTaken,
    Recorded,
    ResultSpared,
    TaskCompleted,
    TaskEvent,
)
from ledger.folds import EMPTY_TASK, AttemptState, TaskState, evolve_task
from ledger.reader import Reader
from ledger.streams import batch_of, stream_label, stream_parts
from runtime.callbacks import Addresses
from tests.simulation.postman import PUBLIC_URL, keyed
from tests.simulation.wanted import folder
from tests.simulation.world import KEY, OTHER_KEY, World


class History:
    """``found`` are the broken promises.  ``evidence`` counts how doubts ended, ``story`` digests what happened without
    ids, times and salts: two nights of one story differ in nothing that matters."""

    def __init__(self, world: World, reader: Reader) -> None:
        self.found: list[str] = []
        self.evidence: Counter[str] = Counter()
        self._world = world
        self._tasks: dict[int, TaskState] = {}
        self._cancelled: set[tuple[int, int]] = set()  # (epoch, batch): the message is being carried out
        self._closed: set[tuple[int, int]] = set()  # it was
        self._done: dict[str, int] = {}  # job -> the event that completed its task
        story = hashlib.sha256()
        for recorded in reader.events(limit=1_000_000):
            story.update(f"{recorded.stream} {recorded.epoch} {recorded.event.TYPE}\n".encode())
            self._take(recorded)
        self.story = story.hexdigest()
        self.found += self._fetched_again()
        self.found += self._secrets()

    def _take(self, recorded: Recorded) -> None:
        event, epoch = recorded.event, recorded.epoch
        match event:
            case BatchCancelled():
                self._cancelled.add((epoch, batch_of(recorded.stream)))
            case ControlTaken(kind="cancel"):
                self._closed |= {pair for pair in self._cancelled if pair[0] == epoch}
            case _ if stream_parts(recorded.stream).kind == "task":
                self._take_task(recorded, event)  # type: ignore[arg-type]  # events of a task stand in its stream

    def _take_task(self, recorded: Recorded, event: TaskEvent) -> None:
        stream, epoch = recorded.stream, recorded.epoch
        before = self._tasks.get(stream, EMPTY_TASK)
        after = self._tasks[stream] = evolve_task(before, event, epoch=epoch, at_us=recorded.at_us)
        if isinstance(event, AttemptIntended):
            self._intended(recorded, event)
            return
        number = getattr(event, "attempt", 0)
        attempt = after.attempt(number)
        if attempt is None:
            return
        where = f"{stream_label(stream)}, attempt {number}"
        match event:
            case AttemptAmbiguous(reason="crash") if attempt.epoch == epoch:
                self.found.append(f"{where}: its own epoch took it for crashed (REC-6)")
            case AttemptAbsent() | AttemptLost() if attempt.epoch < self._world.key_epoch <= epoch:
                self.found.append(f"{where}: {attempt.phase} with the key of another account (REC-9)")
            case AttemptFailed(reason="bad_image"):
                self._kept(where, stream, number)
            case ResultSpared(sha256=sha256):
                spare = folder(batch_of(stream)) / "blobs" / sha256[:2] / sha256
                if not self._world.disk.exists(spare):
                    self.found.append(f"{where}: paid, not needed, and not kept (MON-9)")
            case TaskCompleted() if attempt.job:
                self._done[attempt.job] = recorded.seq
        self._count(attempt, before.attempt(number))

    def _intended(self, recorded: Recorded, event: AttemptIntended) -> None:
        """What must be over before anything is bought."""
        where = f"{stream_label(recorded.stream)}, attempt {event.attempt}"
        if (recorded.epoch, batch_of(recorded.stream)) in self._closed:
            self.found.append(f"{where}: bought after its batch was cancelled (W15)")
        for state in self._tasks.values():
            if any(
                each.account == event.account and each.phase == "intended" and each.epoch < recorded.epoch
                for each in state.attempts
            ):
                self.found.append(f"{where}: bought before {event.account} looked at its crashed attempts (REC-2)")

    def _kept(self, where: str, stream: int, number: int) -> None:
        parts = stream_parts(stream)
        ending = f"-{parts.batch}-{parts.n}-{number}.bin"
        if not any(name.endswith(ending) for name in self._world.disk.names(folder(parts.batch) / "disputed")):
            self.found.append(f"{where}: its bytes were not kept for dispute (RES-4)")

    def _count(self, attempt: AttemptState, before: AttemptState | None) -> None:
        if before is not None and attempt.phase == before.phase:
            return
        if attempt.adopted_by and attempt.phase == "accepted":
            self.evidence[f"adopted by {attempt.adopted_by}"] += 1
        elif attempt.phase in ("absent", "unknown"):
            self.evidence[f"{attempt.phase}: {attempt.reason}"] += 1
        elif attempt.phase in ("surplus", "lost"):
            self.evidence[attempt.phase] += 1

    def _fetched_again(self) -> Iterator[str]:
        for seq, job in self._world.fetched:
            if seq >= self._done.get(job, seq + 1):
                yield f"{job}: its image was fetched once more after the task was done (LIVE-2)"

    def _secrets(self) -> Iterator[str]:
        """SEC-1: no key, and no token of a callback, stands anywhere in the ledger's files."""
        path = self._world.path
        files = [path, path.with_name(path.name + "-wal")]
        held = b"".join(file.read_bytes() for file in files if file.exists())
        for key in (KEY, OTHER_KEY):
            if key.encode() in held:
                yield "the key stands in the ledger (SEC-1)"
        addresses = Addresses(PUBLIC_URL, keyed)
        for stream, state in self._tasks.items():
            parts = stream_parts(stream)
            for attempt in state.attempts:
                url = addresses.url(attempt.account, parts.batch, parts.n, attempt.number)
                if attempt.callback and url.rpartition("/")[2].encode() in held:
                    yield f"{stream_label(stream)}: the token of its callback stands in the ledger (SEC-1)"
