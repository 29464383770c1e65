"""What ``bydawn image`` does: one image through the same ledger, as a task of a batch that holds all such images.

The batch is called ``single``; each call brings it one row.  So all that holds for a batch holds here too: consent,
budget, recovery, audit.  The same request again is the same task: its image is there already and is not bought again.
"""

import hashlib
import os
import re
import time
from pathlib import Path

import msgspec

from bydawn.errors import UserError
from bydawn.opening import opened_for_writing, operator
from bydawn.outfile import write_out
from bydawn.request import Request
from bydawn.running import start
from bydawn.selection import ledger_path
from ledger.commands import Cancel
from ledger.decisions import Append, Decision
from ledger.errors import LedgerError, LedgerMissing
from ledger.reader import Reader
from ledger.rules import decide_task
from ledger.streams import task_stream
from runtime.disk import create_private
from runtime.ports import DiskFailed, DiskFull

NAME = "single"
REQUEST = "request.jsonl"
_WORDS = 5  # of the prompt in the name of the image
_SAME = {".jpeg": ".jpg"}


class Wanted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wanted, in the words of the input's columns."""

    prompt: str
    images: tuple[str, ...] = ()
    model: str = ""
    aspect_ratio: str = ""
    resolution: str = ""

    @property
    def id(self) -> str:
        """The words of the prompt for people, and a digest of the whole request."""
        digest = hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:8]
        return "-".join([*re.findall(r"[a-z0-9]+", self.prompt.lower())[:_WORDS], digest])


class Made(msgspec.Struct, frozen=True):
    """The exit code of the run, the task, and where its image lies; None when there is none.

    ``other_type`` names the type of a copy whose file name says another one.
    """

    code: int
    task: str
    image: Path | None
    other_type: str = ""


def make(wanted: Wanted, request: Request, *, again: bool, copy_to: Path | None) -> Made:
    """Buy the image unless it is there.

    ``request`` carries the options of a run; input, name and folder are put in here.  ``again`` asks for one more image
    of a request that was made before; one that failed or was cancelled is asked for anew by itself.  Raises UserError.
    """
    ledger = ledger_path(request.ledger, sandbox=request.sandbox)
    folder = request.to.absolute() if request.to else ledger.parent / (f"{NAME}-sandbox" if request.sandbox else NAME)
    number = _which(ledger, wanted.id, again=again)
    task = f"{wanted.id}.v{number}"
    table = folder / REQUEST
    write_request(table, {"id": wanted.id, "n": number, **msgspec.to_builtins(wanted)})
    try:
        code = start(msgspec.structs.replace(request, target=str(table), name=NAME, to=folder))
    except UserError:
        _withdraw(ledger, task)
        raise
    image = _image(ledger, task)
    if image is None or copy_to is None:
        return Made(code, task, image)
    other = image.suffix if image.suffix != _SAME.get(copy_to.suffix.lower(), copy_to.suffix.lower()) else ""
    return Made(code, task, _copied(image, copy_to), other.removeprefix("."))


def _which(ledger: Path, row: str, *, again: bool) -> int:
    """Which image of the request is meant: 1 is the first that was asked for."""
    try:
        with Reader(ledger) as reader:
            batch = reader.batch_by_name(NAME)
            number = 0
            phase = ""
            while batch is not None and (task := reader.task_by_id(batch, f"{row}.v{number + 1}")) is not None:
                number, phase = number + 1, task.phase
    except LedgerMissing:
        return 1
    return number + (again or number == 0 or phase in ("failed", "cancelled"))


def write_request(table: Path, row: dict[str, object]) -> None:
    table.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = table.with_name(table.name + ".part")
    with os.fdopen(create_private(part), "wb") as file:
        file.write(msgspec.json.encode(row) + b"\n")
    os.replace(part, table)


def _withdraw(ledger: Path, task_id: str) -> None:
    """What was refused before it was bought (no consent, no key) must not be bought by the next call."""
    try:
        with opened_for_writing(ledger, create=False) as opened, opened.ledger.reader() as reader:
            batch = reader.batch_by_name(NAME)
            task = None if batch is None else reader.task_by_id(batch, task_id)
            if task is None or task.phase != "queued":
                return
            stream = task_stream(task.batch, task.n)
            state = reader.state(stream)
            events = decide_task(state, Cancel(operator=operator()))
            at_us = time.time_ns() // 1000
            opened.ledger.commit([Decision(appends=(Append(stream, state.version, events),), at_us=at_us)])
    except LedgerError:
        return  # not there yet, or another process has it: then nothing was brought in by this one


def _image(ledger: Path, task_id: str) -> Path | None:
    """The blob of the task's image, None while there is none."""
    with Reader(ledger) as reader:
        batch = reader.batch_by_name(NAME)
        task = None if batch is None else reader.task_by_id(batch, task_id)
        if batch is None or task is None or not task.sha256:
            return None
        folder = Path(reader.batch(batch).folder)
        linked = sorted((folder / "images").rglob(f"{task_id}.*"))
        return linked[0] if linked else folder / "blobs" / task.sha256[:2] / task.sha256


def _copied(image: Path, to: Path) -> Path:
    try:
        to.parent.stat()  # one that is not there is a slip of the pen
        write_out(to, [image.read_bytes()])
    except (OSError, DiskFull, DiskFailed) as exc:
        raise UserError(
            "BD-104",
            "the image cannot be copied",
            where=str(to),
            why=f"{exc}; it is safe at {image}",
            fix="copy it from there",
            exit_code=7,
        ) from exc
    return to
