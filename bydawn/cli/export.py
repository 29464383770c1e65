"""``bydawn export``: one line per task, as in the manifest, for other programs."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from bydawn.cli.formats import counted
from bydawn.cli.options import ledger_options
from bydawn.cli.output import Ticker, talk
from bydawn.errors import UserError
from bydawn.selection import open_batch

if TYPE_CHECKING:
    from ledger.reader import BatchRow, Reader


@click.command()
@click.argument("batch", default="")
@click.option("--format", "form", type=click.Choice(("jsonl", "csv")), default="jsonl", show_default=True)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Else standard output."
)
@ledger_options
def export(batch: str, form: str, output: Path | None, ledger: Path | None, sandbox: bool) -> None:
    """One line per task as JSONL or CSV."""
    with open_batch(ledger, batch, sandbox=sandbox) as (reader, row):
        lines = jsonl(reader, row) if form == "jsonl" else as_csv(reader, row)
        ticker = Ticker(f"exporting {row.name}:", quiet=output is None)
        if output is None:
            for text in lines:
                sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()
            return
        number = write(output, lines, ticker)
        talk(f"{counted(number - (form == 'csv'), 'task')} of {row.name} in {output}")


def jsonl(reader: "Reader", batch: "BatchRow") -> Iterator[bytes]:
    from bydawn.manifest import manifest_rows
    from runtime.outputs import manifest_line

    return map(manifest_line, manifest_rows(reader, batch.batch))


def as_csv(reader: "Reader", batch: "BatchRow") -> Iterator[bytes]:
    """The same lines as cells.  Rows may carry different columns, so all are read once before for the header."""
    from runtime.outputs import FIELDS, csv_lines

    header = dict.fromkeys(FIELDS)
    for text in jsonl(reader, batch):
        header |= dict.fromkeys(_decoded(text))
    rows = (_decoded(text) for text in jsonl(reader, batch))
    return csv_lines(tuple(header), ([row.get(name) for name in header] for row in rows))


def _decoded(text: bytes) -> dict[str, str | int | float | bool | tuple[str, ...] | None]:
    return msgspec.json.decode(text, type=dict[str, str | int | float | bool | tuple[str, ...] | None])


def write(output: Path, lines: Iterator[bytes], ticker: Ticker) -> int:
    """Write the file whole or not at all; returns how many lines it has."""
    from bydawn.outfile import write_out
    from runtime.ports import DiskFailed, DiskFull

    number = 0

    def counted() -> Iterator[bytes]:
        nonlocal number
        for text in lines:
            number += 1
            ticker(number)
            yield text

    try:
        write_out(output, counted())
    except (DiskFull, DiskFailed) as error:
        raise UserError(
            "BD-104",
            f"{output} cannot be written",
            why=str(error),
            fix="another place: -o FILE; or leave -o out and redirect standard output",
            exit_code=7,
        ) from error
    finally:
        ticker.done()
    return number
