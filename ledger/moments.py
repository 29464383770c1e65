"""A batch as it stood at any moment, folded from the events up to there and from nothing else.

:class:`Playback` runs the events through the writer's own projection (:mod:`ledger.projection`) and keeps in memory
what the writer keeps in the views, so that at the last event both say the same, and at any earlier one it says what the
views said then.  The stored views are never read.

One pass, in pages.  Events never change, so no read transaction has to stay open, and a running night can fold its
write-ahead log away meanwhile.  Events of other batches are passed over undecoded; of a task that has settled one byte
is kept (its phase), unless every task is wanted.  Accounts and runs are those of the ledger, up to the same event.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import TypeAlias, cast

import msgspec

from ledger.encoding import decode_event
from ledger.engine import Store
from ledger.events import (
    AccountKeyChanged,
    AccountOpened,
    AccountParked,
    AccountResumed,
    AttemptLost,
    BatchCancelled,
    BatchConfigured,
    BatchOpened,
    BatchSealed,
    BreakerChanged,
    ControlTaken,
    EpochEnded,
    EpochStarted,
    Event,
    ImportDropped,
    OperatorDecided,
    Overcharged,
    Recorded,
    ResultSpared,
    SpendAgreed,
)
from ledger.folds import BatchState
from ledger.money import Balance
from ledger.projection import TALLIES
from ledger.rebuild import Replayer
from ledger.replay import BATCH_KIND, KIND_SHIFT, TASK_KIND
from ledger.streams import batch_stream, task_stream

PHASES = ("", "queued", "intended", "ambiguous", "accepted", "ready", "held", "succeeded", "failed", "cancelled")
"""What a byte of :attr:`Moment.phases` stands for; the first is a task that is not there (yet)."""

NOTABLE: frozenset[type[Event]] = frozenset(
    {
        EpochStarted,
        EpochEnded,
        ControlTaken,
        AccountOpened,
        AccountKeyChanged,
        AccountParked,
        AccountResumed,
        BreakerChanged,
        Overcharged,
        BatchOpened,
        BatchConfigured,
        SpendAgreed,
        BatchSealed,
        ImportDropped,
        BatchCancelled,
        OperatorDecided,
        AttemptLost,
        ResultSpared,
    }
)
"""What a person would want to be told one by one; of everything else the number tells enough."""

_CODE = {name: code for code, name in enumerate(PHASES)}
_PAGE = 20_000
_Columns: TypeAlias = tuple[int, str, str, str, int, int, int, int, int, str, str]  # of ``projection.task_columns``
_EVENTS = (
    "SELECT seq, stream, version, epoch, at_us, type, data FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
)


class Counted(msgspec.Struct, frozen=True):
    """So many tasks (or, for a tally, images) in a state, by the provider of the newest attempt."""

    state: str
    provider: str
    n: int


class AccountLine(msgspec.Struct, frozen=True):
    """An account of the ledger.  ``parked`` is the reason, empty while it may buy."""

    n: int
    name: str
    provider: str
    parked: str
    overcharges: int
    overcharged_microusd: int


class EpochLine(msgspec.Struct, frozen=True):
    """A process that could write, and how many events of this batch it wrote.  ``ended_at_us`` 0 = had not ended."""

    epoch: int
    started_at_us: int
    command: str
    operator: str
    app_version: str
    ended_at_us: int = 0
    stopped_by: str = ""
    exit_code: int | None = None
    events: int = 0


class TaskLine(msgspec.Struct, frozen=True):
    n: int
    id: str
    phase: str
    version: int
    account: str
    provider: str
    attempts: int
    cost_microusd: int
    reason: str
    flags: str


class Moment(msgspec.Struct, frozen=True):
    """A batch right after event ``seq``.

    ``books`` are the money accounts that the batch weighs on, with its own part only: ``account/kie`` is what this
    batch spent there.  ``phases`` has a byte for each task, at its number.  ``tasks`` is None unless asked for.
    """

    batch: int
    seq: int
    at_us: int  # when that event was recorded; 0 before the first
    state: BatchState
    counts: tuple[Counted, ...]
    tallies: tuple[Counted, ...]
    books: dict[str, Balance]
    accounts: tuple[AccountLine, ...]
    epochs: tuple[EpochLine, ...]
    phases: bytes
    tasks: tuple[TaskLine, ...] | None = None

    @property
    def unsealed(self) -> int:
        """Tasks of an import that was under way: nobody may buy them yet (LED-11)."""
        beyond = self.phases[self.state.sealed_through + 1 :]
        return len(beyond) - beyond.count(0)

    def book(self, name: str) -> Balance:
        return self.books.get(name, Balance())

    def digest(self) -> str:
        """One word for all of it, the same wherever and whenever it is computed (REC-1)."""
        whole = msgspec.structs.replace(self, tasks=None)
        return hashlib.sha256(msgspec.json.encode(whole, order="deterministic")).hexdigest()


class Difference(msgspec.Struct, frozen=True):
    """What happened after event ``before.seq``, up to ``after.seq``.

    ``transitions`` counts the tasks that stand elsewhere now, by (phase then, phase now), ``""`` for one that was not
    there; ``events`` counts the events of the batch by their tags.
    """

    before: Moment
    after: Moment
    transitions: dict[tuple[str, str], int]
    events: dict[str, int]
    notable: tuple[Recorded, ...]


class Playback:
    """Plays the events of one batch forward; ask for :meth:`moment` wherever it stands."""

    def __init__(self, store: Store, batch: int, *, tasks: bool = False, page: int = _PAGE) -> None:
        """``tasks`` keeps a line for every task, not only its phase."""
        self._store = store
        self._batch = batch
        self._page = page
        self._replayer = Replayer(store)
        self._first, self._last = task_stream(batch, 0), task_stream(batch + 1, 0) - 1
        self._own = batch_stream(batch)
        self._seq = self._at_us = 0
        self._counts: dict[tuple[str, str], int] = {}
        self._books: dict[str, Balance] = {}
        self._accounts: dict[int, AccountLine] = {}
        self._epochs: dict[int, EpochLine] = {}
        self._wrote: Counter[int] = Counter()
        self._phases = bytearray()
        self._tasks: dict[int, TaskLine] | None = {} if tasks else None
        self.events: Counter[str] = Counter()
        """Events of the batch so far, by tag."""
        self.notable: list[Recorded] = []

    def play(self, through: int, progress: Callable[[int, int], None] | None = None) -> None:
        """Go on up to and with event ``through``; ``progress`` is told (done, total) in seq after every page."""
        while self._seq < through:
            rows = self._store.rows(_EVENTS, (self._seq, through, self._page))
            if not rows:
                return
            for seq, stream, version, epoch, at_us, tag, data in rows:
                if self._concerns(stream):
                    self._step(seq, stream, version, epoch, at_us, decode_event(tag, data))
            self._seq, self._at_us = rows[-1][0], rows[-1][4]
            self._gather()
            if progress is not None:
                progress(self._seq, through)

    def moment(self) -> Moment:
        """The batch as it stands here."""
        counted = [Counted(state, provider, n) for (state, provider), n in sorted(self._counts.items()) if n]
        return Moment(
            batch=self._batch,
            seq=self._seq,
            at_us=self._at_us,
            state=cast(BatchState, self._replayer.state(self._own, 0)),
            counts=tuple(entry for entry in counted if entry.state not in TALLIES),
            tallies=tuple(entry for entry in counted if entry.state in TALLIES),
            books={name: held for name, held in sorted(self._books.items()) if any(held)},
            accounts=tuple(self._accounts[n] for n in sorted(self._accounts)),
            epochs=tuple(
                msgspec.structs.replace(line, events=self._wrote[epoch]) for epoch, line in sorted(self._epochs.items())
            ),
            phases=bytes(self._phases).rstrip(b"\0"),
            tasks=None if self._tasks is None else tuple(self._tasks[n] for n in sorted(self._tasks)),
        )

    def _concerns(self, stream: int) -> bool:
        kind = stream >> KIND_SHIFT
        if kind == TASK_KIND:
            return self._first <= stream <= self._last
        return kind != BATCH_KIND or stream == self._own

    def _step(self, seq: int, stream: int, version: int, epoch: int, at_us: int, event: Event) -> None:
        self._replayer.step(seq, stream, version, epoch, at_us, event)
        if stream >> KIND_SHIFT in (TASK_KIND, BATCH_KIND):
            self.events[event.TYPE] += 1
            self._wrote[epoch] += 1
        elif isinstance(event, EpochStarted):
            self._epochs[epoch] = EpochLine(epoch, at_us, event.command, event.operator, event.app_version)
        elif isinstance(event, EpochEnded) and epoch in self._epochs:
            self._epochs[epoch] = msgspec.structs.replace(
                self._epochs[epoch], ended_at_us=at_us, stopped_by=event.stopped_by, exit_code=event.exit_code
            )
        if type(event) in NOTABLE and not (isinstance(event, Overcharged) and event.batch != self._batch):
            self.notable.append(Recorded(seq, stream, version, epoch, at_us, event))

    def _gather(self) -> None:
        """Take in what the projection would have written, in the order of :mod:`ledger.views`."""
        rows = self._replayer.projection.take()
        for first, last in cast(list[tuple[int, int]], rows.dropped):
            self._forget(first - self._first, last - self._first)
        for new in rows.new_tasks:
            self._put(cast(int, new[0]), cast(str, new[-1]), new[1:12])
        for changed in rows.tasks:
            self._put(cast(int, changed[-1]), "", changed[:11])
        for _, state, provider, n in cast(list[tuple[int, str, str, int]], rows.counts):
            self._counts[state, provider] = n
        for name, *held in cast(list[tuple[str, int, int, int]], rows.money):
            self._books[name] = Balance(*held)
        for n, name, provider, _, *rest in cast(list[tuple[int, str, str, str, str, int, int]], rows.accounts):
            parked, overcharges, above = cast(tuple[str, int, int], tuple(rest))
            self._accounts[n] = AccountLine(n, name, provider, parked, overcharges, above)

    def _forget(self, first: int, last: int) -> None:
        """The tasks of an import that was dropped: they never count."""
        self._phases[first : last + 1] = bytes(len(self._phases[first : last + 1]))
        if self._tasks is not None:
            for n in range(first, last + 1):
                self._tasks.pop(n, None)

    def _put(self, stream: int, task_id: str, columns: tuple[object, ...]) -> None:
        version, phase, account, provider, attempts, cost, _slot, _owner, _at_us, reason, flags = cast(
            _Columns, columns
        )
        n = stream - self._first
        if n >= len(self._phases):
            self._phases.extend(bytes(n + 1 - len(self._phases)))
        self._phases[n] = _CODE[phase]
        if self._tasks is not None:
            known = task_id or self._tasks[n].id
            self._tasks[n] = TaskLine(n, known, phase, version, account, provider, attempts, cost, reason, flags)


def moment_at(
    store: Store, batch: int, seq: int, *, tasks: bool = False, progress: Callable[[int, int], None] | None = None
) -> Moment:
    """Return the batch as it stood after event ``seq``."""
    playback = Playback(store, batch, tasks=tasks)
    playback.play(seq, progress)
    return playback.moment()


def difference(
    store: Store, batch: int, before: int, after: int, *, progress: Callable[[int, int], None] | None = None
) -> Difference:
    """Return what happened after event ``before`` up to event ``after``, in one pass."""
    playback = Playback(store, batch)
    playback.play(before, progress)
    start, events, told = playback.moment(), playback.events.copy(), len(playback.notable)
    playback.play(after, progress)
    end = playback.moment()
    return Difference(
        before=start,
        after=end,
        transitions=_transitions(start.phases, end.phases),
        events=dict(sorted((playback.events - events).items())),
        notable=tuple(playback.notable[told:]),
    )


def _transitions(before: bytes, after: bytes) -> dict[tuple[str, str], int]:
    size = max(len(before), len(after))
    pairs = Counter(zip(before.ljust(size, b"\0"), after.ljust(size, b"\0"), strict=True))
    return {(PHASES[old], PHASES[new]): n for (old, new), n in sorted(pairs.items()) if old != new}


def last_seq(store: Store) -> int:
    """The newest event, 0 in a ledger without any."""
    found = store.row("SELECT coalesce(max(seq), 0) FROM events")
    return 0 if found is None else int(found[0])


def seq_at(store: Store, at_us: int) -> int:
    """The newest event that was recorded at ``at_us`` or before, 0 if there is none.

    Newest in the order of the ledger: where a clock was set back, that is the order that counts.
    """
    found = store.row("SELECT seq FROM events WHERE at_us <= ? ORDER BY seq DESC LIMIT 1", (at_us,))
    return 0 if found is None else int(found[0])


def time_of(store: Store, seq: int) -> int:
    """When an event was recorded, 0 when there is no such event."""
    found = store.row("SELECT at_us FROM events WHERE seq = ?", (seq,))
    return 0 if found is None else int(found[0])
