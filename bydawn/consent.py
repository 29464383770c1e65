"""Before the first dollar: what will be bought, from whom, what it should and could cost, and the user's leave."""

import sys
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import click
import msgspec

from bydawn.cli.formats import count, counted, dollars, duration, size
from bydawn.errors import UserError
from bydawn.opening import operator
from ledger.events import SpendAgreed
from runtime.planning import Plan

By: TypeAlias = Literal["prompt", "yes", "budget", "approved", "sandbox"]


def plan_lines(plan: Plan, *, free_bytes: int | None = None) -> Sequence[str]:
    """The plan as people read it."""
    if not plan.tasks:
        return ["nothing is left to buy"]
    lines = []
    shared = plan.tasks - plan.images
    head = f"{counted(plan.tasks, 'task')}, {counted(plan.images, 'image')} to buy"
    lines.append(head + (f" ({count(shared)} share another task's image)" if shared else ""))
    head_cells = ("provider", "images", "a second", "cost", "done in", "alone")
    rows = [
        (
            part.account,
            count(part.images),
            f"{part.per_second:.1f}",
            dollars(part.expected_microusd),
            duration(part.finish_s) if part.images else "-",
            f"{dollars(part.alone_microusd)} in {duration(part.alone_s)}" if part.can_take else "-",
        )
        for part in plan.accounts
    ]
    total = ("all", count(plan.images), "", dollars(plan.expected_microusd), duration(plan.finish_s), "")
    table = [head_cells, *rows, total]
    widths = [max(len(row[n]) for row in table) for n in range(len(head_cells))]
    for row in table:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  " + "  ".join(cells).rstrip())
    lines.append(
        f"cost: at least {dollars(plan.low_microusd)}, expected {dollars(plan.expected_microusd)}, "
        f"never more than {dollars(plan.worst_microusd)} (every attempt charged at its ceiling)"
    )
    disk = f"disk: about {size(plan.disk_bytes)} at most"
    lines.append(disk + (f", {size(free_bytes)} free" if free_bytes is not None else ""))
    for part in plan.accounts:
        lines.append(f"{part.account}: {part.why}")
        lines.extend(f"  cannot take: {problem}" for problem in part.problems)
    lines.extend(plan.notes)
    return lines


def refuse_uncovered(plan: Plan) -> None:
    """Raise when some tasks could be bought nowhere: said before anything is spent."""
    if not plan.uncovered:
        return
    first = plan.uncovered[0]
    price = any("no price" in reason for each in plan.uncovered for reason in each.reasons)
    raise UserError(
        "BD-050" if price else "BD-018",
        f"{counted(sum(each.group.count for each in plan.uncovered), 'task')} can be bought from no chosen provider",
        where=str(first.group),
        why="; ".join(first.reasons),
        fix="choose another --provider, --model or --resolution" + (", or set the price" if price else ""),
    )


def exceeds(agreed: SpendAgreed, left: Plan, spent_microusd: int) -> bool:
    """Whether buying what is left could cost more, in all, than was agreed."""
    return (
        spent_microusd + left.expected_microusd > agreed.expected_microusd
        or spent_microusd + left.worst_microusd > agreed.worst_microusd
    )


def ask_leave(
    plan: Plan,
    images: int,
    *,
    sandbox: bool,
    given: By | None,
    agreed: SpendAgreed | None,
    talk: Callable[[str], None],
) -> SpendAgreed | None:
    """Return the consent to record, None when what was agreed before covers it.

    Raises:
        UserError: off a terminal without consent, or the user said no (exit 2).
    """
    if agreed is not None and images <= agreed.images:
        return None

    def consent(by: By) -> SpendAgreed:
        return SpendAgreed(
            images=images,
            expected_microusd=plan.expected_microusd,
            worst_microusd=plan.worst_microusd,
            by=by,
            operator=operator(),
        )

    if sandbox:
        return consent("sandbox")
    for line in plan_lines(plan):
        talk(line)
    what = f"{counted(images, 'image')} for about {dollars(plan.expected_microusd)}"
    budget = max(1, round(plan.expected_microusd * 1.1 / 1e6))
    return consent(given or _asked(f"Buy {what}?", f"buying {what}", f"--budget {budget} (the most it may ever spend)"))


def given_already(*, yes: bool, budget_microusd: int | None, approved: bool) -> By | None:
    """How consent was given beforehand; None when it has to be asked for.

    Args:
        approved: the plan is held to a saved one.
    """
    if budget_microusd is not None:
        return "budget"
    if approved:
        return "approved"
    return "yes" if yes else None


def ask_leave_again(
    what: str,
    again_microusd: int,
    agreed: SpendAgreed,
    *,
    sandbox: bool,
    given: By | None,
) -> SpendAgreed:
    """Return the consent to buy ``what`` a second time, beside what was agreed.

    Raises:
        UserError: off a terminal without consent, or the user said no (exit 2).
    """
    fix = "--budget USD (the most the batch may ever spend)"
    by = "sandbox" if sandbox else given or _asked(f"Buy again {what}?", f"buying again {what}", fix)
    return msgspec.structs.replace(agreed, by=by, operator=operator(), again_microusd=again_microusd)


def _asked(question: str, what: str, fix: str) -> By:
    if not sys.stdin.isatty():
        raise UserError(
            "BD-072",
            f"{what} needs your consent",
            why="this is not a terminal, so bydawn cannot ask",
            fix=f"{fix}, or --yes",
        )
    if not click.confirm(question, err=True):
        raise UserError("BD-073", "nothing was bought", why="you said no", fix="run the same command again to buy")
    return "prompt"
