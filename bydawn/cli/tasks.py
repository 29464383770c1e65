"""``bydawn tasks``: list the tasks of a batch, for a person or as a stream for a script."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bydawn.cli.formats import clip, count, dollar_column, moment
from bydawn.cli.options import json_option, ledger_options
from bydawn.cli.output import json_line, state_paint, table, talk
from bydawn.selection import open_batch
from ledger.folds import TaskPhase

if TYPE_CHECKING:
    from ledger.reader import Reader
    from ledger.tasklist import TaskRow

PAGE = 500
SHOWN = 50
GROUPS: dict[str, tuple[TaskPhase, ...]] = {
    "open": ("queued", "intended", "ambiguous", "accepted", "ready"),
    "in-flight": ("intended", "ambiguous", "accepted", "ready"),
    "settled": ("succeeded", "failed", "held", "cancelled"),
}
PHASES: dict[str, TaskPhase] = {phase: phase for phase in (*GROUPS["open"], *GROUPS["settled"])}
FIELDS = (
    *("id", "state", "provider", "account", "attempts", "cost_microusd", "reason", "flags", "model", "aspect"),
    *("resolution", "variant", "line", "group", "result_version", "sha256", "media_type", "width", "height", "size"),
    *("shared_with", "at_us"),
)


@click.command()
@click.argument("batch", default="")
@click.option(
    "--state", "states", multiple=True, type=click.Choice((*PHASES, *GROUPS)), help="Only these; may be repeated."
)
@click.option("--provider", default="", help="Only those last bought from this provider.")
@click.option("--flag", default="", help="Only results with this flag (blank, aspect, small, same-as-reference).")
@click.option(
    "--limit", type=click.IntRange(min=1), help=f"At most so many; a table shows {SHOWN} unless told, a stream all."
)
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a header; formulas are neutralised.")
@ledger_options
def tasks(
    batch: str,
    states: tuple[str, ...],
    provider: str,
    flag: str,
    limit: int | None,
    as_json: bool,
    as_csv: bool,
    ledger: Path | None,
    sandbox: bool,
) -> None:
    """List tasks by state, provider or flag."""
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    wanted = tuple(dict.fromkeys(phase for name in states for phase in GROUPS.get(name) or (PHASES[name],)))
    with open_batch(ledger, batch, sandbox=sandbox) as (reader, chosen):
        if as_json or as_csv:
            rows = pages(reader, chosen.batch, limit=limit, states=wanted, provider=provider, flag=flag)
            stream_json(rows) if as_json else stream_csv(rows)
            return
        shown = limit or SHOWN
        found = list(pages(reader, chosen.batch, limit=shown + 1, states=wanted, provider=provider, flag=flag))
        show_table(found[:shown])
        if len(found) > shown:
            talk(f"more than {count(shown)}: --limit N, or --json or --csv for all of {chosen.name}")
        elif not found:
            talk(f"no such tasks in {chosen.name}")


def pages(
    reader: "Reader", batch: int, *, limit: int | None, states: tuple[TaskPhase, ...], provider: str, flag: str
) -> Iterator["TaskRow"]:
    """Yield the matching rows in input order, holding one page at a time."""
    after, left = 0, limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        page = reader.tasks(batch, after=after, limit=size, states=states, provider=provider, flag=flag)
        yield from page
        if len(page) < size:
            return
        after = page[-1].n
        left = None if left is None else left - len(page)


def fields(row: "TaskRow") -> dict[str, object]:
    """What scripts get of a task, in the order of :data:`FIELDS`."""
    return {name: row.phase if name == "state" else getattr(row, name) for name in FIELDS}


def stream_json(rows: Iterator["TaskRow"]) -> None:
    for row in rows:
        json_line("task", **fields(row))


def stream_csv(rows: Iterator["TaskRow"]) -> None:
    from runtime.outputs import csv_writer

    write = csv_writer(sys.stdout, end="\n")
    sys.stdout.write(",".join(FIELDS) + "\n")  # our own words need no quotes
    for row in rows:
        write(fields(row).values())


def show_table(rows: list["TaskRow"]) -> None:
    costs = dollar_column(row.cost_microusd for row in rows)
    table(
        ("task", "state", "provider", "attempts", "cost", "reason", "changed"),
        [
            (
                clip(row.id, 48),
                row.phase,
                row.provider or "-",
                row.attempts,
                cost if row.cost_microusd else "-",
                clip(", ".join(part for part in (row.reason, *row.flags) if part) or "-", 40),
                moment(row.at_us),
            )
            for row, cost in zip(rows, costs, strict=True)
        ],
        right=("attempts", "cost"),
        paint=state_paint(),
    )
