"""Brings a control message to whoever can carry it out.

If the ledger is free, this process takes it and does it; if a run holds it, the message is left in its inbox and
the result is followed through the ledger.
"""

import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec
import trio

from adapters import registry
from bydawn.config import load_config
from bydawn.errors import UserError
from bydawn.opening import opened_for_writing
from bydawn.selection import find_task, ledger_path
from bydawn.selection import open_batch as find_batch
from ledger.errors import LedgerHeld
from ledger.events import ControlTaken
from ledger.folds import TaskPhase
from ledger.journal import Ledger
from ledger.reader import Reader
from runtime.clock import TrioClock
from runtime.control import Controller, Done
from runtime.inbox import Control, inbox_of, leave, message_key
from runtime.threads import TrioThreads
from runtime.work import TaskLog
from runtime.writer import LedgerWriter

_PATIENCE_S = 30.0


class Asked:
    """The batch that a command is about; a context manager around its reader."""

    def __init__(self, explicit: Path | None, name: str, *, sandbox: bool) -> None:
        # This one ledger and no other: a command that writes never wanders from the real one into practice.
        self._opened = find_batch(explicit or ledger_path(None, sandbox=sandbox), name, sandbox=sandbox)

    def __enter__(self) -> Self:
        self.reader, self.row = self._opened.__enter__()
        self.batch = self.row.batch
        self.sandbox = self.row.sandbox
        self.path = self.reader.path
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.__exit__(None, None, None)


class Answer(msgspec.Struct, frozen=True):
    """What came of a message.  ``running``: a run carried it out; ``waiting``: it has not been taken yet."""

    changed: int = 0
    skipped: int = 0
    free: int = 0
    charged: int = 0
    unknown: int = 0
    running: bool = False
    waiting: bool = False


def task_numbers(asked: Asked, ids: Sequence[str]) -> tuple[int, ...]:
    """Find tasks by id.  Raises UserError (exit 10) for an unknown one."""
    return tuple(find_task(asked.reader, asked.row, each).n for each in ids)


def price_of(asked: Asked, numbers: Sequence[int], states: Sequence[TaskPhase]) -> tuple[int, int]:
    """Return how many of the tasks are in the states, and what buying them again should cost at the cheapest of the
    providers that the batch is bought from."""
    chosen = frozenset(numbers)
    images = cost = 0
    config = load_config(Path.cwd(), os.environ)
    book = config.price_book()
    tables = config.accounts
    names = asked.reader.batch(asked.batch).settings.providers or registry.entries()
    providers = {tables[name][0].provider if name in tables else name for name in names}
    after = 0
    while page := asked.reader.tasks(asked.batch, after=after, limit=1000, states=tuple(states)):
        after = page[-1].n
        for row in page:
            if (chosen and row.n not in chosen) or asked.reader.payload(row.request.row) is None:
                continue  # an erased one cannot be bought again
            images += 1
            prices = [
                price.microusd
                for provider in providers
                if (price := book.quote(provider, row.model, row.resolution, references=False)) is not None
            ]
            cost += min(prices, default=0)
    return images, cost


def send(path: Path, message: Control) -> Answer:
    """Carry a message out, or leave it for the process that holds the ledger.

    Raises:
        UserError: the holder does not take messages (exit 11); the message stays and is taken on the next start.
    """
    try:
        with opened_for_writing(path, create=False) as opened:
            done = trio.run(_apply, opened.ledger, message)
            return _answer(done, running=False)
    except LedgerHeld as exc:
        return _through_inbox(path, message, exc)


async def _apply(ledger: Ledger, message: Control) -> Done:
    writer = LedgerWriter(ledger, TrioThreads())
    clock = TrioClock()
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        try:
            with ledger.reader() as reader:
                controller = Controller(journal=writer, log=TaskLog(writer, clock), reader=reader, clock=clock)
                done = await controller.apply(message)
        finally:
            writer.close()
    return done


def _through_inbox(path: Path, message: Control, held: LedgerHeld) -> Answer:
    name = f"{time.time_ns() // 1000}-{secrets.token_hex(4)}"
    file = leave(inbox_of(path), message, name=name)
    deadline = time.monotonic() + _PATIENCE_S
    key = message_key(file.name)
    with Reader(path) as reader:
        while time.monotonic() < deadline:
            seq = reader.seq_of_key(key)
            if seq is not None:
                (recorded,) = reader.events(after=seq - 1, limit=1)
                assert isinstance(recorded.event, ControlTaken)
                return _answer(msgspec.json.decode(recorded.event.result, type=Done), running=True)
            time.sleep(0.1)
    raise UserError(
        "BD-111",
        "the run that holds the ledger has not taken the message yet",
        where=str(file),
        why=str(held),
        fix="it stays there and is taken as soon as possible, at the latest when the next run starts",
        exit_code=11,
    )


def _answer(done: Done, *, running: bool) -> Answer:
    return Answer(done.changed, done.skipped, done.free, done.charged, done.unknown, running=running)
