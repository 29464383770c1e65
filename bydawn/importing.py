"""From an input file to tasks in the ledger: identity of the batch, differences, duplicates, import.

Nothing is bought here.  The whole input has been checked before; here it is compared with what the batch holds.
"""

import hashlib
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from bydawn.cli.formats import count, counted
from bydawn.errors import UserError
from bydawn.inputs import Checked, InputFile, InputOptions
from ledger.decisions import Append, Committed, Decision
from ledger.events import BatchEvent
from ledger.journal import Ledger
from ledger.streams import batch_stream

_MAX_NAME_BYTES = 200  # "-sandbox" or a number is put behind it
_SHARED_SHARE = 0.02  # above this share of shared rows the user is asked: the mapping may have lost a column


class BatchName(msgspec.Struct, frozen=True):
    """What the argument of ``run`` names: an input (with the batch it makes or continues), or a batch."""

    name: str
    input: str | None


def name_batch(argument: str, given: str) -> BatchName:
    """Tell INPUT from BATCH and name the batch; ``{date}`` in ``--name`` is today.

    A folder is no input: by default a batch's own output folder has its name and lies right here.
    """
    given = dated(given)
    if argument == "-":
        if not given:
            raise UserError("BD-020", "standard input has no name", fix="--name NAME")
        return BatchName(usable_name(given), "-")
    path = Path(argument)
    if "/" in argument or path.suffix or path.is_file():
        stem = path.name
        for ending in (".gz", ".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt"):
            stem = stem.removesuffix(ending)
        return BatchName(usable_name(given or stem or path.name), argument)
    return BatchName(argument, None)


def usable_name(name: str) -> str:
    """Return the name of a batch to be, or refuse it: it becomes a folder, and is typed in commands (SEC-2).

    Raises:
        UserError: it could lead out of its place, be taken for an option, or not be a file name at all.
    """
    if (
        name.isprintable()
        and not name.startswith((".", "-"))
        and not {"/", "\\"} & set(name)
        and 0 < len(name.encode()) <= _MAX_NAME_BYTES
    ):
        return name
    raise UserError(
        "BD-020",
        f"a batch cannot be named {name[:60]!r}",
        where="--name",
        why=f"it has no slashes or control characters, begins with neither . nor -, and has at most {_MAX_NAME_BYTES} "
        "bytes",
        fix="--name NAME",
    )


def dated(name: str) -> str:
    """A name as it was given, with ``{date}`` as today."""
    return name.replace("{date}", datetime.now().astimezone().date().isoformat())


def append_batch(ledger: Ledger, batch: int, *events: BatchEvent) -> None:
    """Make facts about a batch durable."""
    version = ledger.batch(batch).version
    decision = Decision(appends=(Append(batch_stream(batch), version, events),), at_us=time.time_ns() // 1000)
    (outcome,) = ledger.commit([decision])
    if not isinstance(outcome, Committed):
        raise AssertionError(f"batch-{batch}: {outcome}")  # we hold the only writer


def input_digest(checked_digest: str, options: InputOptions) -> str:
    """Digest of the input's bytes and of every option that shapes its tasks."""
    shape = msgspec.json.encode(msgspec.structs.replace(options, skip_invalid=False), order="deterministic")
    return hashlib.sha256(checked_digest.encode() + shape).hexdigest()


def telling(talk: Callable[[str], None]) -> Callable[[int, int], None]:
    """Return what an import tells its progress to: a line a second, of large tables only."""
    shown = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal shown
        if total > 50_000 and time.monotonic() - shown > 1.0:
            shown = time.monotonic()
            talk(f"importing {count(done)} of {count(total)}")

    return progress


class ImportChoices(msgspec.Struct, frozen=True):
    """``dedupe``: share, off, or empty = not said.  ``on_change``: error or keep."""

    dedupe: str = ""
    on_change: str = "error"


def import_input(
    ledger: Ledger,
    batch: int,
    file: InputFile,
    checked: Checked,
    digest: str,
    *,
    source: str,
    options: InputOptions,
    choices: ImportChoices,
    talk: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> int:
    """Bring the input into the batch, sealed; returns how many tasks were added.

    Raises:
        UserError: requests of known tasks changed, ids repeat, or many rows are the same (exit 2).
    """
    staged = ledger.stage(batch, file.tasks(), input_digest=digest)
    if staged.duplicates_count:
        first = "; ".join(f"{each.id} in rows {', '.join(map(str, each.lines))}" for each in staged.duplicates)
        raise UserError(
            "BD-016",
            f"{counted(staged.duplicates_count, 'id')} are given to more than one row",
            where=source,
            why=first,
            fix="ids must be unique; leave the id column out to have them made from the content",
        )
    if staged.changed_count and choices.on_change != "keep":
        raise UserError(
            "BD-070",
            f"{counted(staged.changed_count, 'known task')} would now want another image",
            where=source,
            why="first: " + ", ".join(staged.changed),
            fix="--on-change keep leaves them as they were; or run it as a batch of its own: --name NEW",
        )
    if staged.missing:
        talk(f"{counted(staged.missing, 'task')} of the batch are no longer in the input; they stay wanted")
    if staged.shared > staged.total * _SHARED_SHARE and choices.dedupe not in ("share", "off"):
        raise UserError(
            "BD-071",
            f"{count(staged.shared)} of {counted(staged.total, 'task')} ask for the same image as another one",
            where=source,
            why="usually the mapping forgot a column",
            fix="--dedupe share buys each once and shares it; --dedupe off buys every one; or mend --map",
        )
    imported = ledger.import_staged(
        batch,
        source=source,
        input_digest=digest,
        at_us=time.time_ns() // 1000,
        share=choices.dedupe != "off",
        mapping=dict(options.maps),
        progress=progress,
    )
    if imported.resumed:
        talk("went on with an import that was interrupted")
    if imported.dropped:
        talk(f"dropped {counted(imported.dropped, 'row')} of an interrupted import of another input")
    return imported.added
