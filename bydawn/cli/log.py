"""``bydawn log``: the batches of a ledger, and the runs that worked on them."""

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from bydawn.cli.formats import clip, count, dollar_column, duration, moment, percent
from bydawn.cli.options import json_option, ledger_options
from bydawn.cli.output import bad, doubtful, faint, good, json_line, line, strong, table, talk
from bydawn.moneylines import Lines, lines_data, stored_lines
from bydawn.overview import SETTLED
from bydawn.runs import Run, done_by, runs, took_s
from bydawn.selection import open_batch, open_ledger, readable_ledgers
from ledger.deeds import Deeds

if TYPE_CHECKING:
    from ledger.reader import Reader

SHOWN = 20


@click.command()
@click.argument("batch", metavar="[BATCH]", default="")
@click.option("--limit", type=click.IntRange(min=1), default=SHOWN, show_default=True, help="At most so many runs.")
@json_option
@ledger_options
def log(batch: str, limit: int, as_json: bool, ledger: Path | None, sandbox: bool) -> None:
    """Batches and runs with times, counts and cost; also of runs that were killed.

    \b
      bydawn log
      bydawn log products --limit 100
    """
    if batch:
        with open_batch(ledger, batch, sandbox=sandbox) as (reader, row):
            tell(reader, row.batch, limit=limit, as_json=as_json)
        return
    for path in readable_ledgers(ledger, sandbox=sandbox):
        with open_ledger(path) as reader:
            tell(reader, 0, limit=limit, as_json=as_json)


def tell(reader: "Reader", batch: int, *, limit: int, as_json: bool) -> None:
    """Write the log of one ledger, or of one batch in it (0 = of all)."""
    listed = batches(reader, batch)
    found, more = history(reader, batch, limit=limit)
    names = {row.batch: row.name for row in reader.batches()}
    if as_json:
        for each in listed:
            json_line("batch", ledger=str(reader.path), **each.data())
        for past in found:
            json_line("run", ledger=str(reader.path), **as_data(past, names))
        return
    line(faint(str(reader.path)))
    show_batches(listed)
    line()
    show_runs(found, names)
    if more:
        talk("there are older runs: --limit N")


class Past(NamedTuple):
    """A run and what it did."""

    run: Run
    deeds: Deeds


def history(reader: "Reader", batch: int, *, limit: int) -> tuple[list[Past], bool]:
    """The newest runs, of one batch or of all, and whether there are more.  No others are looked into."""
    found: list[Past] = []
    for run in runs(reader):
        if len(found) == limit and not batch:
            return found, True
        deeds = done_by(reader, run)
        if batch in (0, deeds.batch):
            if len(found) == limit:
                return found, True
            found.append(Past(run, deeds))
    return found, False


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
    rerun_of: str

    def data(self) -> dict[str, object]:
        fields = self._asdict()
        del fields["lines"]
        return {**fields, "ambiguous": self.lines.ambiguous.n, **lines_data(self.lines)}


def batches(reader: "Reader", only: int = 0) -> list[BatchLine]:
    """Every batch (or one) with its counts and cost, newest first."""
    money = reader.money()
    found = []
    rows = reader.batches()
    names = {row.batch: row.name for row in rows}
    for row in reversed(rows):
        if only and row.batch != only:
            continue
        state = reader.batch(row.batch)
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
                folder=state.folder,
                rerun_of=names.get(state.rerun_of, ""),
            )
        )
    return found


def as_data(past: Past, names: dict[int, str]) -> dict[str, object]:
    run, deeds = past
    ended = run.ended
    return {
        "epoch": run.epoch,
        "state": run.state,
        "started_at_us": run.started_at_us,
        "ended_at_us": run.ended_at_us or None,
        "last_event_at_us": run.last_event_us,
        "stopped_by": run.stopped_by,
        "exit_code": ended.exit_code if ended else None,
        "batch": names.get(deeds.batch, ""),
        "succeeded": ended.succeeded if ended else None,
        "failed": ended.failed if ended else None,
        "held": ended.held if ended else None,
        "run_succeeded": deeds.succeeded,
        "run_failed": deeds.failed,
        "run_held": deeds.held,
        "run_cost_microusd": deeds.cost_microusd,
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


def show_runs(found: list[Past], names: dict[int, str]) -> None:
    line(strong("runs"))
    costs = dollar_column(deeds.cost_microusd for _, deeds in found)
    now_us = time.time_ns() // 1000
    table(
        ("run", "started", "took", "ended by", "exit", "batch", "succeeded", "failed", "held", "cost", "command"),
        [
            (
                run.epoch,
                moment(run.started_at_us),
                duration(took_s(run, now_us)),
                run.stopped_by if run.state == "ended" else run.state,
                run.ended.exit_code if run.ended else "-",
                clip(names.get(deeds.batch, "-"), 24),
                count(deeds.succeeded),
                count(deeds.failed),
                count(deeds.held),
                cost,
                clip(run.started.command, 60),
            )
            for (run, deeds), cost in zip(found, costs, strict=True)
        ],
        right=("run", "took", "exit", "succeeded", "failed", "held", "cost"),
        paint={"running": good, "killed": doubtful, "error": bad},
    )
