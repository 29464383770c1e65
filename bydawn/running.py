"""What ``run`` and ``plan`` do, step by step."""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from bydawn import importing, values
from bydawn.approval import approval, save
from bydawn.buying import check_accounts
from bydawn.cli.formats import count, counted
from bydawn.config import load_config, refuse_stray_ledger
from bydawn.consent import plan_lines, refuse_uncovered
from bydawn.errors import UserError
from bydawn.inputs import Checked, InputFile, InputOptions, fit_for, open_input, with_defaults_of
from bydawn.keys import chosen_accounts
from bydawn.localrefs import file_lines, files_are_missing
from bydawn.moving import follow_moved
from bydawn.naming import check_template
from bydawn.opening import Opened, held_error
from bydawn.practice import find_or_start, practice_accounts
from bydawn.quoting import quotes_of_plan
from bydawn.request import Request, Settings
from bydawn.saying import say_where
from bydawn.selection import ledger_path
from bydawn.shapes import groups_of
from bydawn.spending import buy_batch, plan_of
from bydawn.takeover import opened_for_buying
from bydawn.webhooks import calling_of
from ledger.errors import LedgerHeld, LedgerMissing
from ledger.folds import EMPTY_BATCH, BatchState
from ledger.journal import Ledger
from ledger.reader import Reader
from runtime.accounts import Account
from runtime.disk import RealDisk
from runtime.egress import Egress
from runtime.outputs import MarkerDamaged, read_marker
from runtime.planning import Plan

_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


def start(request: Request) -> int:
    """Plan or run; returns the exit code.  Raises UserError for whatever the user can mend."""
    _log_to_stderr(request.verbose)
    talk = _talker(request.quiet)
    settings = Settings(request, load_config(Path.cwd(), os.environ))
    named = importing.name_batch(request.target, request.name)
    ledger_file = ledger_path(_named_ledger(request, settings), sandbox=request.sandbox)
    egress = Egress.from_environment(os.environ)
    before = EMPTY_BATCH if request.new else _state_before(ledger_file, named.name)
    accounts = _accounts(request, settings, ledger_file, before)
    if named.input is None:
        return _continue(request, settings, named.name, ledger_file, before, accounts, egress, talk)
    records = [account.codec.capabilities for account in accounts]
    options = with_defaults_of(records, settings.input_options())
    folder = _folder(request, settings, named.name, ledger_file)
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
            quotes = quotes_of_plan(checked.groups, accounts, settings.config, egress, asking=request.quotes)
            plan = plan_of(settings, checked.groups, accounts, quotes.book, settings.moment_us("deadline"), before)
            if request.save is not None:
                save(request.save, approval(plan, digest))
            files, callbacks = file_lines(checked, accounts), _callback_lines(settings, before, accounts)
            notes = (*files, *callbacks, *quotes.lines)
            return _show_plan(request, plan, folder, checked, notes=notes)
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
                follow_moved(opened, batch, named=_named_folder(request, settings))
                say_where(opened.ledger.path, opened.ledger.batch(batch), talk, created=opened.created)
                if checked is not None:
                    _import(opened.ledger, batch, file, checked, digest, settings, request, options, named.input, talk)
                groups = checked.groups if checked is not None else None
                return buy_batch(opened, batch, request, settings, accounts, egress, groups, talk, places=file.places)
        except LedgerHeld as exc:
            raise held_error(ledger_file, exc) from exc


def _continue(
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
    with _KnownBatches(ledger_file) as reader:
        batch = reader.batch_by_name(name) if reader else None
        others = ", ".join(row.name for row in reader.batches()) if reader else ""
    if batch is None:
        raise UserError(
            "BD-101",
            f"there is no batch named {name}",
            where=str(ledger_file),
            why=f"the batches are: {others}" if others else "no batch has been started here yet",
            fix="give the input file to start one: bydawn run FILE.csv",
            exit_code=10,
        )
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
            left = groups_of(reader, batch, accounts)
            quotes = quotes_of_plan(left, accounts, settings.config, egress, asking=request.quotes)
            notes = (*_callback_lines(settings, before, accounts), *quotes.lines)
            left_plan = plan_of(settings, left, accounts, quotes.book, settings.moment_us("deadline"), before)
            return _show_plan(request, left_plan, Path(reader.batch(batch).folder), notes=notes)
    check_accounts(accounts, egress)
    try:
        with opened_for_buying(ledger_file, create=False) as opened:
            follow_moved(opened, batch, named=_named_folder(request, settings))
            say_where(opened.ledger.path, opened.ledger.batch(batch), talk, created=opened.created)
            return buy_batch(opened, batch, request, settings, accounts, egress, None, talk)
    except LedgerHeld as exc:
        raise held_error(ledger_file, exc) from exc


# --- before the ledger ------------------------------------------------------------------------------------


def _accounts(request: Request, settings: Settings, ledger_file: Path, before: BatchState) -> list[Account]:
    """The accounts that are named now, else those the batch was last run with, else all that there are."""
    names = settings.many("provider", request.providers) or before.settings.providers or ()
    if not request.sandbox:
        return chosen_accounts(settings.config, names, need_keys=not request.dry_run)
    return practice_accounts(find_or_start(ledger_file), names)


def _folder(request: Request, settings: Settings, name: str, ledger_file: Path) -> Path:
    named = _named_folder(request, settings)
    if named is not None:
        return named
    return ledger_file.parent / (f"{name}-sandbox" if request.sandbox else name)


def _named_folder(request: Request, settings: Settings) -> Path | None:
    given = str(request.to) if request.to else settings.text("to")
    return Path(given).absolute() if given else None


def _check(file: InputFile, accounts: Iterable[Account], folder: Path) -> Checked:
    codecs = {account.provider: account.codec for account in accounts}
    checked = file.check(codecs, rejected=folder / "rejected.csv")
    file.require_usable(checked)
    return checked


def _state_before(ledger_file: Path, name: str) -> BatchState:
    """How the batch of this name was left; empty where there is none."""
    with _KnownBatches(ledger_file) as reader:
        batch = reader.batch_by_name(name) if reader else None
        return reader.batch(batch) if reader and batch is not None else EMPTY_BATCH


def _sealed(before: BatchState, digest: str) -> bool:
    """Whether this very input is the batch's newest import: then nothing needs to be read again."""
    newest = before.imports[-1] if before.imports else None
    return newest is not None and newest.phase == "sealed" and newest.input_digest == digest


def _files_are_missing(ledger_file: Path, name: str) -> bool:
    with _KnownBatches(ledger_file) as reader:
        batch = reader.batch_by_name(name) if reader else None
        return reader is not None and batch is not None and files_are_missing(reader, batch)


class _KnownBatches:
    """A reader of the ledger, None while there is none."""

    def __init__(self, path: Path) -> None:
        try:
            self._reader: Reader | None = Reader(path)
        except LedgerMissing:  # also one whose making was cut short: it holds no batch yet
            self._reader = None

    def __enter__(self) -> Reader | None:
        return self._reader

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.close()


def _show_plan(
    request: Request,
    plan: Plan,
    folder: Path,
    checked: Checked | None = None,
    *,
    notes: Sequence[str] = (),
) -> int:
    """Print the plan; raises UserError when some tasks could be bought nowhere."""
    free = RealDisk().free_bytes(next(path for path in (folder, *folder.parents) if path.exists()))
    if request.as_json:
        fields = {**msgspec.to_builtins(plan), "rows": checked.rows if checked else 0, "free_bytes": free}
        if checked is not None:
            fields |= {"local_files": checked.local_files, "local_bytes": checked.local_bytes}
        sys.stdout.write(json.dumps({"type": "plan", **fields}) + "\n")
    else:
        for line in plan_lines(plan, free_bytes=free):
            sys.stdout.write(line + "\n")
        for provider, reasons in checked.refusals.items() if checked else ():
            for reason, times in reasons.items():
                sys.stdout.write(f"{provider} cannot take {counted(times, 'task')}: {reason}\n")
        for line in notes:
            sys.stdout.write(line + "\n")
        sys.stdout.write("Only prices were asked for.\n" if request.quotes else "Nothing was sent.\n")
    refuse_uncovered(plan)
    return 0


# --- with the ledger --------------------------------------------------------------------------------------


def _find_or_open(opened: Opened, request: Request, name: str, folder: Path) -> int:
    with opened.ledger.reader() as reader:
        batch = reader.batch_by_name(name)
        if batch is not None and not request.new:
            practice = reader.batch(batch).sandbox
            if practice != request.sandbox:
                raise UserError(
                    "BD-074",
                    f"batch {name} is {'practice' if practice else 'real'}, this run is not",
                    fix="add --sandbox" if practice else "leave --sandbox out",
                )
            return batch
        taken = {each.name for each in reader.batches()}
        ledger_id = reader.ledger_id()
    number = 2
    fresh = name
    while fresh in taken:
        fresh, number = f"{name}-{number}", number + 1
    if fresh != name:
        folder = folder.with_name(folder.name.replace(name, fresh, 1))
    try:
        marker = read_marker(RealDisk(), folder)
    except MarkerDamaged as exc:
        raise UserError("BD-075", str(exc), where=str(folder), fix="--to another folder") from exc
    if marker is not None:
        raise UserError(
            "BD-075",
            "the output folder belongs to another batch" + ("" if marker.ledger == ledger_id else " of another ledger"),
            where=str(folder),
            why="its .bydawn names a batch that this ledger does not know by this name",
            fix="--to another folder, or run with the ledger that made it: --ledger FILE",
        )
    return importing.open_batch(opened.ledger, fresh, folder=folder, sandbox=request.sandbox)


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
    shown = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal shown
        if total > 50_000 and time.monotonic() - shown > 1.0:
            shown = time.monotonic()
            talk(f"importing {count(done)} of {count(total)}")

    choices = importing.ImportChoices(
        dedupe=values.one_of(settings.text("dedupe") or "", ("", "share", "off"), where="--dedupe"),
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
        progress=progress,
    )
    if checked.bad_rows:
        talk(f"{counted(checked.bad_rows, 'bad row')} were left out: {checked.rejected}")
    talk(f"{counted(added, 'task')} added from {source}" if added else f"{source} adds nothing new")
    if added and checked.local_files:
        talk(f"{counted(checked.local_files, 'local reference file')}, {count(checked.local_bytes)} bytes")


def _callback_lines(settings: Settings, before: BatchState, accounts: Sequence[Account]) -> tuple[str, ...]:
    """What a plan says about callbacks: it changes no settings, so the options stand in for them."""
    url = settings.text("webhook_url") or before.settings.webhook_url or ""
    listen = settings.text("webhook_listen") or before.settings.webhook_listen or ""
    calling = calling_of(url, listen, accounts, settings.config.env)
    return calling.lines(accounts) if calling else ()


def _talker(quiet: bool) -> Callable[[str], None]:
    def talk(text: str) -> None:
        if not quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    return talk


def _named_ledger(request: Request, settings: Settings) -> Path | None:
    if request.ledger is not None:
        return request.ledger
    text = settings.text("ledger")
    return Path(text) if text and not request.sandbox else None


def _log_to_stderr(verbose: int) -> None:
    logging.basicConfig(
        level=_LEVELS[min(verbose, len(_LEVELS) - 1)], format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr
    )
    for chatty in ("httpx", "httpcore", "hpack"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
