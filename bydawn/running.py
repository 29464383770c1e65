"""What ``run`` and ``plan`` do, step by step."""

import os
import sys
from collections.abc import Callable, Sequence
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
from bydawn.opening import Opened
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
from ledger.folds import EMPTY_BATCH, BatchState
from ledger.journal import Ledger
from ledger.reader import Reader
from runtime.accounts import Account
from runtime.egress import Egress
from runtime.planning import Group


class Call(msgspec.Struct, frozen=True):
    """One call of a command that buys: what was asked, of which ledger and accounts, and the batch as it was left."""

    request: Request
    settings: Settings
    ledger_file: Path
    before: BatchState
    accounts: list[Account]
    egress: Egress
    talk: Callable[[str], None]


def start(request: Request) -> int:
    """Plan or run; returns the exit code.  Raises UserError for whatever the user can mend."""
    log_to_stderr(request.verbose)
    settings = Settings(request, load_config(Path.cwd(), os.environ))
    named = importing.name_batch(request.target, request.name)
    ledger_file = ledger_path(named_ledger(request, settings), sandbox=request.sandbox)
    egress = Egress.from_environment(os.environ)
    before = EMPTY_BATCH if request.new else state_before(ledger_file, named.name)
    accounts = accounts_for(request, settings, ledger_file, before)
    call = Call(request, settings, ledger_file, before, accounts, egress, talker(request.quiet))
    return go_on(call, named.name) if named.input is None else _take_input(call, named.name, named.input)


def _take_input(call: Call, name: str, source: str) -> int:
    """Plan or run what an input asks for: a batch that it makes, or goes on with."""
    request, settings = call.request, call.settings
    options = with_defaults_of([account.codec.capabilities for account in call.accounts], settings.input_options())
    folder = folder_for(request, settings, name, call.ledger_file)
    fit = None
    if values.yes(settings.text("fit_references"), where="fit_references"):
        fit = fit_for((account.codec for account in call.accounts), folder / "references")
    with open_input(source, options, fit=fit) as file:
        digest = importing.input_digest(file.digest, options)
        checked = _checked(call, name, file, digest, folder)
        groups = _groups(checked, settings) if checked is not None else None
        if request.dry_run:
            with KnownBatches(call.ledger_file) as reader:
                batch = reader.batch_by_name(call.before.name) if reader else None
                return _plan(call, groups or (), digest, folder, reader, batch, checked=checked)
        check_accounts(call.accounts, call.egress)
        refuse_stray_ledger(
            call.ledger_file,
            settings.config,
            named=bool(request.ledger or settings.text("ledger")),
            asked=request.new_ledger,
            terminal=sys.stdin.isatty(),
            sandbox=request.sandbox,
        )
        with opened_for_buying(call.ledger_file, create=True) as opened:
            batch = _find_or_open(opened, request, name, folder)
            _follow(call, opened, batch)
            if checked is not None:
                _import(call, opened.ledger, batch, file, checked, digest, options=options, source=source)
            return buy_batch(
                opened, batch, request, settings, call.accounts, call.egress, groups, call.talk, places=file.places
            )


def go_on(call: Call, name: str) -> int:
    """Go on with a batch by its name: no input is read."""
    batch = _known(call, name)
    before = call.before
    if call.request.dry_run:
        with Reader(call.ledger_file) as reader:
            waiting = groups_of(reader, batch, call.accounts)
            settled = before.sealed_through - sum(group.count for group in waiting)
            folder, digest = Path(reader.batch(batch).folder), before.imports[-1].input_digest
            return _plan(call, waiting, digest, folder, reader, batch, settled=settled)
    check_accounts(call.accounts, call.egress)
    with opened_for_buying(call.ledger_file, create=False) as opened:
        _follow(call, opened, batch)
        return buy_batch(opened, batch, call.request, call.settings, call.accounts, call.egress, None, call.talk)


def _known(call: Call, name: str) -> int:
    """The number of the batch of this name.  Raises UserError where nothing of it can be bought without its input."""
    if call.request.new:
        raise UserError(
            "BD-020",
            "a new batch needs an input",
            where="--new",
            fix=f"give the input file; to buy all of {name} once more: bydawn rerun {name}",
        )
    with KnownBatches(call.ledger_file) as reader:
        batch = reader.batch_by_name(name) if reader else None
        if batch is None:
            raise no_batch_error(call.ledger_file, name, reader)
    if not call.before.sealed_through:
        raise _half_error(call.before, call.ledger_file)
    template = call.settings.text("name_template")
    if template and template != call.before.settings.name_template:
        raise UserError(
            "BD-021",
            "new file names need the input",
            where="--name-template",
            why="all rows are read to see that no two of them get the same name",
            fix="give the input file instead of the batch's name",
        )
    return batch


def _plan(
    call: Call,
    groups: Sequence[Group],
    input_digest: str,
    folder: Path,
    reader: Reader | None,
    batch: int | None,
    *,
    checked: Checked | None = None,
    settled: int = 0,
) -> int:
    """Say what buying ``groups`` would cost, beside what the batch has settled; nothing is sent."""
    request, settings, accounts = call.request, call.settings, call.accounts
    state = settings_now(call.before, request, settings)
    wanted, part = part_of(groups, state, settled=settled)
    quotes = quotes_of_plan(wanted, accounts, settings.config, call.egress, asking=request.quotes)
    plan = plan_of(state, wanted, accounts, quotes.book, settings.moment_us("deadline"))
    if request.save is not None:
        save(request.save, approval(plan, input_digest))
    lines: list[str] = []
    resumes: dict[str, int] | None = None
    if reader is not None and batch is not None and call.before.agreed is not None:  # it was bought from before
        found = resumed(reader, batch, state)
        lines, resumes = resume_lines(found, state), found.data()
    files = file_lines(checked, accounts) if checked is not None else ()
    notes = (*part, *lines, *files, *callback_lines(settings, call.before, accounts), *quotes.lines)
    return show_plan(request, plan, folder, checked, notes=notes, resumes=resumes)


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


def _checked(call: Call, name: str, file: InputFile, digest: str, folder: Path) -> Checked | None:
    """Read all of the input, unless its very tasks are those of the batch already: then nothing of it is checked."""
    template = call.settings.text("name_template")
    renamed = bool(template) and template != call.before.settings.name_template
    if _sealed(call.before, digest) and not renamed and not call.request.dry_run:
        if _files_are_missing(call.ledger_file, name):
            file.find_files()
        return None
    codecs = {account.provider: account.codec for account in call.accounts}
    checked = file.check(codecs, rejected=folder / "rejected.csv")
    file.require_usable(checked)
    if template:
        check_template(template, file.tasks, where=file.where)
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


def _follow(call: Call, opened: Opened, batch: int) -> None:
    """Put on record where the results lie now, and say where everything is."""
    follow_moved(opened, batch, named=named_folder(call.request, call.settings))
    say_where(opened.ledger.path, opened.ledger.batch(batch), call.talk, created=opened.created)


def _import(
    call: Call,
    ledger: Ledger,
    batch: int,
    file: InputFile,
    checked: Checked,
    digest: str,
    *,
    options: InputOptions,
    source: str,
) -> None:
    settings, talk = call.settings, call.talk
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
