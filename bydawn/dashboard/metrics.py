"""The board in the text format of Prometheus (version 0.0.4), so that an alarm can ring in the night.

Names follow its habits: base units (dollars, seconds), no unit where things are counted.
"""

from collections.abc import Iterable, Mapping

from bydawn.cli.formats import MICRO
from bydawn.dashboard.board import Board
from bydawn.moneylines import lines_data
from bydawn.overview import PHASES, Overview

_Labels = Mapping[str, str]
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# What each dollar line of a batch is called here, and what it says.
_DOLLARS = {
    "cost_microusd": ("spent", "Charged so far"),
    "reserved_microusd": ("reserved", "Held back for purchases that are open"),
    "at_risk_microusd": ("at_risk", "May have been paid without our knowing"),
    "duplicates_microusd": ("duplicates", "Paid beside a doubtful purchase"),
}


def metrics(board: Board) -> str:
    """Spell all of them, each with its help and type."""
    text: list[str] = []

    def gauge(name: str, told: str, samples: Iterable[tuple[_Labels, float]]) -> None:
        text.append(f"# HELP bydawn_{name} {told}.\n# TYPE bydawn_{name} gauge\n")
        text.extend(f"bydawn_{name}{_labels(labels)} {value:.15g}\n" for labels, value in samples)

    def each(labels: Mapping[str, float | None]) -> list[tuple[_Labels, float]]:
        return [({"batch": name}, value) for name, value in labels.items() if value is not None]

    gauge("run_going", "1 while a run holds the ledger", [({}, float(board.is_running))])
    gauge(
        "tasks",
        "Tasks of the open batches by state",
        (
            ({"batch": view.name, "state": state}, view.counts.get(state, 0))
            for view in board.batches
            for state in PHASES
        ),
    )
    for field, (name, told) in _DOLLARS.items():
        gauge(
            f"{name}_dollars", told, each({view.name: lines_data(view.lines)[field] / MICRO for view in board.batches})
        )
    gauge("budget_dollars", "The most that the batch may cost", each({v.name: _budget(v) for v in board.batches}))
    gauge("rate_per_second", "Tasks that ended per second, lately", each({v.name: v.rate_per_s for v in board.batches}))
    gauge("eta_seconds", "The time still needed at that rate", each({v.name: v.eta_s for v in board.batches}))
    gauge(
        "account_spent_dollars",
        "Charged by an account over all batches",
        (({"account": each.name, "provider": each.provider}, each.spent / MICRO) for each in board.accounts),
    )
    gauge(
        "account_buys",
        "0 when an account is parked or one of its lanes is shut",
        (({"account": each.name, "provider": each.provider}, float(not each.trouble)) for each in board.accounts),
    )
    return "".join(text)


def _budget(view: Overview) -> float | None:
    return None if view.budget_microusd is None else view.budget_microusd / MICRO


def _labels(labels: _Labels) -> str:
    told = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{told}}}" if told else ""


def _escaped(value: str) -> str:
    """Keep a name from outside within its quotes and its line."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n").replace("\r", " ")
