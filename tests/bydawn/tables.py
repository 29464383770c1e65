"""Helpers for tests of the inputs: write a table, open it, collect rows and tasks."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from adapters.base import Codec
from adapters.registry import codec
from bydawn.inputs import Checked, InputOptions, open_input
from ledger.imports import NewTask
from runtime.requests import TaskRequest, decode_request

PROVIDERS = ("kie", "replicate", "segmind")
CODECS: dict[str, Codec] = {name: codec(name) for name in PROVIDERS}


def put(folder: Path, name: str, data: str | bytes) -> str:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def csv_text(header: Sequence[str], records: Iterable[Sequence[str]], *, delimiter: str = ",") -> str:
    """Write CSV by hand, every cell quoted, so that the tests do not trust the module that reads it."""

    def line(cells: Sequence[str]) -> str:
        return delimiter.join('"' + cell.replace('"', '""') + '"' for cell in cells) + "\n"

    return line(header) + "".join(map(line, records))


def read(
    path: str, options: InputOptions | None = None, *, rejected: Path | None = None
) -> tuple[Checked, list[NewTask]]:
    """Check and read an input that must be usable as far as ``options`` demand."""
    with open_input(path, options or InputOptions()) as opened:
        checked = opened.check(CODECS, rejected=rejected)
        opened.require_usable(checked)
        return checked, list(opened.tasks())


def check(path: str, options: InputOptions | None = None, *, rejected: Path | None = None) -> Checked:
    with open_input(path, options or InputOptions()) as table:
        return table.check(CODECS, rejected=rejected)


def requests(tasks: Iterable[NewTask]) -> list[TaskRequest]:
    return [decode_request(task.request) for task in tasks]


def ids(tasks: Iterable[NewTask]) -> list[str]:
    return [task.row + task.suffix for task in tasks]
