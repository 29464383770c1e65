"""The books: which money accounts an attempt weighs on, and how an event moves them.

Everything follows from one function, :func:`_claims`: what an attempt in a given phase holds.  An event moves
each account by the difference between what its attempt holds after and before it.  So books and attempts cannot
drift apart, no order of events makes a balance negative, and the audit can add the claims up again.

* ``reserved``: the ceiling, from the intent until the charge is known or disproved.
* ``captured``: what was truly charged, also above the ceiling (``overcharge``, MON-8).
* ``open``: how many.  In a lane: submits of this epoch that nobody has answered yet (MON-3).  On the risk line:
  attempts that may have been bought without our knowing.

A lane counts only attempts sent in the current epoch: a new epoch starts with empty lanes, and judging what an
older one left behind never moves them.
"""

from datetime import date
from functools import lru_cache
from typing import NamedTuple, assert_never

from ledger.folds import EMPTY_TASK, AttemptState, TaskState

_DAY_US = 86_400_000_000
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class Move(NamedTuple):
    """A change of one money account."""

    account: str
    reserved: int
    captured: int
    open: int


class Balance(NamedTuple):
    """What one money account holds.  ``open`` counts what the account's kind counts, see the module."""

    reserved: int = 0
    captured: int = 0
    open: int = 0

    @property
    def total(self) -> int:
        """Spent, or possibly so: what a cap is compared with."""
        return self.reserved + self.captured


def batch_money(batch: int) -> str:
    return f"batch/{batch}"


def account_money(name: str) -> str:
    return f"account/{name}"


def day_money(name: str, at_us: int) -> str:
    """The account's UTC day; an attempt weighs on the day of its intent, whenever it ends."""
    return f"day/{name}/{utc_day(at_us)}"


def lane_money(account: str, lane: str) -> str:
    return f"lane/{account}/{lane}"


def risk_money(batch: int) -> str:
    return f"risk/{batch}"


def duplicates_money(batch: int) -> str:
    """Purchases made beside a doubtful one (MON-4); ``open`` counts those that were charged."""
    return f"duplicates/{batch}"


def lost_money(batch: int) -> str:
    """Paid, and the result is gone; also part of the batch's cost (MON-10)."""
    return f"lost/{batch}"


def surplus_money(batch: int) -> str:
    """Paid and not needed, kept as spare; also part of the batch's cost (MON-10)."""
    return f"surplus/{batch}"


LANE_PREFIX = "lane/"


def moves(before: TaskState, after: TaskState, *, batch: int, epoch: int) -> tuple[Move, ...]:
    """Return how the books move when an event of ``epoch`` takes a task from ``before`` to ``after``.

    Only accounts that change are named, each once.
    """
    old, new = before.attempts, after.attempts
    if old is new:
        return ()
    sums: dict[str, list[int]] = {}
    for index, attempt in enumerate(new):
        was = old[index] if index < len(old) else None
        if was is attempt:
            continue
        for claim in _claims(attempt, batch, epoch):
            total = sums.setdefault(claim.account, [0, 0, 0])
            total[0] += claim.reserved
            total[1] += claim.captured
            total[2] += claim.open
        for claim in () if was is None else _claims(was, batch, epoch):
            total = sums.setdefault(claim.account, [0, 0, 0])
            total[0] -= claim.reserved
            total[1] -= claim.captured
            total[2] -= claim.open
    return tuple(Move(name, r, c, n) for name, (r, c, n) in sums.items() if r or c or n)


def holdings(state: TaskState, *, batch: int, epoch: int) -> tuple[Move, ...]:
    """What the task weighs on the books now, as moves from nothing; ``epoch`` is the current one."""
    return moves(EMPTY_TASK, state, batch=batch, epoch=epoch)


def utc_day(at_us: int) -> str:
    """The UTC date as ``2026-11-22``."""
    return _day(at_us // _DAY_US)


@lru_cache(maxsize=64)
def _day(days: int) -> str:
    return date.fromordinal(_EPOCH_ORDINAL + days).isoformat()


def _claims(attempt: AttemptState, batch: int, epoch: int) -> list[Move]:
    """What one attempt holds.  The one place that says what a phase means in money."""
    ceiling = attempt.ceiling_microusd
    match attempt.phase:
        case "not_sent" | "rejected" | "absent":
            return []
        case "done" | "failed":
            return _lines(attempt, batch, 0, attempt.cost_microusd or 0)
        case "surplus" | "lost":
            cost = attempt.cost_microusd or 0
            apart = surplus_money(batch) if attempt.phase == "surplus" else lost_money(batch)
            return [*_lines(attempt, batch, 0, cost), Move(apart, 0, cost, 1)]
        case "accepted" | "ready":
            return _lines(attempt, batch, ceiling, 0)
        case "unknown":
            held = _lines(attempt, batch, ceiling, 0)
            if not attempt.decided:
                held.append(Move(risk_money(batch), ceiling, 0, 1))
            return held
        case "intended" | "ambiguous":
            held = _lines(attempt, batch, ceiling, 0)
            held.append(Move(risk_money(batch), ceiling, 0, 1))
            if attempt.epoch == epoch:
                held.append(Move(lane_money(attempt.account, attempt.lane), ceiling, 0, 1))
            return held
        case _:
            assert_never(attempt.phase)


def _lines(attempt: AttemptState, batch: int, reserved: int, captured: int) -> list[Move]:
    lines = [
        Move(batch_money(batch), reserved, captured, 0),
        Move(account_money(attempt.account), reserved, captured, 0),
        Move(day_money(attempt.account, attempt.intended_at_us), reserved, captured, 0),
    ]
    if attempt.permission:
        lines.append(Move(duplicates_money(batch), reserved, captured, int(captured > 0)))
    return lines
