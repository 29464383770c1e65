"""The books: which money accounts an attempt weighs on, and how an event moves them.

Everything follows from one function, :func:`_weight`: what an attempt in a given phase holds.  An event moves
each account by the difference between what its attempt holds after and before it.  So books and attempts cannot
drift apart, no order of events makes a balance negative, and the audit can add the claims up again.

* ``reserved``: the ceiling, from the intent until the charge is known or disproved.
* ``captured``: what was truly charged, also above the ceiling (``overcharge``, MON-8).
* ``open``: how many.  In a lane: submits of this epoch that nobody has answered yet (MON-3).  On the risk line:
  attempts that may have been bought without our knowing.

Beside these, what a person must see apart from the rest has a book of its own in each batch (MON-10).  Six of them
part the batch's two sums, for an attempt is in one phase only:

    captured = images that are kept + failed + surplus + lost
    reserved = under way + ambiguous + held + decided

and three look at the same dollars from another side: ``adopted``, ``overcharge`` and ``duplicates``.

A lane counts only attempts sent in the current epoch: a new epoch starts with empty lanes, and judging what an
older one left behind never moves them.
"""

from collections.abc import Callable, Iterator
from datetime import date
from functools import lru_cache
from typing import NamedTuple, TypeAlias, assert_never

from ledger.folds import EMPTY_TASK, AttemptState, TaskState

_DAY_US = 86_400_000_000
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_GOOD_PATH = frozenset({"intended", "accepted", "ready", "done", "not_sent", "rejected", "absent"})

_Line: TypeAlias = Callable[[int], str]  # the name of a book, by its batch


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


def failed_money(batch: int) -> str:
    """Charged although the job failed; also part of the batch's cost."""
    return f"failed/{batch}"


def ambiguous_money(batch: int) -> str:
    """In doubt, and being looked up; also part of what is reserved and at risk."""
    return f"ambiguous/{batch}"


def held_money(batch: int) -> str:
    """Nothing could tell whether it was bought, and nobody has decided; also part of what is reserved and at risk."""
    return f"held/{batch}"


def decided_money(batch: int) -> str:
    """As held, and decided about: given up, or bought again beside it.  It may have been paid, so it stays reserved."""
    return f"decided/{batch}"


def adopted_money(batch: int) -> str:
    """Found at the provider after it had been in doubt, and kept in place of another purchase."""
    return f"adopted/{batch}"


def overcharge_money(batch: int) -> str:
    """What was charged above the ceilings (MON-8); also part of the batch's cost."""
    return f"overcharge/{batch}"


SINCE_VIEWS_2 = ("failed/", "ambiguous/", "held/", "decided/", "adopted/", "overcharge/")
"""Books that views of version 1 do not have."""

LANE_PREFIX = "lane/"


def moves(before: TaskState, after: TaskState, *, batch: int, epoch: int) -> list[Move]:
    """Return how the books move when an event of ``epoch`` takes a task from ``before`` to ``after``.

    An event changes one attempt at most, and then every money account is named at most once.
    """
    old, new = before.attempts, after.attempts
    found: list[Move] = []
    if old is new:
        return found
    known = len(old)
    for index, attempt in enumerate(new):
        was = old[index] if index < known else None
        if was is not attempt:
            _add_moves(found, was, attempt, batch, epoch)
    return found


def _add_moves(found: list[Move], was: AttemptState | None, attempt: AttemptState, batch: int, epoch: int) -> None:
    # Numbers first, names last: most events move one or two accounts, and naming them all cost more than the rest.
    reserved, captured, risk, lane = _weight(attempt, epoch)
    counted = int(captured > 0)
    if was is not None:
        was_reserved, was_captured, was_risk, was_lane = _weight(was, epoch)
        reserved -= was_reserved
        captured -= was_captured
        risk -= was_risk
        lane -= was_lane
        counted -= int(was_captured > 0)
    if reserved or captured:
        found.append(Move(batch_money(batch), reserved, captured, 0))
        found.append(Move(account_money(attempt.account), reserved, captured, 0))
        found.append(Move(day_money(attempt.account, attempt.intended_at_us), reserved, captured, 0))
        if attempt.permission:
            found.append(Move(duplicates_money(batch), reserved, captured, counted))
    if risk:
        found.append(Move(risk_money(batch), risk * attempt.ceiling_microusd, 0, risk))
    if lane:
        found.append(Move(lane_money(attempt.account, attempt.lane), lane * attempt.ceiling_microusd, 0, lane))
    if _stands_apart(attempt) or (was is not None and _stands_apart(was)):
        _add_lines(found, was, attempt, batch)


def _stands_apart(attempt: AttemptState) -> bool:
    """Whether it may be on a line of its own; nearly none is."""
    if attempt.phase not in _GOOD_PATH or attempt.adopted_by:
        return True
    return attempt.phase == "done" and (attempt.cost_microusd or 0) > attempt.ceiling_microusd


def _add_lines(found: list[Move], was: AttemptState | None, attempt: AttemptState, batch: int) -> None:
    sums: dict[_Line, list[int]] = {}
    for sign, state in ((1, attempt), (-1, was)):
        for line, reserved, captured in _lines(state) if state is not None else ():
            held = sums.setdefault(line, [0, 0, 0])
            held[0] += sign * reserved
            held[1] += sign * captured
            held[2] += sign
    found += (Move(line(batch), *held) for line, held in sums.items() if any(held))


def holdings(state: TaskState, *, batch: int, epoch: int) -> list[Move]:
    """What the task weighs on the books now, as moves from nothing; ``epoch`` is the current one."""
    sums: dict[str, Move] = {}
    for move in moves(EMPTY_TASK, state, batch=batch, epoch=epoch):
        name, reserved, captured, number = move
        was = sums.get(name, Move(name, 0, 0, 0))
        sums[name] = Move(name, was.reserved + reserved, was.captured + captured, was.open + number)
    return list(sums.values())


def utc_day(at_us: int) -> str:
    """The UTC date as ``2026-11-22``."""
    return _day(at_us // _DAY_US)


@lru_cache(maxsize=64)
def _day(days: int) -> str:
    return date.fromordinal(_EPOCH_ORDINAL + days).isoformat()


def _lines(attempt: AttemptState) -> Iterator[tuple[_Line, int, int]]:
    """The lines that an attempt stands on beside the batch's, as one on each: (whose, reserved, captured)."""
    phase, ceiling, cost = attempt.phase, attempt.ceiling_microusd, attempt.cost_microusd or 0
    if phase == "ambiguous":
        yield ambiguous_money, ceiling, 0
    elif phase == "unknown":
        yield decided_money if attempt.decided else held_money, ceiling, 0
    elif phase == "surplus":
        yield surplus_money, 0, cost
    elif phase == "lost":
        yield lost_money, 0, cost
    elif phase == "failed" and cost:
        yield failed_money, 0, cost
    if attempt.adopted_by and phase in ("accepted", "ready"):
        yield adopted_money, ceiling, 0
    elif attempt.adopted_by and phase == "done":
        yield adopted_money, 0, cost
    if phase in ("done", "failed", "surplus", "lost") and cost > ceiling:
        yield overcharge_money, 0, cost - ceiling


def _weight(attempt: AttemptState, epoch: int) -> tuple[int, int, int, int]:
    """What one attempt holds: (reserved, captured, at risk, open in its lane), the last two 0 or 1.

    The one place that says what a phase means in money.
    """
    match attempt.phase:
        case "intended" | "ambiguous":
            return attempt.ceiling_microusd, 0, 1, int(attempt.epoch == epoch)
        case "accepted" | "ready":
            return attempt.ceiling_microusd, 0, 0, 0
        case "done" | "failed" | "surplus" | "lost":
            return 0, attempt.cost_microusd or 0, 0, 0
        case "unknown":
            return attempt.ceiling_microusd, 0, int(not attempt.decided), 0
        case "not_sent" | "rejected" | "absent":
            return 0, 0, 0, 0
        case _:
            assert_never(attempt.phase)
