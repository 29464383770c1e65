"""``bydawn replay``: a batch as it stood at any moment, and what happened between two.

From the events alone: the stored views are not read, so this is also a second opinion on them.  The same ledger gives
the same output, byte for byte with ``--json``; the text shows times in the zone of the machine.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from bydawn.cli.eventwords import tell
from bydawn.cli.formats import clip, clock_time, count, dollars, local, plain
from bydawn.cli.formats import moment as shown_moment
from bydawn.cli.options import json_option, ledger_options
from bydawn.cli.output import Ticker, doubtful, faint, json_line, line, pairs, strong, table
from bydawn.errors import UserError
from bydawn.selection import open_batch

if TYPE_CHECKING:
    from ledger.events import Recorded
    from ledger.moments import Difference, Moment, TaskLine

SHOWN = 40


@click.command()
@click.argument("batch", metavar="BATCH")
@click.option("--at", metavar="TIME", help="After the newest event by then: 03:00, or 2026-11-23T03:00.")
@click.option("--seq", type=click.IntRange(min=0), metavar="N", help="After event N.")
@click.option("--diff", nargs=2, metavar="A B", help="What changed from A to B, each a time or the number of an event.")
@click.option("--tasks", is_flag=True, help="List every task with its state then.")
@json_option
@ledger_options
def replay(
    batch: str,
    at: str | None,
    seq: int | None,
    diff: tuple[str, str] | None,
    tasks: bool,
    as_json: bool,
    ledger: Path | None,
    sandbox: bool,
) -> None:
    """The state of a batch at a moment, or between two, from events alone.

    \b
      bydawn replay products --at 03:00
      bydawn replay products --seq 120000 --tasks --json
      bydawn replay products --diff 22:00 2026-11-23T03:00
    """
    from bydawn.replaying import (
        difference_data,
        moment_data,
        notable_data,
        numbered,
        placed,
        timed,
    )
    from ledger.moments import difference, last_seq, moment_at

    if (at is not None) + (seq is not None) + bool(diff) > 1 or (diff and tasks):
        raise UserError("BD-020", "give one of --at, --seq and --diff; --tasks goes with the first two", where="replay")
    with open_batch(ledger, batch, sandbox=sandbox) as (reader, row):
        store = reader.store
        ticker = Ticker(f"{reader.path.name}: events", quiet=as_json)
        if diff:
            first, last = placed(store, diff[0], where="--diff"), placed(store, diff[1], where="--diff")
            if first > last:
                raise UserError(
                    "BD-020",
                    f"{diff[0]} (event {first}) is after {diff[1]} (event {last})",
                    where="--diff",
                    fix="turn them round",
                )
            step = difference(store, row.batch, first, last, progress=ticker)
            ticker.done()
            if as_json:
                json_line("difference", **difference_data(step, row.name))
                for recorded in step.notable:
                    json_line("event", **notable_data(recorded))
            else:
                show_difference(
                    step, row.name, [tell(each.event, lambda ref: reader.payload(ref.row)) for each in step.notable]
                )
            return
        if seq is not None:
            through = numbered(store, seq, where="--seq")
        else:
            through = last_seq(store) if at is None else timed(store, at, where="--at")
        moment = moment_at(store, row.batch, through, tasks=tasks, progress=ticker)
        ticker.done()
        if as_json:
            json_line("moment", **moment_data(moment, row.name))
            for entry in sealed_tasks(moment):
                json_line("task", **msgspec.to_builtins(entry))
        else:
            show_moment(moment, row.name)


def sealed_tasks(moment: "Moment") -> list["TaskLine"]:
    """The tasks that were there for a reader: those of a sealed import (LED-11)."""
    return [entry for entry in moment.tasks or () if entry.n <= moment.state.sealed_through]


# --- for people -------------------------------------------------------------------------------------------


def stamp(seq: int, at_us: int) -> str:
    return f"event {count(seq)}" + (f", {shown_moment(at_us)}" if at_us else ", before everything")


def show_moment(moment: "Moment", name: str) -> None:
    from bydawn.moneylines import lines_of, told_money
    from bydawn.replaying import by_state, in_flight

    line(f"{strong(plain(name))}  {faint(stamp(moment.seq, moment.at_us))}")
    if not moment.state.version:
        line("  the batch was not opened yet")
        return
    states = by_state(moment)
    told = [("queued", states["queued"]), ("in flight", in_flight(states))]
    told += [(state, states[state]) for state in ("succeeded", "failed", "held", "cancelled")]
    tallies: Counter[str] = Counter()
    for entry in moment.tallies:
        tallies[entry.state] += entry.n
    told += sorted(tallies.items())
    lines = lines_of(moment.book, moment.batch)
    budget = moment.state.settings.budget_microusd
    pairs(
        [
            ("tasks", " · ".join(f"{state} {count(n)}" for state, n in told if n) or "none"),
            ("importing", f"{count(moment.unsealed)} tasks that are not sealed yet" if moment.unsealed else ""),
            *((name, doubtful(text) if name == "at risk" else text) for name, text in told_money(lines, budget)),
        ]
    )
    show_providers(moment)
    for account in moment.accounts:
        if account.parked:
            line(f"  {doubtful('parked')}: {plain(account.name)}, {plain(account.parked)}")
    show_runs(moment)
    show_tasks(moment)


def show_providers(moment: "Moment") -> None:
    from bydawn.replaying import by_provider, in_flight

    found = by_provider(moment)
    if not found:
        return
    columns = ("succeeded", "failed", "held", "cancelled")
    line()
    table(
        ("provider", "in flight", *columns, "spent", "reserved"),
        [
            (
                name,
                count(in_flight(Counter(cells))),
                *(count(cells.get(state, 0)) for state in columns),
                dollars(cells.get("cost_microusd", 0)),
                dollars(cells.get("reserved_microusd", 0)),
            )
            for name, cells in found.items()
        ],
        right=("in flight", *columns, "spent", "reserved"),
    )


def show_runs(moment: "Moment") -> None:
    runs = [epoch for epoch in moment.epochs if epoch.events]
    if not runs:
        return
    line()
    table(
        ("run", "started", "ended", "events", "command"),
        [
            (
                epoch.epoch,
                shown_moment(epoch.started_at_us),
                f"{shown_moment(epoch.ended_at_us)} ({epoch.stopped_by})" if epoch.ended_at_us else "not by then",
                count(epoch.events),
                clip(epoch.command, 60),
            )
            for epoch in runs
        ],
        right=("run", "events"),
    )


def show_tasks(moment: "Moment") -> None:
    found = sealed_tasks(moment)
    if not found:
        return
    line()
    table(
        ("task", "state", "provider", "attempts", "cost", "why"),
        [
            (
                entry.id,
                entry.phase,
                entry.provider or "-",
                entry.attempts,
                dollars(entry.cost_microusd),
                entry.reason or "-",
            )
            for entry in found
        ],
        right=("attempts", "cost"),
    )


def show_difference(step: "Difference", name: str, told: list[str]) -> None:
    from bydawn.moneylines import DOLLARS
    from bydawn.replaying import attempts_of, money_of

    line(strong(plain(name)))
    pairs([("from", stamp(step.before.seq, step.before.at_us)), ("to", stamp(step.after.seq, step.after.at_us))])
    before, after = money_of(step.before), money_of(step.after)
    attempts = attempts_of(step)
    line()
    pairs(
        [
            *(
                (word, f"{change(after[field] - before[field])}  ({dollars(before[field])} → {dollars(after[field])})")
                for field, word in DOLLARS.items()
                if after[field] != before[field]
            ),
            ("attempts", " · ".join(f"{word} {count(n)}" for word, n in attempts.items())),
        ]
    )
    if step.transitions:
        line()
        table(
            ("tasks", "from", "to"),
            [(count(n), old or "not there", new or "dropped") for (old, new), n in ordered(step)],
            right=("tasks",),
        )
    if not step.events and not step.notable:
        line("  nothing happened")
    accounts = {f"account-{account.n}": account.name for account in step.after.accounts}
    show_notable(step.notable, told, accounts)


def ordered(step: "Difference") -> list[tuple[tuple[str, str], int]]:
    """The most tasks first."""
    return sorted(step.transitions.items(), key=lambda entry: (-entry[1], entry[0]))


def change(microusd: int) -> str:
    return f"+{dollars(microusd)}" if microusd > 0 else dollars(microusd)


def show_notable(notable: tuple["Recorded", ...], told: list[str], accounts: dict[str, str]) -> None:
    from ledger.streams import stream_label

    if not notable:
        return
    line()
    line(strong("events") + faint(f"  (times in {local(notable[0].at_us):%Z})"))
    for recorded, text in list(zip(notable, told, strict=True))[:SHOWN]:
        at = f"{local(recorded.at_us):%Y-%m-%d} {clock_time(recorded.at_us)[:8]}"
        label = stream_label(recorded.stream)
        said = plain(f"{accounts.get(label, label)}: {clip(text, 160)}")
        line(f"  {at}  {faint(f'{count(recorded.seq):>11}')}  {said}")
    if len(notable) > SHOWN:
        line(f"  and {count(len(notable) - SHOWN)} more: --json lists them all")
