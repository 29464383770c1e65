"""Followers: tasks that share the purchase of an identical one settle when their owner has settled."""

from functools import partial

import trio

from ledger.commands import Cancel, Fail, Share, TaskCommand
from ledger.errors import CommandRejected
from ledger.reader import Follower, Reader
from runtime.work import StreamConflict, TaskLog, load_work

_TOGETHER = 200


async def settle_followers(batch: int, reader: Reader, log: TaskLog) -> int:
    """Settle every follower whose owner has settled; return how many."""
    total = 0
    while page := reader.followers(batch, limit=_TOGETHER):
        settled: list[int] = []
        async with trio.open_nursery() as nursery:
            for follower in page:
                nursery.start_soon(partial(_settle, batch, follower, reader, log, settled))
        total += len(settled)
        if not settled:  # an operator was faster with each of them
            break
    return total


async def _settle(batch: int, follower: Follower, reader: Reader, log: TaskLog, settled: list[int]) -> None:
    owner = follower.owner
    command: TaskCommand
    if owner.phase == "succeeded":
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
        await log.record(load_work(reader, batch, follower.n), command)
    except (CommandRejected, StreamConflict):
        return
    settled.append(follower.n)
