"""``bydawn verify``: does the ledger agree with itself, and the disk with the ledger?

Everything is replayed from the first event: the chain of hashes, the order, the legality of each step, the books and
the views.  Then every image that the ledger promises is hashed again.  Nothing is repaired.
"""

from contextlib import suppress
from pathlib import Path

import click
import msgspec

from bydawn.blobcheck import Broken, Promise, broken_images
from bydawn.cli.formats import count, counted
from bydawn.cli.options import json_option, ledger_options
from bydawn.cli.output import Ticker, bad, good, json_line, line
from bydawn.errors import UserError
from bydawn.selection import open_batch, open_ledger, readable_ledgers
from ledger.audit import SealedHead, check_against, export_head
from ledger.audit import verify as audit
from ledger.erasing import erased_texts
from ledger.errors import LedgerDamaged, LedgerNewer

MISMATCH = 13
SHOWN = 20


@click.command()
@click.argument("batch", default="")
@click.option("--no-files", is_flag=True, help="Only the ledger; leave the image files unread.")
@click.option(
    "--seal", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the head of the chain there."
)
@click.option(
    "--against",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    metavar="FILE",
    help="A head sealed earlier: the ledger must still contain it.",
)
@json_option
@ledger_options
def verify(
    batch: str,
    no_files: bool,
    seal: Path | None,
    against: Path | None,
    as_json: bool,
    ledger: Path | None,
    sandbox: bool,
) -> int:
    """Check the ledger against itself and against the image files."""
    if batch:
        with open_batch(ledger, batch, sandbox=sandbox) as (reader, row):
            paths, number = [reader.path], row.batch
    else:
        paths, number = readable_ledgers(ledger, sandbox=sandbox), 0
    if seal or against:
        paths = paths[:1]  # a head is that of one ledger
    sealed = read_seal(against) if against else None
    agreed = [check(path, number, files=not no_files, sealed=sealed, as_json=as_json) for path in paths]
    if seal and all(agreed):
        write_seal(seal, export_head(paths[0]))
    return 0 if all(agreed) else MISMATCH


def write_seal(path: Path, head: SealedHead) -> None:
    from bydawn.outfile import write_out
    from runtime.ports import DiskFailed, DiskFull

    try:
        write_out(path, [msgspec.json.encode(head) + b"\n"])
    except (DiskFull, DiskFailed) as error:
        raise UserError(
            "BD-104", f"{path} cannot be written", why=str(error), fix="another place: --seal FILE", exit_code=7
        ) from error


def read_seal(path: Path) -> SealedHead:
    try:
        return msgspec.json.decode(path.read_bytes(), type=SealedHead)
    except (msgspec.DecodeError, RecursionError, OSError) as error:
        raise UserError(
            "BD-020", f"{path} is no sealed head", why=str(error), fix="make one with: bydawn verify --seal FILE"
        ) from error


def check(path: Path, batch: int, *, files: bool, sealed: SealedHead | None, as_json: bool) -> bool:
    """Check one ledger and its files; say what was found and whether all is well."""
    ticker = Ticker(f"{path.name}: events", quiet=as_json)
    report = audit(path, ticker)
    ticker.done()
    against = check_against(path, sealed) if sealed else None
    problems = (*report.problems, against) if against else report.problems
    read, broken = (0, list[Broken]())
    if files:
        try:
            read, broken = check_files(path, batch, as_json=as_json)
        except LedgerDamaged:  # by what the audit has named; else it is news
            if report.ok:
                raise
            files = False
    with open_ledger(path) as reader:
        erased = erased_texts(reader)
    total = sum(report.counts.values()) + (against is not None) + len(broken)
    if as_json:
        for problem in problems:
            json_line("problem", code=problem.code, place=problem.place, text=problem.text)
        for entry in broken:
            promise = entry.promise
            json_line(
                "problem",
                code="file",
                place=str(promise.path),
                text=entry.text,
                seq=promise.seq,
                task=promise.task,
            )
        json_line(
            "verified",
            ledger=str(path),
            ok=not total,
            events=report.events,
            head=report.head,
            files=read,
            erased=erased,
            problems=total,
        )
    else:
        for problem in problems:
            line(f"{bad(problem.code)} at {problem.place}: {problem.text}")
        for entry in broken[:SHOWN]:
            line(f"{bad('file')} {entry.promise.path}: {entry.text} ({named(entry.promise)})")
        if problems and {problem.code for problem in problems} <= {"views", "books"}:
            line("  only views and books differ: one was changed, or the last events were cut off; a head that was")
            line("  sealed later tells which: bydawn verify --against sealed-head.json (in the folder of the batch)")
        if any(entry.promise.blob for entry in broken):
            line("  names under images/ are links to blobs/: bydawn run BATCH puts back those that are missing, and")
            line("  leaves another file under such a name alone until you remove it")
        hidden = total - len(problems) - min(len(broken), SHOWN)
        if hidden:
            line(f"and {count(hidden)} more of the same kinds")
        parts = [f"{count(report.events)} events", f"{count(read)} files hashed" if files else "files not read"]
        parts += [f"{counted(erased, 'text')} erased"] if erased else []
        verdict = bad(f"{counted(total, 'problem')}") if total else good("all agrees")
        line(f"{path}: {verdict} ({', '.join(parts)}; head {report.head[:16]}…)")
    return not total


def named(promise: Promise) -> str:
    return f"event {promise.seq}, task {promise.task}"


def check_files(path: Path, batch: int, *, as_json: bool) -> tuple[int, list[Broken]]:
    ticker = Ticker(f"{path.name}: files", quiet=as_json)
    read = 0

    def progress(done: int) -> None:
        nonlocal read
        read = done
        ticker(done)

    with open_ledger(path) as reader:
        batches = {}
        for row in reader.batches():
            with suppress(LedgerDamaged, LedgerNewer):  # the audit names the event that cannot be read
                batches[row.batch] = reader.batch(row.batch)
        broken = list(broken_images(reader, batches, batch=batch, progress=progress))
    ticker.done()
    return read, broken
