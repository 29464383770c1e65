"""A real ledger with one small batch, for tests of what reads and writes it outside the actors."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
import trio.testing

from adapters.base import ImageRequest
from ledger.commands import Intend, Record, TaskCommand
from ledger.decisions import Append, Decision
from ledger.events import (
    AttemptAmbiguous,
    AttemptFailed,
    AttemptUnknown,
    BatchOpened,
    BatchSealed,
    Event,
    ImportOpened,
    TaskQueued,
)
from ledger.journal import Ledger
from ledger.reader import Reader
from ledger.streams import StreamKey, batch_stream, task_stream
from runtime.requests import encode_request
from runtime.simulated import EPOCH_US, SimClock, SimThreads
from runtime.work import TaskLog, Work, load_work
from runtime.writer import LedgerWriter


class OpenLedger:
    """A ledger under its writer; used inside :func:`with_ledger` only."""

    def __init__(self, ledger: Ledger, reader: Reader) -> None:
        self.ledger = ledger
        self.reader = reader
        self.clock = SimClock()
        self.writer = LedgerWriter(ledger, SimThreads())
        self.log = TaskLog(self.writer, self.clock)

    def work(self, n: int) -> Work:
        return load_work(self.reader, 1, n)

    def phases(self) -> str:
        """The phases of all tasks, in order."""
        return " ".join(row.phase for row in self.reader.tasks(1))

    async def do(self, n: int, *commands: TaskCommand) -> Work:
        work = self.work(n)
        for command in commands:
            await self.log.record(work, command)
        return work

    async def intend(self, n: int) -> Work:
        return await self.do(n, Intend("kie", "kie", "default", "only", 60_000, "d", 0))

    async def hold(self, n: int) -> Work:
        """Bought, and nobody can know what came of it."""
        await self.intend(n)
        return await self.do(
            n,
            Record(AttemptAmbiguous(attempt=1, reason="no_reply")),
            Record(AttemptUnknown(attempt=1, reason="no_evidence")),
        )

    async def fail(self, n: int) -> Work:
        await self.intend(n)
        return await self.do(n, Record(AttemptFailed(attempt=1, reason="policy")))


def with_ledger(
    root: Path,
    body: Callable[[OpenLedger], Awaitable[None]],
    *,
    tasks: int = 4,
    owners: dict[int, int] | None = None,
    twins: dict[int, int] | None = None,
) -> None:
    """Give the body a ledger whose batch 1 is sealed; ``owners`` maps followers to whom they follow, ``twins`` tasks to
    others that ask for the very same, and are bought for themselves."""
    with Ledger.create_or_open(root / "n.db", create=True) as ledger:
        ledger.start_epoch(machine="m", pid=1, app_version="0", operator="o", command="run", at_us=EPOCH_US)
        ledger.commit(_batch(ledger, tasks, owners or {}, (twins or {}) | (owners or {})))
        with Reader(ledger.path) as reader:

            async def go() -> None:
                opened = OpenLedger(ledger, reader)
                async with trio.open_nursery() as nursery:
                    await nursery.start(opened.writer.run)
                    try:
                        await body(opened)
                    finally:
                        opened.writer.close()

            trio.run(go, clock=trio.testing.MockClock(autojump_threshold=0))


def _batch(ledger: Ledger, tasks: int, owners: dict[int, int], like: dict[int, int]) -> list[Decision]:
    decisions: list[Decision] = []

    def add(stream: StreamKey, expected: int, *events: Event) -> None:
        decisions.append(Decision(appends=(Append(stream, expected, events),), at_us=EPOCH_US))

    add(
        batch_stream(1),
        0,
        BatchOpened(name="b", folder="/b", sandbox=True, operator="o"),
        ImportOpened(number=1, first=1, source="s", input_digest="d"),
    )
    for n in range(1, tasks + 1):
        request = ImageRequest(prompt=f"picture {like.get(n, n)}")
        ref, payload = ledger.payload(encode_request(request, {}))
        queued = TaskQueued(
            id=f"r{n}",
            request=ref,
            model=request.model,
            aspect="1:1",
            resolution="1K",
            line=n,
            number=1,
            owner=owners.get(n, 0),
        )
        decisions.append(
            Decision(appends=(Append(task_stream(1, n), 0, (queued,)),), at_us=EPOCH_US, payloads=(payload,))
        )
    add(batch_stream(1), 2, BatchSealed(number=1, tasks=tasks, rows=tasks, input_digest="d"))
    return decisions
