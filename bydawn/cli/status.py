"""``bydawn status``: how far the open batches are."""

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bydawn.cli.formats import clock_time, count, counted, dollar_column, dollars, duration, percent, plain
from bydawn.cli.options import json_option, ledger_options
from bydawn.cli.output import doubtful, faint, good, json_line, line, on_terminal, pairs, strong, table
from bydawn.moneylines import lines_data, places_of, told_money
from bydawn.overview import IN_FLIGHT, Overview, account_lines, overview
from bydawn.runs import Run, runs
from bydawn.selection import open_batch, open_ledger, readable_ledgers

if TYPE_CHECKING:
    from ledger.reader import BatchRow, Reader

WATCH_S = 2.0
UNCLEAN = 3


@click.command()
@click.argument("batch", default="")
@click.option("--watch", is_flag=True, help=f"Again every {WATCH_S:.0f} s, until nothing is open or Ctrl-C.")
@click.option("--check", is_flag=True, help="Exit 3 unless every task succeeded or was cancelled.")
@json_option
@ledger_options
def status(batch: str, watch: bool, check: bool, as_json: bool, ledger: Path | None, sandbox: bool) -> int:
    """How far the open batches are: counts, spend, money at risk, ETA."""
    while True:
        seen: list[Overview] = []
        with ExitStack() as opened:
            ledgers = chosen(opened, ledger, batch, sandbox=sandbox)
            if watch and on_terminal():
                sys.stdout.write("\x1b[H\x1b[J")
            for reader, batches in ledgers:
                now_us = time.time_ns() // 1000
                views = [overview(reader, row, now_us=now_us) for row in batches]
                seen += views
                newest = next(iter(runs(reader, last=1)), None)
                if newest is None or newest.state != "running":  # a pace is a promise that nobody keeps now
                    views = [view._replace(rate_per_s=0.0, eta_s=None) for view in views]
                if as_json:
                    for view in views:
                        json_line("status", **as_data(view, reader.path, newest))
                else:
                    show(reader, views, newest, now_us=now_us)
        sys.stdout.flush()
        if not watch or not any(view.settled < view.tasks for view in seen):
            return UNCLEAN if check and not all(view.is_clean for view in seen) else 0
        time.sleep(WATCH_S)


def chosen(
    opened: ExitStack, ledger: Path | None, batch: str, *, sandbox: bool
) -> list[tuple["Reader", list["BatchRow"]]]:
    """The named batch; else of every ledger the open batches, newest first, or its newest when none is open."""
    if batch:
        reader, row = opened.enter_context(open_batch(ledger, batch, sandbox=sandbox))
        return [(reader, [row])]
    found = []
    for path in readable_ledgers(ledger, sandbox=sandbox):
        reader = opened.enter_context(open_ledger(path))
        batches = list(reversed(reader.batches()))
        going = [row for row in batches if is_open(reader, row)]
        if batches:
            found.append((reader, going or batches[:1]))
    if not found:
        opened.enter_context(open_batch(ledger, "", sandbox=sandbox))  # says that there is no batch, and what to do
    return found


def is_open(reader: "Reader", batch: "BatchRow") -> bool:
    closed = ("succeeded", "failed", "cancelled")
    return any(row.n for row in reader.counts(batch.batch) if row.state not in closed)


# --- for scripts ------------------------------------------------------------------------------------------


def as_data(view: Overview, path: Path, newest: Run | None) -> dict[str, object]:
    return {
        "batch": view.name,
        "ledger": str(path),
        "sandbox": view.sandbox,
        "running": newest is not None and newest.state == "running",
        "tasks": view.tasks,
        "settled": view.settled,
        **{
            state: view.counts.get(state, 0)
            for state in ("queued", *IN_FLIGHT, "succeeded", "failed", "held", "cancelled")
        },
        **{name: view.tallies.get(name, 0) for name in ("rejected", "flagged", "shared")},
        **lines_data(view.lines),
        "budget_microusd": view.budget_microusd,
        "rate_per_s": round(view.rate_per_s, 3),
        "eta_s": None if view.eta_s is None else round(view.eta_s),
        "providers": view.providers,
    }


# --- for people -------------------------------------------------------------------------------------------


def show(reader: "Reader", views: list[Overview], newest: Run | None, *, now_us: int) -> None:
    line(f"{faint(str(reader.path))}  {run_line(newest)}")
    for view in views:
        show_batch(view, now_us=now_us)
    show_accounts(reader)


def run_line(newest: Run | None) -> str:
    if newest is None:
        return "never run"
    if newest.state == "running":
        return good(f"run {newest.epoch} is going on") + f" since {clock_time(newest.started_at_us)[:8]}"
    if newest.state == "killed":
        return doubtful(f"run {newest.epoch} was killed") + "; the same command goes on"
    return f"not running ({newest.stopped_by})" if newest.stopped_by else "not running"


def show_batch(view: Overview, *, now_us: int) -> None:
    name = strong(plain(view.name)) + (" (sandbox)" if view.sandbox else "")
    pace = ""
    if view.eta_s is not None:
        at = clock_time(now_us + round(view.eta_s * 1_000_000))[:5]
        pace = f"   {view.rate_per_s:.1f}/s, about {duration(view.eta_s)} more ({at})"
    line()
    if not view.tasks:
        line(f"{name}   its import is not complete: nothing is bought yet")
        return
    line(f"{name}   {count(view.settled)} of {count(view.tasks)} settled, {percent(view.settled, view.tasks)}{pace}")
    states = [("queued", view.counts.get("queued", 0)), ("in flight", view.in_flight)]
    states += [(state, view.counts.get(state, 0)) for state in ("succeeded", "failed", "held", "cancelled")]
    states += sorted(view.tallies.items())
    money = told_money(view.lines, view.budget_microusd)
    pairs(
        [
            ("tasks", " · ".join(f"{state} {count(n)}" for state, n in states if n)),
            *((name, doubtful(text) if name == "at risk" else text) for name, text in money),
        ]
    )
    show_providers(view)
    show_advice(view)


def show_providers(view: Overview) -> None:
    named = {name: states for name, states in view.providers.items() if name}
    if not named:
        return
    columns = ("succeeded", "failed", "held", "cancelled")
    shown = [state for state in columns if any(states.get(state) for states in named.values())]
    line()
    table(
        ("provider", "in flight", *shown),
        [
            (
                name,
                count(sum(states.get(state, 0) for state in IN_FLIGHT)),
                *(count(states.get(state, 0)) for state in shown),
            )
            for name, states in named.items()
        ],
        right=("in flight", *shown),
    )


def show_advice(view: Overview) -> None:
    failed, held = view.counts.get("failed", 0), view.counts.get("held", 0)
    # Commands that write never look for the batch in the practice ledger by themselves.
    named = plain(view.name) + (" --sandbox" if view.sandbox else "")
    if failed:
        line(f"  {count(failed)} failed stay: bydawn retry {named}")
    if held:
        worth = dollars(view.lines.held.microusd, places_of(view.lines))
        line(f"  {count(held)} held ({worth}) wait for you: bydawn resolve {named}")
    if not view.is_open:
        line(f"  nothing is open: bydawn verify {plain(view.name)}")


def show_accounts(reader: "Reader") -> None:
    """What each account has spent over all batches, and why one does not buy."""
    accounts = account_lines(reader)
    if not accounts:
        return
    spent = dollar_column(account.spent for account in accounts)
    reserved = dollar_column(account.reserved for account in accounts)
    line()
    table(
        ("account", "provider", "spent", "reserved", "state"),
        [
            (account.name, account.provider, *cells, account.trouble or "ok")
            for account, *cells in zip(accounts, spent, reserved, strict=True)
        ],
        right=("spent", "reserved"),
    )
    for account in accounts:
        if account.overcharges:
            above, images = dollars(account.overcharged), counted(account.overcharges, "image")
            line(f"  overcharge: {account.name} charged {above} more than the ceilings of {images}")
