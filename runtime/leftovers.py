"""What older epochs left open goes to the account where it lies, before anything is bought.

Purchases that may still bring an image, those that are held for a cause that may be gone, how fast the account bought
within the last minute, and how wide its lanes had become.
"""

from collections.abc import Callable, Iterable, Sequence

from ledger.commands import Cancel
from ledger.reader import Reader
from runtime.account import AccountActor
from runtime.history import cancel_wish, held_again, recent_intents
from runtime.ports import Clock
from runtime.trust import Trust
from runtime.work import TaskLog, Work, load_work

_RATE_WINDOW_US = 60_000_000  # no provider of ours counts over longer


async def hand_over(
    actors: Iterable[AccountActor],
    *,
    reader: Reader,
    log: TaskLog,
    clock: Clock,
    trust: Callable[[int], Trust],
    follow: Callable[[Sequence[Work]], None],
) -> None:
    """Give each account what is open there; the router is told of it (``follow``) first."""
    now_us = clock.now_us()
    intents = recent_intents(reader, now_us - _RATE_WINDOW_US)
    lanes = reader.lanes()
    for actor in actors:
        name = actor.account.name
        works = _left_open(actor, reader, trust)
        follow(works)
        ages_s = [(now_us - at_us) / 1e6 for account, at_us in intents if account == name]
        limits = {lane.lane: lane.concurrency for lane in lanes if lane.account == name}
        actor.take_over(works, ages_s, limits)
        await _cancel_again(actor, works, reader, log)


def _left_open(actor: AccountActor, reader: Reader, trust: Callable[[int], Trust]) -> list[Work]:
    name = actor.account.name
    return [
        work
        for each in [*reader.live(name), *held_again(reader, name, actor.foreign, trust)]
        # Of several that are open for one task, one is followed after the other, and what is known before what is not.
        if (work := load_work(reader, each.batch, each.n)).attempt.number == each.attempt
    ]


async def _cancel_again(actor: AccountActor, works: Sequence[Work], reader: Reader, log: TaskLog) -> None:
    """What was under way when its batch was cancelled, and the process died: an accepted job may still be stopped,
    for whether the provider was told, nobody knows (W15); what comes home without an image is bought no more."""
    wishes = {batch: cancel_wish(reader, batch) for batch in {work.batch for work in works}}
    for work in works:
        wish, state = wishes[work.batch], work.state
        if not state.cancel_asked and work.attempt.epoch > wish.epoch:
            continue
        told = state.phase == "accepted" and actor.cancel(work, state.cancel_operator or wish.operator)
        if not told and not state.cancel_asked and state.phase != "held":
            await log.record(work, Cancel(operator=wish.operator))
