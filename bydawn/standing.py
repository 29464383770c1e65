"""Asks every account, at the same time, whether its key works.  Costs nothing and records nothing."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import trio

from adapters.base import MalformedReply
from runtime.accounts import Account
from runtime.ports import Wire, WireError

State = Literal["ok", "rejected", "no_credit", "unreadable", "unreachable"]


class Answer(NamedTuple):
    """What one account said.  ``unreadable`` and ``unreachable`` say nothing about the key."""

    account: str
    provider: str
    state: State
    detail: str
    balance_microusd: int | None
    identity: str
    seconds: float


async def standings(accounts: Sequence[Account], make_wire: Callable[[], Wire]) -> list[Answer]:
    """Return the answers in the order of the accounts."""
    wire = make_wire()
    found: dict[str, Answer] = {}

    async def ask(account: Account) -> None:
        found[account.name] = await _ask(account, wire)

    try:
        async with trio.open_nursery() as nursery:
            for account in accounts:
                nursery.start_soon(ask, account)
    finally:
        await wire.aclose()
    return [found[account.name] for account in accounts]


async def _ask(account: Account, wire: Wire) -> Answer:
    started = trio.current_time()
    state: State
    try:
        reply = await wire.send(account.codec.build_check(account.context()))
        standing = account.codec.read_check(reply)
        state, detail = standing.state, standing.detail
        balance, identity = standing.balance_microusd, standing.identity
    except WireError as error:
        state, detail, balance, identity = "unreachable", str(error), None, ""
    except MalformedReply as error:
        state, detail, balance, identity = "unreadable", str(error), None, ""
    took = trio.current_time() - started
    return Answer(account.name, account.provider, state, detail, balance, identity, took)
