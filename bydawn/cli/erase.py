"""``bydawn erase``: the texts of tasks go for good, on request their images too."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bydawn.cli.formats import count, counted, plain
from bydawn.cli.options import json_option, ledger_options
from bydawn.cli.output import json_line, line, on_terminal, talk
from bydawn.errors import UserError

if TYPE_CHECKING:
    from bydawn.erasing import Scope

SHOWN = 5


@click.command()
@click.argument("tasks", metavar="[BATCH/]TASK...", nargs=-1, required=True)
@click.option(
    "--id", "ids", multiple=True, metavar="ID", help="A task of the batch that is then named alone: BATCH --id ID."
)
@click.option("--blobs", is_flag=True, help="Remove the image files, too.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@ledger_options
def erase(
    tasks: tuple[str, ...],
    ids: tuple[str, ...],
    blobs: bool,
    yes: bool,
    as_json: bool,
    ledger: Path | None,
    sandbox: bool,
) -> None:
    """Erase the texts of tasks for good: prompt, references, answers.

    Tasks that share the purchase of one that is named go with it.  What happened stays on record; only the words go.

    \b
      bydawn erase products/mug-17
      bydawn erase products --id mug-17 --id mug-18 --blobs
    """
    from bydawn.controlling import Asked, task_numbers
    from bydawn.erasing import erase as erase_now
    from bydawn.erasing import scope_of
    from bydawn.opening import held_error, opened_for_writing, operator
    from ledger.errors import LedgerHeld

    batch, wanted = meant(tasks, ids)
    with Asked(ledger, batch, sandbox=sandbox) as asked:
        path, number, name = asked.path, asked.batch, asked.row.name
        numbers = task_numbers(asked, wanted)
        scope = scope_of(asked.reader, number, numbers)
    agree(question(name, scope, numbers=len(set(numbers)), blobs=blobs), yes=yes)
    try:
        with opened_for_writing(path, create=False) as opened:
            done = erase_now(opened, number, numbers, files=blobs, operator=operator())
    except LedgerHeld as exc:
        raise held_error(path, exc) from exc
    if as_json:
        json_line(
            "erased",
            batch=name,
            tasks=done.tasks,
            texts=done.texts,
            cancelled=done.cancelled,
            files=done.files,
            log_emptied=done.log_emptied,
        )
    else:
        went = [f"{counted(done.texts, 'text')} of {counted(done.tasks, 'task')}"]
        went += [counted(done.files, "file")] if done.files else []
        line(
            f"erased: {', '.join(went)}" + (f"; {counted(done.cancelled, 'task')} cancelled" if done.cancelled else "")
        )
    if not done.log_emptied:
        talk(
            "another process reads the ledger, so the texts still stand in its write-ahead log (-wal): close it "
            "(status --watch, datasette, ...), then give the same command again"
        )


def meant(tasks: tuple[str, ...], ids: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return the batch (empty = the newest) and the ids of its tasks."""
    from bydawn.selection import target

    if ids:
        if len(tasks) > 1:
            raise UserError(
                "BD-020", "with --id, name the batch and nothing else", where="erase", fix="BATCH --id ID --id ID"
            )
        return tasks[0], ids
    targets = [target(task) for task in tasks]
    batches = {entry.batch for entry in targets}
    if len(batches) > 1:
        raise UserError("BD-020", "the tasks are of several batches", where="erase", fix="one command for each batch")
    return batches.pop(), tuple(entry.task for entry in targets)


def question(batch: str, scope: "Scope", *, numbers: int, blobs: bool) -> str:
    """Say all that goes, before it goes."""
    named = ", ".join(scope.ids[:SHOWN]) + (
        f" and {count(len(scope.ids) - SHOWN)} more" if len(scope.ids) > SHOWN else ""
    )
    text = f"Erase {counted(scope.texts, 'text')} of {batch}: {named}"
    sharing = len(scope.numbers) - numbers
    if sharing:
        text += f" ({counted(sharing, 'task')} among them only for sharing a purchase with one that you named)"
    if blobs:
        text += f", and {counted(scope.images, 'image')}"
    if scope.unbought:
        text += f"? {counted(scope.unbought, 'task')} not bought yet will be cancelled"
    return plain(f"{text}? This cannot be undone.")


def agree(text: str, *, yes: bool) -> None:
    """Ask; off a terminal ``--yes`` must have been given."""
    if yes:
        return
    if not on_terminal():
        raise UserError("BD-117", text, why="this is not a terminal, so bydawn cannot ask", fix="--yes")
    if not click.confirm(text, err=True):
        raise UserError("BD-073", "nothing was changed", why="you said no")
