"""What ``run`` and ``plan`` do, step by step."""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from bydawn import importing, values
from bydawn.accountcheck import check_accounts
from bydawn.approval import approval, save
from bydawn.cli.formats import count, counted
from bydawn.config import load_config, refuse_stray_ledger
from bydawn.errors import UserError
from bydawn.inputs import Checked, InputFile, InputOptions, fit_for, open_input, with_defaults_of
from bydawn.localrefs import file_lines, files_are_missing
from bydawn.movedfolder import follow_moved
from bydawn.naming import check_template
from bydawn.opening import Opened, held_error
from bydawn.preparing import (
    KnownBatches,
    accounts_for,
    callback_lines,
    folder_for,
    free_name,
    log_to_stderr,
    named_folder,
    named_ledger,
    new_batch,
    no_batch_error,
    refuse_mixed,
    say_where,
    show_plan,
    state_before,
    talker,
)
from bydawn.quoting import quotes_of_plan
from bydawn.request import Request, Settings, settings_now
from bydawn.resuming import resume_lines, resumed
from bydawn.selection import ledger_path
from bydawn.shapes import groups_of, part_of
from bydawn.spending import buy_batch, plan_of
from bydawn.takeover import opened_for_buying
from ledger.errors import LedgerHeld
from ledger.folds import EMPTY_BATCH, BatchState
from ledger.journal import Ledger
from ledger.reader import Reader
from runtime.accounts import Account
from runtime.egress import Egress
from runtime.planning import Group


def start(request: Request) -> int:
    """Plan or run; returns the exit code.  Raises UserError for whatever the user can mend."""
    log_to_stderr(request.verbose)
    talk = talker(request.quiet)
    settings = Settings(request, load_config(Path.cwd(), os.environ))
    named = importing.name_batch(request.target, request.name)
    ledger_file = ledger_path(named_ledger(request, settings), sandbox=request.sandbox)
    egress = Egress.from_environment(os.environ)
    before = EMPTY_BATCH if request.new else state_before(ledger_file, named.name)
    accounts = accounts_for(request, settings, ledger_file, before)
    if named.input is None:
        return go_on(request, settings, named.name, ledger_file, before, accounts, egress, talk)
    records = [account.codec.capabilities for account in accounts]
    options = with_defaults_of(records, settings.input_options())
    folder = folder_for(request, settings, named.name, ledger_file)
    fit = None
    if values.yes(settings.text("fit_references"), where="fit_references"):
        fit = fit_for((account.codec for account in accounts), folder / "references")
    with open_input(named.input, options, fit=fit) as file:
        digest = importing.input_digest(file.digest, options)
        template = settings.text("name_template")
        renamed = bool(template) and template != before.settings.name_template
        known = _sealed(before, digest) and not renamed and not request.dry_run
        checked = None if known else _check(file, accounts, folder)
        if known and _files_are_missing(ledger_file, named.name):
            file.find_files()
        if checked is not None and template:
            check_template(template, file.tasks, where=named.input)
        if request.dry_run:
            assert checked is not None
            rows = _groups(checked, settings)
            state = settings_now(before, request, settings)
            wanted, part = part_of(rows, state)
            quotes = quotes_of_plan(wanted, accounts, settings.config, egress, asking=request.quotes)
            plan = plan_of(state, wanted, accounts, quotes.book, settings.moment_us("deadline"))
            if request.save is not None:
                save(request.save, approval(plan, digest))
            files, callbacks = file_lines(checked, accounts), callback_lines(settings, before, accounts)
            with KnownBatches(ledger_file) as reader:
                known_as = reader.batch_by_name(before.name) if reader else None
                lines, resumes = _resumes(reader, known_as, before, request, settings)
            notes = (*part, *lines, *files, *callbacks, *quotes.lines)
            return show_plan(request, plan, folder, checked, notes=notes, resumes=resumes)
        check_accounts(accounts, egress)
        refuse_stray_ledger(
            ledger_file,
            settings.config,
            named=bool(request.ledger or settings.text("ledger")),
            asked=request.new_ledger,
            terminal=sys.stdin.isatty(),
            sandbox=request.sandbox,
        )
        try:
            with opened_for_buying(ledger_file, create=True) as opened:
                batch = _find_or_open(opened, request, named.name, folder)
                follow_moved(opened, batch, named=named_folder(request, settings))
                say_where(opened.ledger.path, opened.ledger.batch(batch), talk, created=opened.created)
                if checked is not None:
                    _import(opened.ledger, batch, file, checked, digest, settings, request, options, named.input, talk)
                groups = _groups(checked, settings) if checked is not None else None
                return buy_batch(opened, batch, request, settings, accounts, egress, groups, talk, places=file.places)
        except LedgerHeld as exc:
            raise held_error(ledger_file, exc) from exc


def go_on(
    request: Request,
    settings: Settings,
    name: str,
    ledger_file: Path,
    before: BatchState,
    accounts: list[Account],
    egress: Egress,
    talk: Callable[[str], None],
) -> int:
    """Go on with a batch by its name: no input is read."""
    if request.new:
        raise UserError(
            "BD-020",
            "a new batch needs an input",
            where="--new",
            fix=f"give the input file; to buy all of {name} once more: bydawn rerun {name}",
        )
    with KnownBatches(ledger_file) as reader:
        batch = reader.batch_by_name(name) if reader else None
        if batch is None:
            raise no_batch_error(ledger_file, name, reader)
    if not before.sealed_through:
        raise _half_error(before, ledger_file)
    template = settings.text("name_template")
    if template and template != before.settings.name_template:
        raise UserError(
            "BD-021",
            "new file names need the input",
            where="--name-template",
            why="all rows are read to see that no two of them get the same name",
            fix="give the input file instead of the batch's name",
        )
    if request.dry_run:
        with Reader(ledger_file) as reader:
            waiting = groups_of(reader, batch, accounts)
            settled = before.sealed_through - sum(group.count for group in waiting)
            state = settings_now(before, request, settings)
            left, part = part_of(waiting, state, settled=settled)
            quotes = quotes_of_plan(left, accounts, settings.config, egress, asking=request.quotes)
            lines, resumes = _resumes(reader, batch, before, request, settings)
            notes = (*part, *lines, *callback_lines(settings, before, accounts), *quotes.lines)
            left_plan = plan_of(state, left, accounts, quotes.book, settings.moment_us("deadline"))
            if request.save is not None:
                save(request.save, approval(left_plan, before.imports[-1].input_digest))
            return show_plan(request, left_plan, Path(reader.batch(batch).folder), notes=notes, resumes=resumes)
    check_accounts(accounts, egress)
    try:
        with opened_for_buying(ledger_file, create=False) as opened:
            follow_moved(opened, batch, named=named_folder(request, settings))
            say_where(opened.ledger.path, opened.ledger.batch(batch), talk, created=opened.created)
            return buy_batch(opened, batch, request, settings, accounts, egress, None, talk)
    except LedgerHeld as exc:
        raise held_error(ledger_file, exc) from exc


def _half_error(before: BatchState, ledger_file: Path) -> UserError:
    """What is said of a batch whose first import was cut short: nothing of it may be bought (LED-11)."""
    half = before.imports[-1].source if before.imports else "INPUT"
    again = f"run {half} --name {before.name}"
    if before.rerun_of:
        with Reader(ledger_file) as reader:
            again = f"rerun {reader.batch(before.rerun_of).name} --name {before.name}"
    return UserError(
        "BD-081",
        f"nothing of {before.name} can be bought yet",
        where=str(ledger_file),
        why="bringing its tasks in was cut short or refused, and only a whole table is bought",
        fix=f"bring them in again: bydawn {again}" + (" --sandbox" if before.sandbox else ""),
    )


# --- before the ledger ------------------------------------------------------------------------------------


def _check(file: InputFile, accounts: Iterable[Account], folder: Path) -> Checked:
    codecs = {account.provider: account.codec for account in accounts}
    checked = file.check(codecs, rejected=folder / "rejected.csv")
    file.require_usable(checked)
    return checked


def _dedupe(settings: Settings) -> str:
    return values.one_of(settings.text("dedupe") or "", ("", "share", "off"), where="--dedupe")


def _groups(checked: Checked, settings: Settings) -> tuple[Group, ...]:
    """The tasks of the input by shape; with ``--dedupe off`` each of them is bought."""
    if _dedupe(settings) != "off":
        return checked.groups
    return tuple(msgspec.structs.replace(group, shared=0) for group in checked.groups)


def _sealed(before: BatchState, digest: str) -> bool:
    """Whether this very input is the batch's newest import: then nothing needs to be read again."""
    newest = before.imports[-1] if before.imports else None
    return newest is not None and newest.phase == "sealed" and newest.input_digest == digest


def _resumes(
    reader: Reader | None, batch: int | None, before: BatchState, request: Request, settings: Settings
) -> tuple[list[str], dict[str, int] | None]:
    """What going on with a batch that was bought from before would mean, for people and for scripts."""
    if reader is None or batch is None or before.agreed is None:
        return [], None
    state = settings_now(before, request, settings)
    found = resumed(reader, batch, state)
    return resume_lines(found, state), found.data()


def _files_are_missing(ledger_file: Path, name: str) -> bool:
    with KnownBatches(ledger_file) as reader:
        batch = reader.batch_by_name(name) if reader else None
        return reader is not None and batch is not None and files_are_missing(reader, batch)


# --- with the ledger --------------------------------------------------------------------------------------


def _find_or_open(opened: Opened, request: Request, name: str, folder: Path) -> int:
    with opened.ledger.reader() as reader:
        batch = reader.batch_by_name(name)
        if batch is not None and not request.new:
            refuse_mixed(reader.batch(batch), request)
            return batch
        fresh = free_name(name, {each.name for each in reader.batches()})
    if fresh != name:
        folder = folder.with_name(folder.name.replace(name, fresh, 1))
    return new_batch(opened, fresh, folder, sandbox=request.sandbox)


def _import(
    ledger: Ledger,
    batch: int,
    file: InputFile,
    checked: Checked,
    digest: str,
    settings: Settings,
    request: Request,
    options: InputOptions,
    source: str,
    talk: Callable[[str], None],
) -> None:
    choices = importing.ImportChoices(
        dedupe=_dedupe(settings),
        on_change=values.one_of(settings.text("on_change") or "error", ("error", "keep"), where="--on-change"),
    )
    added = importing.import_input(
        ledger,
        batch,
        file,
        checked,
        digest,
        source=source,
        options=options,
        choices=choices,
        talk=talk,
        progress=importing.telling(talk),
    )
    if checked.bad_rows:
        talk(f"{counted(checked.bad_rows, 'bad row')} were left out: {checked.rejected}")
    talk(f"{counted(added, 'task')} added from {source}" if added else f"{source} adds nothing new")
    if added and checked.local_files:
        talk(f"{counted(checked.local_files, 'local reference file')}, {count(checked.local_bytes)} bytes")
