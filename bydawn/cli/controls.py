"""``bydawn retry`` and ``cancel``: what a person may decide while a run goes on, or afterwards."""

from pathlib import Path

import click

from bydawn.cli.formats import count, counted, dollars
from bydawn.cli.options import json_option, ledger_options
from bydawn.cli.output import json_line, line, on_terminal, talk
from bydawn.controlling import Asked, price_of, send, task_numbers
from bydawn.errors import UserError
from bydawn.opening import operator
from ledger.folds import TaskPhase
from runtime.inbox import CancelBatch, RetryTasks


@click.command()
@click.argument("batch", metavar="BATCH")
@click.option("--task", "tasks", multiple=True, metavar="ID", help="Only these tasks; else every failed one.")
@click.option("--rejected", is_flag=True, help="Tasks whose image was rejected, instead of failed ones.")
@click.option("--yes", is_flag=True, help="Do not ask, where the cost is shown first.")
@json_option
@ledger_options
def retry(
    batch: str, tasks: tuple[str, ...], rejected: bool, yes: bool, as_json: bool, ledger: Path | None, sandbox: bool
) -> int:
    """Want failed tasks again, priced first; the next (or the present) run buys them.

    \b
      bydawn retry products
      bydawn retry products --task mug-17 --yes
    """
    with Asked(ledger, batch, sandbox=sandbox) as asked:
        numbers = task_numbers(asked, tasks)
        states: tuple[TaskPhase, ...] = ("failed", "cancelled") if numbers else ("failed",)
        wanted, cost = price_of(asked, numbers, ("succeeded",) if rejected else states)
        if not wanted:
            talk("nothing to retry: no task of the batch is " + ("rejected" if rejected else "failed"))
            return 0
        ask_leave(f"Buy {counted(wanted, 'image')} again for about {dollars(cost)}?", yes or asked.sandbox)
        message = RetryTasks(batch=asked.batch, operator=operator(), tasks=numbers, rejected=rejected)
    done = send(asked.path, message)
    if as_json:
        json_line("retried", changed=done.changed, skipped=done.skipped, waiting=done.waiting)
    else:
        line(
            f"{counted(done.changed, 'task')} are wanted again"
            + (f", {count(done.skipped)} were not" if done.skipped else "")
        )
        if not done.running:
            talk(f"buy them: bydawn run {batch}" + (" --sandbox" if asked.sandbox else ""))
    return 0


@click.command()
@click.argument("batch", metavar="BATCH")
@json_option
@ledger_options
def cancel(batch: str, as_json: bool, ledger: Path | None, sandbox: bool) -> int:
    """Stop buying, and cancel at the provider where it can be done.

    Prints what was stopped free of charge, what is charged all the same, and what was asked to stop.

    \b
      bydawn cancel products
    """
    with Asked(ledger, batch, sandbox=sandbox) as asked:
        message = CancelBatch(batch=asked.batch, operator=operator())
    done = send(asked.path, message)
    if as_json:
        json_line("cancelled", free=done.free, charged=done.charged, unknown=done.unknown, waiting=done.waiting)
        return 0
    line(f"stopped free      {count(done.free)}")
    line(f"still charged     {count(done.charged)}")
    line(f"asked to stop     {count(done.unknown)}")
    if done.charged and not done.running:
        talk(f"their images are collected by: bydawn run {batch}" + (" --sandbox" if asked.sandbox else ""))
    return 0


def ask_leave(question: str, yes: bool) -> None:
    """Ask before money is spent; off a terminal ``--yes`` must have been given."""
    if yes:
        return
    if not on_terminal():
        raise UserError("BD-072", question, why="this is not a terminal, so bydawn cannot ask", fix="--yes")
    if not click.confirm(question, err=True):
        raise UserError("BD-073", "nothing was changed", why="you said no")
