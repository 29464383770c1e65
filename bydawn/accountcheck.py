"""Asks every account, at the same time, whether its key works.  Costs nothing and records nothing.

A cheap call can tell a wrong key, mostly an empty account, and at providers that list what a key may use a model that
is not enabled.  Where nothing is listed only a purchase tells; it is refused then, without a charge.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import trio

from adapters.base import MalformedReply, Standing
from bydawn.errors import UserError
from runtime.accounts import Account
from runtime.egress import Egress
from runtime.ports import Wire, WireError
from runtime.wire import HttpWire

State = Literal["ok", "rejected", "no_credit", "disabled", "unreadable", "unreachable"]


class Answer(NamedTuple):
    """What one account said.  ``unreadable`` and ``unreachable`` say nothing about the key.

    ``models`` are those that the provider lists for this key, None where it lists none; ``not_listed`` are those of the
    account that are missing there.  ``balance`` is in ``unit``, ``balance_microusd`` the same in dollars.
    """

    account: str
    provider: str
    state: State
    detail: str
    balance: float | None
    unit: str
    balance_microusd: int | None
    models: tuple[str, ...] | None
    not_listed: tuple[str, ...]
    identity: str
    seconds: float


def check_accounts(accounts: Sequence[Account], egress: Egress) -> None:
    """Make the cheap authenticated call to each account; before anything is imported or bought.

    Raises:
        UserError: a key is rejected or an account has no credit (exit 4).  What cannot be reached now does not raise:
            the night waits for it.
    """
    answers = trio.run(standings, accounts, lambda: HttpWire(egress))
    bad = [answer for answer in answers if answer.state in ("rejected", "no_credit")]
    if bad:
        raise UserError(
            "BD-044",
            "; ".join(
                f"{answer.account}: {'the key is rejected' if answer.state == 'rejected' else 'no credit is left'}"
                for answer in bad
            ),
            why="; ".join(answer.detail for answer in bad if answer.detail),
            fix="mend the key or the balance, or leave it out with --provider; bydawn providers check tells more",
            exit_code=4,
        )


async def standings(accounts: Sequence[Account], make_wire: Callable[[], Wire], *, model: str = "") -> list[Answer]:
    """Return the answers in the order of the accounts.  ``model``: ask about this one instead of all of an account."""
    wire = make_wire()
    found: dict[str, Answer] = {}

    async def ask(account: Account) -> None:
        found[account.name] = await _ask(account, wire, model)

    try:
        async with trio.open_nursery() as nursery:
            for account in accounts:
                nursery.start_soon(ask, account)
    finally:
        await wire.aclose()
    return [found[account.name] for account in accounts]


async def _ask(account: Account, wire: Wire, model: str) -> Answer:
    started = trio.current_time()
    state: State
    try:
        reply = await wire.send(account.codec.build_check(account.context()))
        standing = account.codec.read_check(reply)
        state = standing.state
    except WireError as error:
        standing, state = Standing("unreadable", str(error)), "unreachable"
    except MalformedReply as error:
        standing, state = Standing("unreadable", str(error)), "unreadable"
    wanted = _wanted(account, model)
    missing = () if standing.models is None else tuple(name for name in wanted if name not in standing.models)
    if state == "ok" and wanted and missing == wanted:
        state = "disabled"
    return Answer(
        account=account.name,
        provider=account.provider,
        state=state,
        detail=standing.detail,
        balance=standing.balance,
        unit=_unit(account, standing),
        balance_microusd=standing.balance_microusd,
        models=standing.models,
        not_listed=missing,
        identity=standing.identity,
        seconds=trio.current_time() - started,
    )


def _wanted(account: Account, model: str) -> tuple[str, ...]:
    """Name the models that the account is there for, as the record does; what it does not know cannot be listed."""
    record = account.codec.capabilities
    names = (model,) if model else account.models or tuple(known.name for known in record.models.value)
    return tuple(known.name for name in names if (known := record.model(name)) is not None)


def _unit(account: Account, standing: Standing) -> str:
    told = account.codec.capabilities.balance
    if standing.balance is not None and told is not None:
        return told.value
    return "usd" if standing.balance_microusd is not None else ""
