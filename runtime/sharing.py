"""Followers: tasks that share the purchase of an identical one settle when their owner has settled."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

import trio

from ledger.commands import Cancel, Fail, Share, TaskCommand
from ledger.errors import CommandRejected
from ledger.openwork import Follower
from ledger.reader import Reader
from ledger.tasklist import TaskRow
from runtime.work import StreamConflict, TaskLog, Work, load_work

_TOGETHER = 200

# Gives the image of an owner the follower's own name, before the follower is settled.
Link: TypeAlias = Callable[[Work, TaskRow], Awaitable[None]]


async def settle_followers(batch: int, reader: Reader, log: TaskLog, link: Link) -> int:
    """Settle every follower whose owner has settled; return how many."""
    total = 0
    while page := reader.followers(batch, limit=_TOGETHER):
        settled: list[int] = []
        async with trio.open_nursery() as nursery:
            for follower in page:
                nursery.start_soon(partial(_settle, batch, follower, reader, log, link, settled))
        total += len(settled)
        if not settled:  # an operator was faster with each of them
            break
    return total


async def _settle(batch: int, follower: Follower, reader: Reader, log: TaskLog, link: Link, settled: list[int]) -> None:
    owner = follower.owner
    work = load_work(reader, batch, follower.n)
    command: TaskCommand
    if owner.phase == "succeeded":
        await link(work, owner)
        command = Share(
            owner=owner.n,
            version=owner.slot,
            sha256=owner.sha256,
            size=owner.size,
            media_type=owner.media_type,
            width=owner.width,
            height=owner.height,
            flags=owner.flags,
        )
    elif owner.phase == "cancelled":
        command = Cancel(operator="follows its owner")
    else:
        command = Fail(reason="owner_failed")
    try:
        await log.record(work, command)
    except (CommandRejected, StreamConflict):
        return
    settled.append(follower.n)
