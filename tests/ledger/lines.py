"""What the lines of dollars must say, added up from the attempts and not from the books."""

from collections import Counter
from collections.abc import Mapping, Sequence

from bydawn.moneylines import DOLLARS
from ledger.folds import TaskState


def by_attempts(tasks: Sequence[TaskState]) -> dict[str, int]:
    """What the lines must say, from the attempts alone."""
    sums: Counter[str] = Counter()
    for task in tasks:
        for attempt in task.attempts:
            cost, ceiling = attempt.cost_microusd or 0, attempt.ceiling_microusd
            match attempt.phase:
                case "done" | "failed" | "surplus" | "lost":
                    sums["cost_microusd"] += cost
                    sums["images_microusd" if attempt.phase == "done" else f"{attempt.phase}_microusd"] += cost
                    sums["overcharge_microusd"] += max(0, cost - ceiling)
                case "intended" | "accepted" | "ready":
                    sums["reserved_microusd"] += ceiling
                    sums["under_way_microusd"] += ceiling
                case "ambiguous":
                    sums["reserved_microusd"] += ceiling
                    sums["ambiguous_microusd"] += ceiling
                case "unknown":
                    sums["reserved_microusd"] += ceiling
                    sums["decided_microusd" if attempt.decided else "held_microusd"] += ceiling
            if attempt.phase in ("intended", "ambiguous") or attempt.doubtful:
                sums["at_risk_microusd"] += ceiling
            if attempt.adopted_by:
                kept = {"accepted": ceiling, "ready": ceiling, "done": cost}
                sums["adopted_microusd"] += kept.get(attempt.phase, 0)
    return {name: amount for name, amount in sums.items() if amount}


def dollars_of(data: Mapping[str, object]) -> dict[str, object]:
    """The lines among the fields of a command, without zeros and without what only runs beside a doubtful one cost."""
    names = (DOLLARS.keys() | {"images_microusd", "under_way_microusd"}) - {"duplicates_microusd"}
    return {name: data[name] for name in names if data[name]}
