"""``bydawn retry``, ``resolve`` and ``cancel``: what a person may decide while a run goes on, or afterwards."""

from pathlib import Path

import click
import msgspec

from bydawn.cli.formats import count, counted, dollars
from bydawn.cli.options import json_option, ledger_options
from bydawn.cli.output import json_line, line, on_terminal, table, talk
from bydawn.controlling import Asked, HeldRow, held_rows, price_of, send, task_numbers
from bydawn.errors import UserError
from bydawn.opening import operator
from bydawn.values import duration_s
from ledger.folds import TaskPhase
from runtime.inbox import CancelBatch, ResolveTasks, RetryTasks


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
        _leave(f"Buy {counted(wanted, 'image')} again for about {dollars(cost)}?", yes or asked.sandbox)
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
@click.option("--adopt", metavar="TASK=JOB", help="The doubtful attempt of TASK is the provider's job JOB.")
@click.option("--buy-again", is_flag=True, help="Buy them again: some may then be paid twice.")
@click.option("--give-up", is_flag=True, help="They fail; what may have been paid stays on the books.")
@click.option("--task", "tasks", multiple=True, metavar="ID", help="These held tasks.")
@click.option("--all", "everything", is_flag=True, help="Every held task.")
@click.option("--provider", default="", metavar="NAME", help="Only those held at this provider.")
@click.option("--older", metavar="2h", help="Only those that were sent longer ago.")
@click.option("--yes", is_flag=True, help="Do not ask, where the cost is shown first.")
@json_option
@ledger_options
def resolve(
    batch: str,
    adopt: str | None,
    buy_again: bool,
    give_up: bool,
    tasks: tuple[str, ...],
    everything: bool,
    provider: str,
    older: str | None,
    yes: bool,
    as_json: bool,
    ledger: Path | None,
    sandbox: bool,
) -> int:
    """Decide about held tasks: nobody could tell whether the provider took their job.

    Without a decision the held tasks are listed with their dollars.

    \b
      bydawn resolve products
      bydawn resolve products --all --buy-again
      bydawn resolve products --adopt mug-17=task_9f2c
    """
    with Asked(ledger, batch, sandbox=sandbox) as asked:
        held = held_rows(asked)
        if not (adopt or buy_again or give_up):
            _list_held(held, as_json=as_json)
            return 0
        message, cost = _decision(asked, adopt, buy_again, give_up, tasks, everything, provider, older)
        if buy_again:
            worst = sum(row.at_risk_microusd for row in held if not message.tasks or row.n in message.tasks)
            _leave(
                f"Buy {counted(len(message.tasks) or len(held), 'image')} again for about {dollars(cost)}? "
                f"At most {dollars(worst)} would then be paid twice.",
                yes or asked.sandbox,
            )
    done = send(asked.path, message)
    if as_json:
        json_line("resolved", changed=done.changed, skipped=done.skipped, waiting=done.waiting)
    else:
        line(f"{counted(done.changed, 'task')} decided: {message.decision.replace('_', ' ')}")
        if message.decision != "give_up" and not done.running:
            talk(f"go on: bydawn run {batch}" + (" --sandbox" if asked.sandbox else ""))
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


def _decision(
    asked: Asked,
    adopt: str | None,
    buy_again: bool,
    give_up: bool,
    tasks: tuple[str, ...],
    everything: bool,
    provider: str,
    older: str | None,
) -> tuple[ResolveTasks, int]:
    if sum((bool(adopt), buy_again, give_up)) != 1:
        raise UserError("BD-020", "give one of --adopt, --buy-again, --give-up", where="resolve")
    if adopt:
        name, _, job = adopt.rpartition("=")
        if not name or not job:
            raise UserError("BD-020", f"{adopt!r} is not TASK=JOB", where="--adopt")
        numbers = task_numbers(asked, (name,))
        return ResolveTasks(batch=asked.batch, operator=operator(), decision="adopt", tasks=numbers, job=job), 0
    if not (tasks or everything or provider or older):
        raise UserError("BD-020", "say which held tasks", where="resolve", fix="--all, --task ID or --provider NAME")
    numbers = task_numbers(asked, tasks)
    message = ResolveTasks(
        batch=asked.batch,
        operator=operator(),
        decision="buy_again" if buy_again else "give_up",
        tasks=numbers,
        provider=provider,
        older_s=duration_s(older, where="--older") if older else 0.0,
    )
    _, cost = price_of(asked, numbers, ("held",))
    return message, cost


def _list_held(held: list[HeldRow], *, as_json: bool) -> None:
    if as_json:
        for row in held:
            json_line("held", **msgspec.to_builtins(row))
        return
    if not held:
        line("no task is held")
        return
    table(
        ("task", "provider", "sent", "why", "at risk"),
        [(row.id, row.provider, row.sent, row.reason, dollars(row.at_risk_microusd)) for row in held],
        right=("at risk",),
    )
    line(f"{count(len(held))} held, {dollars(sum(row.at_risk_microusd for row in held))} may have been paid")


def _leave(question: str, yes: bool) -> None:
    """Ask before money is spent; off a terminal ``--yes`` must have been given."""
    if yes:
        return
    if not on_terminal():
        raise UserError("BD-072", question, why="this is not a terminal, so bydawn cannot ask", fix="--yes")
    if not click.confirm(question, err=True):
        raise UserError("BD-073", "nothing was changed", why="you said no")
