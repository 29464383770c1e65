"""One line per task: what ``manifest.jsonl`` and ``bydawn export`` hold, and the name of each image.

All of it follows from the ledger alone, so that both can be deleted and come back the same, byte for byte (RES-7).
Tasks are read a page at a time and lines are yielded: a batch of a million needs no more memory than one of ten.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from adapters.base import ImageRequest
from adapters.references import local_file
from ledger.events import Recorded, TaskCompleted, TaskEvent, TaskQueued
from ledger.folds import EMPTY_TASK, BatchState, TaskPhase, TaskState, evolve_task
from ledger.reader import Reader
from ledger.streams import task_stream
from ledger.tasklist import TaskRow
from runtime.blobs import BlobStore
from runtime.names import image_name, render, with_ending
from runtime.outputs import ERRORS, MANIFEST, ManifestRow, error_line, manifest_line, write_lines
from runtime.ports import Disk, DiskFailed
from runtime.requests import TaskRequest, decode_request

_log = logging.getLogger(__name__)

PAGE = 1_000
TROUBLED: tuple[TaskPhase, ...] = ("failed", "held", "cancelled")
ERASED = "[erased]"

# per import: field -> column or template
Mappings: TypeAlias = Mapping[int, Mapping[str, str]]


class Naming:
    """How the images of a batch are named; the same for all time."""

    def __init__(self, batch: BatchState) -> None:
        # The first seal decides whether the folder is flat: it never changes, so no file moves when a batch grows.
        self._first_total = next((entry.last for entry in batch.imports if entry.phase == "sealed"), 0)
        self._template = batch.settings.name_template or ""

    @property
    def templated(self) -> bool:
        """Whether names are made from columns, so that ``name_of`` needs to know what was wanted."""
        return bool(self._template)

    def name_of(
        self,
        n: int,
        task_id: str,
        wanted: TaskRequest | None,
        *,
        aspect: str,
        resolution: str,
        variant: int,
        version: int,
    ) -> Path:
        """Return the place of an image in the batch's folder, without its ending.

        ``wanted`` None stands for a request that was erased: no template may tell its columns any more.
        """
        text = task_id
        if self._template and wanted is not None:
            model = wanted.request.model
            row = row_id(task_id, model=model, aspect=aspect, resolution=resolution, variant=variant)
            fields = template_fields(
                task_id, row, wanted, aspect=aspect, resolution=resolution, variant=variant, version=version
            )
            text = render(self._template, fields)
        return image_name(text, n=n, first_total=self._first_total)

    def name_of_task(self, n: int, queued: TaskQueued, wanted: TaskRequest | None, *, version: int) -> Path:
        """The same of a task as it was queued."""
        return self.name_of(
            n,
            queued.id,
            wanted,
            aspect=queued.aspect,
            resolution=queued.resolution,
            variant=queued.variant,
            version=version,
        )


def template_fields(
    task_id: str, row: str, wanted: TaskRequest, *, aspect: str, resolution: str, variant: int, version: int
) -> dict[str, str]:
    """What a name template may name: the columns that travel along, and what tells tasks apart."""
    return {
        **wanted.columns,
        "id": task_id,
        "row": row,
        "aspect": aspect.replace(":", "x"),
        "resolution": resolution,
        "model": wanted.request.model,
        "variant": str(variant),
        "version": str(version),
    }


def row_id(task_id: str, *, model: str, aspect: str, resolution: str, variant: int) -> str:
    """The id of the input row: the task's id without the parts that were fanned out."""
    for part in (f".v{variant}", f".{model}", f".{resolution}", f".{aspect}"):
        if len(part) < len(task_id):
            task_id = task_id.removesuffix(part)
    return task_id


def write_outputs(reader: Reader, batch: int, disk: Disk) -> None:
    """Write ``manifest.jsonl`` and ``errors.jsonl`` into the batch's folder, each whole or not at all, and put back the
    names of images that are not there any more (RES-7).  Blocking.

    Raises:
        DiskFull, DiskFailed: the files of before are still there.
    """
    folder = Path(reader.batch(batch).folder)
    store = BlobStore(disk, folder)
    write_lines(disk, folder / MANIFEST, map(manifest_line, _put_back(manifest_rows(reader, batch), store)))
    # A pass of its own: it is short, and only one file is open at a time.
    troubled = (row for row in manifest_rows(reader, batch, states=TROUBLED))
    write_lines(disk, folder / ERRORS, (text for row in troubled if (text := error_line(row)) is not None))


def manifest_rows(reader: Reader, batch: int, *, states: tuple[TaskPhase, ...] = ()) -> Iterator[ManifestRow]:
    """Yield the tasks of the batch in input order, all or those in ``states``."""
    state = reader.batch(batch)
    naming = Naming(state)
    mappings = {each.number: each.mapping for each in state.imports}

    @lru_cache(maxsize=10_000)
    def id_of(n: int) -> str | None:
        owner = reader.task(batch, n)
        return None if owner is None else owner.id

    after = 0
    while page := reader.tasks(batch, after=after, limit=PAGE, states=states):
        for row in page:
            owner = row.shared_with or row.owner
            yield _line(reader, row, naming, mappings, shared_with=id_of(owner) if owner else None)
        after = page[-1].n


def _put_back(rows: Iterator[ManifestRow], store: BlobStore) -> Iterator[ManifestRow]:
    """Pass the rows on, and give each image its name again: it is not durable by itself, and people move files."""
    for row in rows:
        if row.file is not None and row.sha256 is not None:
            try:
                store.put_back(row.sha256, Path(row.file))
            except DiskFailed as exc:  # the image is in its place all the same; `verify` will show it
                _log.warning("%s could not be put back: %s", row.file, exc)
        yield row


def _history(reader: Reader, row: TaskRow) -> tuple[TaskState, int]:
    """The state of a task, and when its image was completed (0 = never)."""
    state, done_at_us = EMPTY_TASK, 0
    for recorded in _events(reader, task_stream(row.batch, row.n)):
        event: TaskEvent = recorded.event  # type: ignore[assignment]  # a task's stream holds nothing else
        state = evolve_task(state, event, epoch=recorded.epoch, at_us=recorded.at_us)
        if isinstance(event, TaskCompleted):
            done_at_us = recorded.at_us
    return state, done_at_us


def _events(reader: Reader, stream: int) -> Iterator[Recorded]:
    after = 0
    while page := reader.events(stream=stream, after=after):
        yield from page
        after = page[-1].version


def _columns(row: TaskRow, state: TaskState, wanted: TaskRequest, mappings: Mappings) -> dict[str, str]:
    """The columns of the input: what was asked for under the names it had there, then what was carried along."""
    mapping = mappings.get(state.queued.number, {}) if state.queued else {}

    def column(field: str) -> str:
        name = mapping.get(field, field)
        return field if "{" in name else name  # a template has no column of its own

    asked = {column("prompt"): wanted.request.prompt}
    if wanted.request.references:
        asked[column("images")] = _cell(wanted.request.references)
    asked |= {column("aspect_ratio"): row.aspect, column("resolution"): row.resolution}
    return asked | wanted.columns


def _cell(references: Sequence[str]) -> str:
    """References as an input would name them: local files by their path."""
    names = [file.path if (file := local_file(reference)) else reference for reference in references]
    plain = not any(mark in name for name in names for mark in "|;")
    return "|".join(names) if plain else msgspec.json.encode(names).decode()


def _line(reader: Reader, row: TaskRow, naming: Naming, mappings: Mappings, *, shared_with: str | None) -> ManifestRow:
    state, done_at_us = _history(reader, row)
    text = reader.payload(row.request.row)
    stored = None if text is None else decode_request(text)
    wanted = stored or TaskRequest(ImageRequest(ERASED, row.model))
    line = ManifestRow(
        id=row.id,
        row=row_id(row.id, model=row.model, aspect=row.aspect, resolution=row.resolution, variant=row.variant),
        status=row.phase,
        provider=row.provider or None,
        account=row.account or None,
        model=row.model,
        attempts=row.attempts,
        cost_microusd=row.cost_microusd,
        shared_with=shared_with,
        error=(row.reason or row.phase) if row.phase in TROUBLED else None,
        columns=_columns(row, state, wanted, mappings),
    )
    result = state.current
    if result is None:
        return line
    name = naming.name_of(
        row.n,
        row.id,
        stored,
        aspect=row.aspect,
        resolution=row.resolution,
        variant=row.variant,
        version=result.version,
    )
    bought = state.attempt(result.attempt)
    return replace(
        line,
        file=None if state.files_erased else with_ending(name, result.media_type).as_posix(),
        sha256=result.sha256,
        media_type=result.media_type,
        width=result.width,
        height=result.height,
        model_version=result.model_version or None,
        version=result.version,
        review=result.verdict or None,
        review_note=reader.payload(result.note.row) if result.note is not None else None,
        flags=result.flags,
        seconds=round((done_at_us - bought.intended_at_us) / 1e6, 3) if bought is not None and done_at_us else None,
    )
