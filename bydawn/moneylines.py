"""Every dollar of a batch on a line of its own, never merged with another one (MON-10).

The figures come from the books that the ledger keeps (:mod:`ledger.money`), so they cost nothing at a million tasks.
``status``, the summary of a run, ``log``, ``replay`` and ``show`` (for the books of one task) tell the same lines:

    spent    = images + failed + surplus + lost
    reserved = under way + ambiguous + held + decided

At risk, adopted, bought twice and overcharge look at the same dollars from another side.
"""

from collections.abc import Callable
from typing import NamedTuple

from bydawn.cli.formats import common_places, count, dollar_column, dollars
from ledger.money import (
    Balance,
    adopted_money,
    ambiguous_money,
    batch_money,
    decided_money,
    duplicates_money,
    failed_money,
    held_money,
    lost_money,
    overcharge_money,
    risk_money,
    surplus_money,
)


class Line(NamedTuple):
    """So many purchases, and their dollars."""

    n: int = 0
    microusd: int = 0


class Lines(NamedTuple):
    """What a batch (or one task) has spent and still holds."""

    spent: int
    reserved: int
    at_risk: Line
    ambiguous: Line
    held: Line
    decided: Line
    adopted: Line
    failed: Line
    surplus: Line
    lost: Line
    duplicates: Line
    duplicates_open: int
    overcharge: Line

    @property
    def images(self) -> int:
        """Spent on images that are kept."""
        return self.spent - self.failed.microusd - self.surplus.microusd - self.lost.microusd

    @property
    def under_way(self) -> int:
        """Reserved for purchases that are open and not in doubt."""
        return self.reserved - self.ambiguous.microusd - self.held.microusd - self.decided.microusd


def lines_of(book: Callable[[str], Balance], batch: int) -> Lines:
    """Read the lines of a batch; ``book`` gives a balance by its name."""

    def line(name: Callable[[int], str]) -> Line:
        balance = book(name(batch))
        return Line(balance.open, balance.total)

    whole, twice = book(batch_money(batch)), book(duplicates_money(batch))
    return Lines(
        spent=whole.captured,
        reserved=whole.reserved,
        at_risk=line(risk_money),
        ambiguous=line(ambiguous_money),
        held=line(held_money),
        decided=line(decided_money),
        adopted=line(adopted_money),
        failed=line(failed_money),
        surplus=line(surplus_money),
        lost=line(lost_money),
        duplicates=Line(twice.open, twice.captured),
        duplicates_open=twice.reserved,
        overcharge=line(overcharge_money),
    )


def stored_lines(money: dict[str, Balance], batch: int) -> Lines:
    """The lines of a batch from the balances that a reader gives."""
    return lines_of(lambda name: money.get(name, Balance()), batch)


# --- for scripts ------------------------------------------------------------------------------------------


def lines_data(lines: Lines) -> dict[str, int]:
    """The lines as fields: a count by its name where tasks have no state of that name, dollars as ``*_microusd``."""
    return {
        "cost_microusd": lines.spent,
        "images_microusd": lines.images,
        "failed_microusd": lines.failed.microusd,
        "surplus": lines.surplus.n,
        "surplus_microusd": lines.surplus.microusd,
        "lost": lines.lost.n,
        "lost_microusd": lines.lost.microusd,
        "reserved_microusd": lines.reserved,
        "under_way_microusd": lines.under_way,
        "ambiguous_microusd": lines.ambiguous.microusd,
        "held_microusd": lines.held.microusd,
        "decided": lines.decided.n,
        "decided_microusd": lines.decided.microusd,
        "at_risk": lines.at_risk.n,
        "at_risk_microusd": lines.at_risk.microusd,
        "adopted": lines.adopted.n,
        "adopted_microusd": lines.adopted.microusd,
        "duplicates_paid": lines.duplicates.n,
        "duplicates_microusd": lines.duplicates.microusd,
        "overcharges": lines.overcharge.n,
        "overcharge_microusd": lines.overcharge.microusd,
    }


# --- for people -------------------------------------------------------------------------------------------

DOLLARS = {
    "cost_microusd": "spent",
    "reserved_microusd": "reserved",
    "at_risk_microusd": "at risk",
    "ambiguous_microusd": "ambiguous",
    "held_microusd": "held",
    "decided_microusd": "decided",
    "adopted_microusd": "adopted",
    "failed_microusd": "failed",
    "surplus_microusd": "surplus",
    "lost_microusd": "lost",
    "duplicates_microusd": "bought twice",
    "overcharge_microusd": "overcharge",
}
"""What people call the fields of :func:`lines_data`."""

_MEANING = {
    "at risk": "may have been paid without our knowing",
    "ambiguous": "being looked up",
    "held": "nothing could tell; you decide",
    "decided": "as held, and decided; may have been paid",
    "adopted": "found again, and not bought again",
    "failed": "charged although the job failed",
    "surplus": "paid and not needed, kept as spare",
    "lost": "paid, and the result is gone",
    "bought twice": "beside a doubtful purchase",
    "overcharge": "above the ceilings",
}


def told_money(lines: Lines, budget_microusd: int | None = None) -> list[tuple[str, str]]:
    """What was spent and is reserved, and the lines: (name, text), all dollars in one column; no text = nothing."""
    spent, reserved, *_ = _column(lines)
    of = "" if budget_microusd is None else f" of {dollars(budget_microusd)}"
    return [("spent", spent + of), ("reserved", reserved if lines.reserved else ""), *told_lines(lines)]


def told_lines(lines: Lines) -> list[tuple[str, str]]:
    """The lines that are not zero: (name, count and dollars and what it means), the values in columns."""
    shown = _shown(lines)
    digits = max((len(count(line.n)) for line in shown.values()), default=0)
    return [
        (name, f"{amount}  {count(line.n):>{digits}}  {_MEANING[name]}")
        for (name, line), amount in zip(shown.items(), _column(lines)[2:], strict=True)
    ]


def places_of(lines: Lines) -> int:
    """With how many places the dollars of a batch are told, wherever several of them stand in one output."""
    return common_places(_amounts(lines))


def _column(lines: Lines) -> list[str]:
    told = dollar_column(_amounts(lines))
    space = max(map(len, told))
    return [f"{amount:>{space}}" for amount in told]


def _amounts(lines: Lines) -> list[int]:
    """Spent, reserved, and the lines that are not zero."""
    return [lines.spent, lines.reserved, *(line.microusd for line in _shown(lines).values())]


def _shown(lines: Lines) -> dict[str, Line]:
    """The lines that are not zero, by name."""
    twice = Line(lines.duplicates.n, lines.duplicates.microusd + lines.duplicates_open)
    named = {
        "at risk": lines.at_risk,
        "ambiguous": lines.ambiguous,
        "held": lines.held,
        "decided": lines.decided,
        "adopted": lines.adopted,
        "failed": lines.failed,
        "surplus": lines.surplus,
        "lost": lines.lost,
        "bought twice": twice,
        "overcharge": lines.overcharge,
    }
    return {name: line for name, line in named.items() if any(line)}
