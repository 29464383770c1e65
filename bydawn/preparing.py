"""What every command that buys a batch works out first: ledger, accounts, name and folder; and what is said of it."""

import json
import logging
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from bydawn.cli.formats import counted, harmless
from bydawn.cli.output import log_to_stderr as show_log
from bydawn.consent import plan_lines, refuse_uncovered
from bydawn.errors import UserError
from bydawn.importing import append_batch, usable_name
from bydawn.inputs import Checked
from bydawn.keys import chosen_accounts
from bydawn.opening import Opened, operator
from bydawn.request import Request, Settings
from bydawn.sandbox import find_or_start, practice_accounts
from bydawn.sealing import HEAD
from bydawn.webhooks import calling_of
from ledger.errors import LedgerMissing
from ledger.events import BatchConfigured, BatchOpened
from ledger.folds import EMPTY_BATCH, BatchState
from ledger.reader import Reader
from runtime.accounts import Account
from runtime.disk import RealDisk
from runtime.outputs import Marker, MarkerDamaged, read_marker, write_marker
from runtime.planning import Plan

_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


def log_to_stderr(verbose: int) -> None:
    show_log(_LEVELS[min(verbose, len(_LEVELS) - 1)], "%(asctime)s %(name)s: %(message)s")
    for chatty in ("httpx", "httpcore", "hpack"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def talker(quiet: bool) -> Callable[[str], None]:
    def talk(text: str) -> None:
        if not quiet:
            sys.stderr.write(harmless(text) + "\n")
            sys.stderr.flush()

    return talk


def named_ledger(request: Request, settings: Settings) -> Path | None:
    if request.ledger is not None:
        return request.ledger
    text = settings.text("ledger")
    return Path(text) if text and not request.sandbox else None


def accounts_for(request: Request, settings: Settings, ledger_file: Path, before: BatchState) -> list[Account]:
    """The accounts that are named now, else those the batch was last run with, else all that there are."""
    names = settings.many("provider", request.providers) or before.settings.providers or ()
    if not request.sandbox:
        return chosen_accounts(settings.config, names, need_keys=not request.dry_run)
    return practice_accounts(find_or_start(ledger_file), names)


def folder_for(request: Request, settings: Settings, name: str, ledger_file: Path) -> Path:
    named = named_folder(request, settings)
    if named is not None:
        return named
    return ledger_file.parent / (f"{name}-sandbox" if request.sandbox else name)


def named_folder(request: Request, settings: Settings) -> Path | None:
    given = str(request.to) if request.to else settings.text("to")
    return Path(given).absolute() if given else None


class KnownBatches:
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


def state_before(ledger_file: Path, name: str) -> BatchState:
    """How the batch of this name was left; empty where there is none."""
    with KnownBatches(ledger_file) as reader:
        batch = reader.batch_by_name(name) if reader else None
        return reader.batch(batch) if reader and batch is not None else EMPTY_BATCH


def say_where(ledger: Path, state: BatchState, talk: Callable[[str], None], *, created: bool) -> None:
    """The first line: ledger, batch and folder, and which of them is new."""
    new = " (new)" if created else ""
    fresh = " (new)" if state.agreed is None else ""
    practice = " [sandbox]" if state.sandbox else ""
    talk(f"ledger {ledger}{new} · batch {state.name}{fresh}{practice} → {state.folder}")


def callback_lines(settings: Settings, before: BatchState, accounts: Sequence[Account]) -> tuple[str, ...]:
    """What a plan says about callbacks: it changes no settings, so the options stand in for them."""
    url = settings.text("webhook_url") or before.settings.webhook_url or ""
    listen = settings.text("webhook_listen") or before.settings.webhook_listen or ""
    calling = calling_of(url, listen, accounts, settings.config.env)
    return calling.lines(accounts) if calling else ()


def show_plan(
    request: Request,
    plan: Plan,
    folder: Path,
    checked: Checked | None = None,
    *,
    notes: Sequence[str] = (),
    resumes: Mapping[str, int] | None = None,
) -> int:
    """Print the plan; raises UserError when some tasks could be bought nowhere.

    ``resumes``: what going on with a known batch means, as its lines in ``notes`` say.
    """
    free = RealDisk().free_bytes(next(path for path in (folder, *folder.parents) if path.exists()))
    if request.as_json:
        fields = {**msgspec.to_builtins(plan), "rows": checked.rows if checked else 0, "free_bytes": free}
        if checked is not None:
            fields |= {"local_files": checked.local_files, "local_bytes": checked.local_bytes}
        if resumes is not None:
            fields["resumes"] = resumes
        sys.stdout.write(json.dumps({"type": "plan", **fields}) + "\n")
    else:
        for line in plan_lines(plan, free_bytes=free):
            sys.stdout.write(harmless(line) + "\n")
        for provider, reasons in checked.refusals.items() if checked else ():
            for reason, times in reasons.items():
                sys.stdout.write(harmless(f"{provider} cannot take {counted(times, 'task')}: {reason}") + "\n")
        for line in notes:
            sys.stdout.write(harmless(line) + "\n")
        sys.stdout.write("Only prices were asked for.\n" if request.quotes else "Nothing was sent.\n")
    refuse_uncovered(plan)
    return 0


def refuse_mixed(state: BatchState, request: Request) -> None:
    """Raise where a practice batch would be gone on with as a real one, or the other way round."""
    if state.sandbox != request.sandbox:
        raise UserError(
            "BD-074",
            f"batch {state.name} is {'practice' if state.sandbox else 'real'}, this run is not",
            fix="add --sandbox" if state.sandbox else "leave --sandbox out",
        )


def no_batch_error(ledger_file: Path, name: str, reader: Reader | None) -> UserError:
    """What is said where the ledger has no batch of this name."""
    others = ", ".join(row.name for row in reader.batches()) if reader else ""
    return UserError(
        "BD-101",
        f"there is no batch named {name}",
        where=str(ledger_file),
        why=f"the batches are: {others}" if others else "no batch has been started here yet",
        fix="give the input file to start one: bydawn run FILE.csv",
        exit_code=10,
    )


def free_name(name: str, taken: Collection[str]) -> str:
    """The name itself, or with the first number behind it that makes it new."""
    fresh, number = name, 2
    while fresh in taken:
        fresh, number = f"{name}-{number}", number + 1
    return fresh


def new_batch(
    opened: Opened,
    name: str,
    folder: Path,
    *,
    sandbox: bool,
    rerun_of: int = 0,
    configured: BatchConfigured | None = None,
) -> int:
    """Open a batch in a folder that is nobody else's, and return its number.

    Args:
        rerun_of: the batch of which it wants everything again.
        configured: how it is run from the start.

    Raises:
        UserError: the folder belongs to another batch (exit 2).
    """
    usable_name(name)
    with opened.ledger.reader() as reader:
        ledger_id, number = reader.ledger_id(), reader.next_batch()
    try:
        marker = read_marker(RealDisk(), folder)
    except MarkerDamaged as exc:
        raise UserError("BD-075", str(exc), where=str(folder), fix="--to another folder") from exc
    # A process that was killed right here left its marker and nothing else: a folder that was bought into has a head.
    cut_short = marker == Marker(ledger=ledger_id, batch=number) and not (folder / HEAD).exists()
    if marker is not None and not cut_short:
        raise UserError(
            "BD-075",
            "the output folder belongs to another batch" + ("" if marker.ledger == ledger_id else " of another ledger"),
            where=str(folder),
            why="its .bydawn names a batch that this ledger does not know by this name",
            fix="--to another folder, or run with the ledger that made it: --ledger FILE",
        )
    write_marker(RealDisk(), folder, Marker(ledger=ledger_id, batch=number))
    born = BatchOpened(
        name=name, folder=str(folder.absolute()), sandbox=sandbox, operator=operator(), rerun_of=rerun_of
    )
    append_batch(opened.ledger, number, born, *((configured,) if configured is not None else ()))
    return number
