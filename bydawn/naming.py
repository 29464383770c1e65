"""Whether a name template gives every task a name of its own; found out before anything is bought.

Only batches that have a template pay for this: one more reading of the input, and a hash of each name in memory.
"""

from collections.abc import Callable, Iterable

from bydawn.errors import UserError
from bydawn.manifest import template_fields
from ledger.imports import NewTask
from runtime.names import TemplateError, render, safe_name
from runtime.requests import decode_request


def check_template(template: str, tasks: Callable[[], Iterable[NewTask]], *, where: str) -> None:
    """Raise UserError when the template names a column that is not there, or gives two tasks one name.

    Args:
        tasks: gives the tasks of the input, anew at each call.
    """
    names: set[int] = set()
    bearers: set[int] = set()
    for task in tasks():
        name = _name(template, task)
        if _counted(template, task):  # equal rows get ids that differ, and so do their names
            bearer = hash((name, task.row, task.suffix))
            if bearer in bearers:
                continue
            bearers.add(bearer)
        if hash(name) in names:
            first = next(each for each in tasks() if _name(template, each) == name)
            raise UserError(
                "BD-021",
                "the name template gives two tasks the same file name",
                where=where,
                why=f"{_id(first)} (row {first.line}) and {_id(task)} (row {task.line}) would both be {name}",
                fix="put more into --name-template: {row}, {aspect}, {resolution}, {variant}, or a column",
            )
        names.add(hash(name))


def _name(template: str, task: NewTask) -> str:
    fields = template_fields(
        _id(task),
        task.row,
        decode_request(task.request),
        aspect=task.aspect,
        resolution=task.resolution,
        variant=task.variant,
        version=1,
    )
    try:
        return safe_name(render(template, fields))
    except TemplateError as exc:
        raise UserError(
            "BD-021",
            "the name template cannot be used",
            where="--name-template",
            why=str(exc),
            fix="correct it, or leave it out: then files are named like their tasks",
        ) from exc


def _id(task: NewTask) -> str:
    return task.row + task.suffix


def _counted(template: str, task: NewTask) -> bool:
    return not task.given and ("{row}" in template or "{id}" in template)
