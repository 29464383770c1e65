"""``bydawn log``: the batches of a ledger, and the runs that worked on them."""

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from bydawn.cli.formats import clip, count, dollar_column, duration, moment, percent
from bydawn.cli.options import json_option, ledger_options
from bydawn.cli.output import bad, doubtful, faint, good, json_line, line, strong, table, talk
from bydawn.lines import Lines, lines_data, stored_lines
from bydawn.overview import SETTLED
from bydawn.runs import Run, runs
from bydawn.selection import open_ledger, readable_ledgers

if TYPE_CHECKING:
    from ledger.reader import Reader

SHOWN = 20


@click.command()
@click.option("--limit", type=click.IntRange(min=1), default=SHOWN, show_default=True, help="At most so many runs.")
@json_option
@ledger_options
def log(limit: int, as_json: bool, ledger: Path | None, sandbox: bool) -> None:
    """Batches and runs with times, counts and cost."""
    for path in readable_ledgers(ledger, sandbox=sandbox):
        with open_ledger(path) as reader:
            found = runs(reader)
            names = {row.batch: row.name for row in reader.batches()}
            if as_json:
                for batch in batches(reader):
                    json_line("batch", ledger=str(path), **batch.data())
                for run in found[:limit]:
                    json_line("run", ledger=str(path), **as_data(run, names))
                continue
            line(faint(str(path)))
            show_batches(batches(reader))
            line()
            show_runs(found[:limit], names)
            if len(found) > limit:
                talk(f"{count(len(found) - limit)} older runs: --limit N")


class BatchLine(NamedTuple):
    """A batch as the log lists it."""

    batch: str
    sandbox: bool
    opened_at_us: int
    tasks: int
    settled: int
    succeeded: int
    failed: int
    held: int
    cancelled: int
    lines: Lines
    folder: str

    def data(self) -> dict[str, object]:
        fields = self._asdict()
        del fields["lines"]
        return {**fields, "ambiguous": self.lines.ambiguous.n, **lines_data(self.lines)}


def batches(reader: "Reader") -> list[BatchLine]:
    """Every batch with its counts and cost, newest first."""
    money = reader.money()
    found = []
    for row in reversed(reader.batches()):
        counts: Counter[str] = Counter()
        for entry in reader.counts(row.batch):
            counts[entry.state] += entry.n
        found.append(
            BatchLine(
                batch=row.name,
                sandbox=row.sandbox,
                opened_at_us=row.opened_at_us,
                tasks=counts.total(),
                settled=sum(counts[state] for state in SETTLED),
                succeeded=counts["succeeded"],
                failed=counts["failed"],
                held=counts["held"],
                cancelled=counts["cancelled"],
                lines=stored_lines(money, row.batch),
                folder=reader.batch(row.batch).folder,
            )
        )
    return found


def as_data(run: Run, names: dict[int, str]) -> dict[str, object]:
    ended = run.ended
    return {
        "epoch": run.epoch,
        "state": run.state,
        "started_at_us": run.started_at_us,
        "ended_at_us": run.ended_at_us or None,
        "stopped_by": run.stopped_by,
        "exit_code": ended.exit_code if ended else None,
        "batch": names.get(ended.batch, "") if ended else "",
        "succeeded": ended.succeeded if ended else None,
        "failed": ended.failed if ended else None,
        "held": ended.held if ended else None,
        "run_cost_microusd": ended.run_cost_microusd if ended else None,
        "command": run.started.command,
        "operator": run.started.operator,
        "app_version": run.started.app_version,
    }


def show_batches(found: list[BatchLine]) -> None:
    if not found:
        line("  no batches yet")
        return
    costs = dollar_column(row.lines.spent for row in found)
    apart = {
        "at risk": [row.lines.at_risk.microusd for row in found],
        "adopted": [row.lines.adopted.microusd for row in found],
        "surplus": [row.lines.surplus.microusd for row in found],
        "lost": [row.lines.lost.microusd for row in found],
        "bought twice": [row.lines.duplicates.microusd for row in found],
    }
    apart = {name: amounts for name, amounts in apart.items() if any(amounts)}
    columns = [dollar_column(amounts) for amounts in apart.values()]
    table(
        ("batch", "opened", "tasks", "settled", "succeeded", "failed", "held", "cost", *apart, "folder"),
        [
            (
                clip(row.batch, 32) + (" (sandbox)" if row.sandbox else ""),
                moment(row.opened_at_us),
                count(row.tasks),
                percent(row.settled, row.tasks),
                count(row.succeeded),
                count(row.failed),
                count(row.held),
                cost,
                *cells,
                row.folder,
            )
            for row, cost, *cells in zip(found, costs, *columns, strict=True)
        ],
        right=("tasks", "settled", "succeeded", "failed", "held", "cost", *apart),
    )


def show_runs(found: list[Run], names: dict[int, str]) -> None:
    line(strong("runs"))
    costs = dollar_column(run.ended.run_cost_microusd if run.ended else 0 for run in found)
    table(
        ("run", "started", "took", "ended by", "exit", "succeeded", "failed", "held", "cost", "command"),
        [
            (
                run.epoch,
                moment(run.started_at_us),
                _took(run),
                run.stopped_by if run.state == "ended" else run.state,
                run.ended.exit_code if run.ended else "-",
                count(run.ended.succeeded) if run.ended else "-",
                count(run.ended.failed) if run.ended else "-",
                count(run.ended.held) if run.ended else "-",
                cost if run.ended else "-",
                clip(run.started.command, 60),
            )
            for run, cost in zip(found, costs, strict=True)
        ],
        right=("run", "took", "exit", "succeeded", "failed", "held", "cost"),
        paint={"running": good, "killed": doubtful, "error": bad},
    )


def _took(run: Run) -> str:
    if run.state == "killed":
        return "-"
    end_us = run.ended_at_us or time.time_ns() // 1000
    return duration(max(0, end_us - run.started_at_us) / 1e6)
