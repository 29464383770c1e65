"""``bydawn rerun BATCH``: everything of a batch again, as a new batch of the same ledger.

The ledger is all it needs: the table may be gone.  The order guards the money as that of a run does: read and check
everything, say what differs from then, check the keys, bring the tasks in and seal them, get consent, buy.

A rerun is a batch like any other from its seal on.  The same command goes on with it; a further one needs ``--new`` or
a name of its own.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bydawn import importing, values
from bydawn.accountcheck import check_accounts
from bydawn.approval import approval, save
from bydawn.cli.formats import counted, dollars
from bydawn.cli.output import json_line
from bydawn.cli.output import line as line_out
from bydawn.config import load_config
from bydawn.consent import refuse_uncovered
from bydawn.differences import Differences, difference_lines, differences, version_lines, versions_of
from bydawn.errors import UserError
from bydawn.inputs import Checked
from bydawn.inputs.past import PastBatch
from bydawn.keys import providers_with_keys
from bydawn.localrefs import file_lines
from bydawn.naming import check_template
from bydawn.opening import Opened, operator
from bydawn.preparing import (
    KnownBatches,
    accounts_for,
    callback_lines,
    folder_for,
    free_name,
    log_to_stderr,
    named_ledger,
    new_batch,
    no_batch_error,
    refuse_mixed,
    say_where,
    show_plan,
    talker,
)
from bydawn.request import Request, Settings, settings_now
from bydawn.running import Call, go_on
from bydawn.selection import ledger_path
from bydawn.spending import buy_batch, plan_of
from bydawn.takeover import opened_for_buying
from ledger.events import BatchConfigured
from ledger.folds import EMPTY_BATCH, BatchState
from ledger.past import bought
from ledger.reader import Reader
from runtime.accounts import Account
from runtime.egress import Egress

_NAMED = 5


class _Target(msgspec.Struct, frozen=True):
    """The batch to be made, or (with a number) the one that was begun."""

    name: str
    number: int = 0
    state: BatchState = EMPTY_BATCH


def start(request: Request) -> int:
    """Plan or buy a rerun; returns the exit code.  Raises UserError for whatever the user can mend."""
    log_to_stderr(request.verbose)
    talk = talker(request.quiet)
    settings = Settings(request, load_config(Path.cwd(), os.environ))
    ledger_file = ledger_path(named_ledger(request, settings), sandbox=request.sandbox)
    egress = Egress.from_environment(os.environ)
    with KnownBatches(ledger_file) as reader:
        source = reader.batch_by_name(request.target) if reader else None
        if reader is None or source is None:
            raise no_batch_error(ledger_file, request.target, reader)
        state = reader.batch(source)
        refuse_mixed(state, request)
        target = _target(reader, source, request)
    if target.state.sealed_through:
        accounts = accounts_for(request, settings, ledger_file, target.state)
        talk(f"{state.name} is being done again as {target.name}, which goes on; to begin one more: --new")
        return go_on(Call(request, settings, ledger_file, target.state, accounts, egress, talk), target.name)
    if not state.sealed_through:
        raise UserError("BD-078", f"{state.name} has no tasks", where=str(ledger_file), fix="bydawn run INPUT")
    accounts = accounts_for(request, settings, ledger_file, state)
    folder = Path(target.state.folder) if target.number else folder_for(request, settings, target.name, ledger_file)
    dedupe = values.one_of(settings.text("dedupe"), ("", "share", "off"), where="--dedupe")
    past = PastBatch(ledger_file, source, share=None if not dedupe else dedupe == "share")
    checked = _check(past, accounts, settings, folder)
    wanted = settings_now(state, request, settings)
    book = settings.config.price_book()
    plan = plan_of(wanted, checked.groups, accounts, book, settings.moment_us("deadline"))
    with Reader(ledger_file) as reader:
        keys = _with_keys(request, settings, accounts)
        found = differences(reader, source, plan, accounts, book, keys=keys)
    _tell(request, found, target.name, past, checked, state, talk)
    if request.dry_run:
        if request.save is not None:
            save(request.save, approval(plan, checked.digest))
        notes = (*file_lines(checked, accounts), *callback_lines(settings, state, accounts))
        return show_plan(request, plan, folder, checked, notes=notes)
    refuse_uncovered(plan)
    check_accounts(accounts, egress)
    with opened_for_buying(ledger_file, create=False) as opened:
        batch = _find_or_open(opened, target, source, state, folder)
        say_where(opened.ledger.path, opened.ledger.batch(batch), talk, created=opened.created)
        _import(opened, batch, past, checked, talk)
        code = buy_batch(opened, batch, request, settings, accounts, egress, checked.groups, talk, places=past.places)
        with opened.ledger.reader() as reader:
            for line in version_lines(found.versions, versions_of(bought(reader, batch))):
                talk(line)
        return code


def _target(reader: Reader, source: int, request: Request) -> _Target:
    """Which batch the rerun is: one that was begun, the newest where no name says which, else a new one.

    Raises:
        UserError: the name is that of another batch (exit 2).
    """
    name = importing.dated(request.name)
    rows = reader.batches()
    if not request.new:
        for row in reversed(rows):
            state = reader.batch(row.batch)
            if state.rerun_of == source and name in ("", row.name):
                return _Target(row.name, row.batch, state)
        if any(row.name == name for row in rows):
            raise UserError(
                "BD-079",
                f"{name} is another batch",
                where="--name",
                why=f"it was not made as a rerun of {request.target}",
                fix="give another name, or leave --name out",
            )
    return _Target(free_name(name or request.target, {row.name for row in rows}))


def _check(past: PastBatch, accounts: Sequence[Account], settings: Settings, folder: Path) -> Checked:
    """Read everything once.  Raises UserError where something cannot be asked for again, or nothing is left."""
    codecs = {account.provider: account.codec for account in accounts}
    checked = past.check(codecs, rejected=folder / "rejected.csv")
    skip = values.yes(settings.text("skip_invalid"), where="skip_invalid")
    if checked.bad_rows and not (skip and checked.tasks):
        first = [f"{problem.value}: {problem.reason}" for problem in checked.problems[:_NAMED]]
        more = checked.bad_rows - len(first)
        raise UserError(
            "BD-078",
            f"{counted(checked.bad_rows, 'task')} of {past.name} cannot be asked for again as they were",
            where=str(checked.rejected),
            why="; ".join(first) + (f"; and {more:,} more" if more > 0 else ""),
            fix="put files back as they were, choose other providers, or leave these tasks out: --skip-invalid",
        )
    if not checked.tasks:
        raise UserError(
            "BD-078",
            f"nothing of {past.name} can be wanted again",
            why="the texts of all its tasks were erased",
            fix="bydawn run INPUT",
        )
    template = settings.text("name_template")
    if template:
        check_template(template, past.tasks, where=past.where)
    return checked


def _with_keys(request: Request, settings: Settings, accounts: Sequence[Account]) -> frozenset[str]:
    """The providers that could be bought from; in practice none needs a key."""
    if request.sandbox:
        return frozenset(account.provider for account in accounts)
    return providers_with_keys(settings.config)


def _tell(
    request: Request,
    found: Differences,
    name: str,
    past: PastBatch,
    checked: Checked,
    state: BatchState,
    talk: Callable[[str], None],
) -> None:
    """Say what differs from then: as talk, in a dry run as data, with ``--json`` as one object."""
    say = line_out if request.dry_run else talk
    if request.as_json:
        fields = {**msgspec.to_builtins(found), "batch": name, "rerun_of": past.name}
        json_line("rerun", **fields, tasks=checked.tasks, erased=past.erased, left_out=checked.bad_rows)
        return
    say(f"everything of {past.name} again, as {name}: {counted(checked.tasks, 'task')}")
    for line in difference_lines(found, erased=past.erased, left_out=checked.bad_rows):
        say(line)
    if state.settings.budget_microusd is not None:
        say(f"the budget of {dollars(state.settings.budget_microusd)} holds for the new batch as well: --budget")


def _find_or_open(opened: Opened, target: _Target, source: int, state: BatchState, folder: Path) -> int:
    """Go on with the batch that was begun, or open it; run as the one before was, except where options say otherwise.

    A budget is kept as a cap and not as consent (:mod:`bydawn.spending`).  A deadline was a moment of that night, and a
    limit or a sample a part of that batch; everything is wanted again.
    """
    if target.number:
        return target.number
    kept = msgspec.structs.replace(state.settings, deadline_us=None, limit=None, sample=None, sample_ppm=None)
    configured = BatchConfigured(operator=operator(), **msgspec.structs.asdict(kept))
    return new_batch(opened, target.name, folder, sandbox=state.sandbox, rerun_of=source, configured=configured)


def _import(opened: Opened, batch: int, past: PastBatch, checked: Checked, talk: Callable[[str], None]) -> None:
    """Bring the tasks in and seal them; goes on with an import that was cut short, or begins it anew."""
    staged = opened.ledger.stage(batch, past.tasks(), input_digest=checked.digest)
    assert not staged.duplicates_count  # ids of a batch are unique
    imported = opened.ledger.import_staged(
        batch,
        source=past.where,
        input_digest=checked.digest,
        at_us=time.time_ns() // 1000,
        share=past.share,
        mapping=dict(past.mapping),
        progress=importing.telling(talk),
    )
    if imported.resumed:
        talk("went on with an import that was interrupted")
    talk(f"{counted(imported.added, 'task')} added from {past.where}")
