"""A plan that one person saves and another run is held to: ``plan --save FILE``, ``run --approved FILE``."""

from collections.abc import Collection
from pathlib import Path

import msgspec

from bydawn.cli.formats import dollars
from bydawn.errors import UserError
from bydawn.outfile import write_out
from runtime.planning import Plan
from runtime.ports import DiskFailed, DiskFull


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was approved: this input (with the options that shape its tasks), these prices, at most this cost."""

    bydawn_plan: int
    input_digest: str
    tasks: int
    prices: dict[str, dict[str, int]]  # account -> shape of the tasks -> micro-dollars
    expected_microusd: int
    worst_microusd: int


def approval(plan: Plan, input_digest: str) -> Approval:
    return Approval(
        bydawn_plan=1,
        input_digest=input_digest,
        tasks=plan.tasks,
        prices={part.account: {shape: price.microusd for shape, price in part.prices} for part in plan.accounts},
        expected_microusd=plan.expected_microusd,
        worst_microusd=plan.worst_microusd,
    )


def save(path: Path, approved: Approval) -> None:
    """Write the plan for review.  Raises UserError when the file cannot be written."""
    try:
        write_out(path, [msgspec.json.format(msgspec.json.encode(approved)) + b"\n"])
    except (DiskFull, DiskFailed) as exc:
        raise UserError("BD-076", "the plan cannot be saved", where=str(path), why=str(exc)) from exc


def load(path: Path) -> Approval:
    """Read a saved plan.  Raises UserError when it is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Approval)
    except (OSError, msgspec.MsgspecError, RecursionError) as exc:
        raise UserError(
            "BD-076",
            "the approved plan cannot be read",
            where=str(path),
            why=str(exc),
            fix="bydawn plan INPUT --save FILE",
        ) from exc


def quoted_in(plan: Plan) -> frozenset[tuple[str, str]]:
    """Name the prices of a plan, by account and shape, that the providers quoted themselves."""
    return frozenset((part.account, shape) for part in plan.accounts for shape, price in part.prices if price.quoted)


def require_same(
    approved: Approval,
    now: Approval,
    *,
    tolerance_percent: float,
    where: Path,
    quoted: Collection[tuple[str, str]] = (),
) -> None:
    """Raise unless the run is the one that was approved: the same input, providers and prices, within a tolerance.

    Args:
        quoted: prices that the providers told just now, by account and shape.  They may be lower than approved: that
            is what will be charged, and not a mistake in somebody's settings.

    Raises:
        UserError: what differs, each in a clause (exit 2).
    """
    differs = []
    if now.input_digest != approved.input_digest:
        differs.append("the input, or an option that shapes its tasks, is another one")
    if set(now.prices) != set(approved.prices):
        differs.append(f"the accounts are {', '.join(sorted(now.prices))}, not {', '.join(sorted(approved.prices))}")
    most = approved.worst_microusd * (1 + tolerance_percent / 100)
    if now.worst_microusd > most:
        differs.append(f"the worst cost is {dollars(now.worst_microusd)}, not {dollars(approved.worst_microusd)}")
    for account, prices in now.prices.items():
        for shape, price in prices.items():
            agreed = approved.prices.get(account, {}).get(shape)
            told = (account, shape) in quoted
            off = price - agreed if agreed is not None else 0
            if agreed is not None and (off if told else abs(off)) > agreed * tolerance_percent / 100:
                verb = "is quoted at" if told else "costs"
                differs.append(f"{account} {shape} {verb} {dollars(price)}, not {dollars(agreed)}")
    if differs:
        raise UserError(
            "BD-077",
            "this is not the plan that was approved",
            where=str(where),
            why="; ".join(differs),
            fix=f"have the new plan approved: bydawn plan INPUT --save FILE{' --quotes' if quoted else ''}",
        )
