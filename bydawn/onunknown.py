"""What a run does about purchases in doubt: the policy ``--on-unknown``, and its budget (MON-4)."""

import sys
from collections.abc import Callable
from typing import Literal, TypeAlias

import click

from bydawn import values
from bydawn.cli.formats import counted, dollars
from bydawn.errors import UserError
from ledger.folds import BatchState
from ledger.money import Balance, duplicates_money
from ledger.reader import Reader
from runtime.planning import default_at_risk

Policy: TypeAlias = Literal["hold", "resubmit", "ask"]
POLICIES: tuple[Policy, ...] = ("hold", "resubmit", "ask")


def on_unknown(text: str) -> Policy | None:
    """Read the option; None when it was not given."""
    return values.one_of(text, POLICIES, where="--on-unknown") if text else None


def at_risk_of(state: BatchState) -> int:
    """How much may be in doubt at once: as set, or by what was expected."""
    expected = state.agreed.expected_microusd if state.agreed else 0
    return state.settings.max_at_risk_microusd or default_at_risk(expected)


def default_duplicates(expected_microusd: int) -> int:
    """Return the default of ``--max-duplicate-usd``: 1 % of the expected cost, a dollar at least, in whole cents."""
    return max(1_000_000, expected_microusd // 100 // 10_000 * 10_000)


def allowance(state: BatchState) -> int:
    """Return how much ``--on-unknown resubmit`` may spend in the whole batch: as set, or by what was expected."""
    most = state.settings.max_duplicate_usd_micro
    return default_duplicates(state.agreed.expected_microusd if state.agreed else 0) if most is None else most


def duplicates_allowed(
    state: BatchState, reader: Reader, batch: int, talk: Callable[[str], None], *, given: int | None = None
) -> int | None:
    """Return how much may be spent on buying beside doubtful attempts in this run; None = they are held.

    ``given``: the budget for it as this run was told; one of an earlier run may stand unused beside another policy.

    ``ask`` asks now, about what earlier runs left held; off a terminal it holds, and what this run leaves in doubt is
    asked about by the next one.

    Raises:
        UserError: a budget for duplicates without leave to make any.
    """
    settings = state.settings
    most = settings.max_duplicate_usd_micro
    match settings.on_unknown:
        case "resubmit":
            return allowance(state)
        case "ask":
            return _asked(reader, batch, most, talk)
        case _:
            if given is not None:
                raise UserError(
                    "BD-020",
                    "a budget for duplicates has no use while doubtful tasks are held",
                    where="--max-duplicate-usd",
                    fix="add --on-unknown resubmit (or ask), or leave the budget out",
                )
            return None


def _asked(reader: Reader, batch: int, most: int | None, talk: Callable[[str], None]) -> int | None:
    """Ask about what is held; the answer is what the batch may spend on buying again in all, with what it has spent."""
    held = reader.held(batch)
    if not held:
        return None
    spent = reader.money().get(duplicates_money(batch), Balance()).total
    worst = sum(each.state.attempts[each.attempt - 1].ceiling_microusd for each in held)
    room = worst if most is None else min(worst, most - spent)
    providers = ", ".join(sorted({each.state.attempts[each.attempt - 1].provider for each in held}))
    talk(f"{counted(len(held), 'task')} are held at {providers}: nobody could tell whether they were bought")
    if room <= 0:
        talk("  --max-duplicate-usd is spent, so they stay held: bydawn resolve decides")
        return None
    if not sys.stdin.isatty():
        talk("  this is not a terminal, so they stay held: bydawn resolve decides")
        return None
    return spent + room if click.confirm(f"Buy them again, for at most {dollars(room)}?", err=True) else None
