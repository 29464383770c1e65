"""A batch of the ledger as the input of another one: the same requests, from what is on record alone.

The texts are taken as they are, so that the same bytes are asked for.  A local reference counts by its digest: the
file is read again, and must still hold the bytes that it held.  What is not the same any more is a problem of its
task; a task whose text was erased is none, since that was somebody's will: it is counted and left out.

Like a table it is read twice, first to check everything, then as tasks for the ledger; a page at a time.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from adapters.base import Codec, ImageRequest
from adapters.references import LocalFile, local_file
from bydawn.errors import UserError
from bydawn.inputs.building import Problem
from bydawn.inputs.checking import Checked, RowSet
from bydawn.inputs.localfiles import MAX_FILE_BYTES, shown_path
from bydawn.inputs.rejected import Problems
from bydawn.inputs.tallies import Tallies
from bydawn.manifest import row_id
from ledger.imports import NewTask
from ledger.past import PastTask, followers, past_tasks
from ledger.reader import Reader
from runtime.requests import TaskRequest, decode_request, encode_request, request_key

COPIES = "references"
"""The folder of a batch in which ``--fit-references`` keeps its copies."""


class PastBatch:
    """The tasks of batch ``batch`` in the ledger at ``path``.

    ``share``: whether equal requests are bought once; None = as the batch did.
    """

    def __init__(self, path: Path, batch: int, *, share: bool | None = None) -> None:
        self._path = path
        self._batch = batch
        self.erased = 0
        with Reader(path) as reader:
            state = reader.batch(batch)
            self.name = state.name
            self.where = f"batch {state.name}"
            self.share = followers(reader, batch) > 0 if share is None else share
            sealed = [each for each in state.imports if each.phase == "sealed"]
            self.mapping = sealed[-1].mapping if sealed else {}
        self._files = _Files(Path(state.folder) / COPIES)
        self._left_out = RowSet()

    def check(self, codecs: Mapping[str, Codec], *, rejected: Path | None = None) -> Checked:
        """Read everything once and say what cannot be asked for again.

        Args:
            codecs: of the chosen providers, by provider name.
            rejected: where ``rejected.csv`` goes when there is something to report.
        """
        tallies, problems = Tallies(codecs), Problems(rejected)
        digest = hashlib.sha256(f"rerun {self._batch}".encode())
        rows = bad = 0
        self.erased, self._left_out = 0, RowSet()
        with Reader(self._path) as reader, problems:
            for task in past_tasks(reader, self._batch):
                rows += 1
                if task.request is None:
                    self.erased += 1
                    self._left_out.add(task.n)
                    continue
                problem = self._judge(task, decode_request(task.request), tallies, codecs)
                if problem is not None:
                    bad += 1
                    problems.add(problem)
                    self._left_out.add(task.n)
                    continue
                digest.update(f"{task.n} {task.queued.request.digest}\n".encode())
        groups = tallies.groups(shared=self.share)
        return Checked(
            rows=rows,
            tasks=sum(group.count for group in groups),
            bad_rows=bad,
            problems=tuple(problems.first),
            problem_count=problems.count,
            rejected=problems.rejected,
            digest=digest.hexdigest(),
            columns=(),
            groups=groups,
            refusals=tallies.refusals(),
            local_files=len(self._files.places),
            local_bytes=self._files.size,
        )

    @property
    def places(self) -> Mapping[str, str]:
        """Where the local references lie, by digest."""
        return self._files.places

    def tasks(self) -> Iterator[NewTask]:
        """Read again, yielding what can be asked for.

        Raises:
            UserError: a text was erased since :meth:`check`.
        """
        with Reader(self._path) as reader:
            for task in past_tasks(reader, self._batch):
                if task.n in self._left_out:
                    continue
                if task.request is None:
                    raise UserError("BD-017", "a task was erased meanwhile", where=self.where, fix="run it again")
                yield self._again(task, task.request)

    def _judge(
        self, task: PastTask, wanted: TaskRequest, tallies: Tallies, codecs: Mapping[str, Codec]
    ) -> Problem | None:
        """Count a task, or say why it cannot be asked for."""
        request = wanted.request

        def bad(field: str, reason: str) -> Problem:
            return Problem(task.queued.line, field, reason, task.queued.id)

        for reference in request.references:
            file = local_file(reference)
            if file is not None and (reason := self._files.problem(file)):
                return bad("images", reason)
        if wanted.provider and wanted.provider not in codecs:
            return bad("provider", f"{wanted.provider} is not among the chosen providers ({', '.join(codecs)})")
        takers = tallies.takers(request, provider=wanted.provider)
        if not takers:
            return bad(*tallies.untaken(request, provider=wanted.provider))
        tallies.add(request, takers, variant=task.queued.variant)
        return None

    def _again(self, task: PastTask, text: str) -> NewTask:
        queued = task.queued
        row = row_id(
            queued.id,
            model=queued.model,
            aspect=queued.aspect,
            resolution=queued.resolution,
            variant=queued.variant,
        )
        if queued.references:
            text = self._files.found_again(text)
        return NewTask(
            row=row,
            given=True,
            suffix=queued.id.removeprefix(row),
            request=text,
            request_key=task.key or request_key(decode_request(text).request, variant=queued.variant),
            model=queued.model,
            aspect=queued.aspect,
            resolution=queued.resolution,
            references=queued.references,
            variant=queued.variant,
            line=queued.line,
            group=queued.group,
        )


class _Files:
    """Local references, each looked at once."""

    def __init__(self, copies: Path) -> None:
        """``copies``: where fitted copies lie, should the batch's folder have been moved."""
        self._copies = copies
        self._problems: dict[LocalFile, str] = {}
        self.places: dict[str, str] = {}
        self.size = 0

    def problem(self, file: LocalFile) -> str:
        """Say why a file cannot be used again; empty when it can."""
        if file.sha256 in self.places:
            return ""
        if file not in self._problems:
            self._problems[file] = self._look(file)
        return self._problems[file]

    def found_again(self, text: str) -> str:
        """The text of a request with each file under the path where it was found; the same text where none moved."""
        wanted = decode_request(text)
        references = tuple(map(self._place, wanted.request.references))
        if references == wanted.request.references:
            return text
        request: ImageRequest = msgspec.structs.replace(wanted.request, references=references)
        return encode_request(request, wanted.columns, provider=wanted.provider)

    def _place(self, reference: str) -> str:
        file = local_file(reference)
        if file is None:
            return reference
        return msgspec.structs.replace(file, path=self.places.get(file.sha256, file.path)).text

    def _look(self, file: LocalFile) -> str:
        reason = ""
        for path in (Path(file.path), self._copies / Path(file.path).name):
            try:
                with path.open("rb") as opened:
                    data = opened.read(MAX_FILE_BYTES + 1)
            except OSError as exc:
                reason = reason or f"{shown_path(file.path)!r} cannot be read: {exc.strerror}"
                continue
            if file.is_made_of(data):
                self.places[file.sha256] = str(path)
                self.size += file.size
                return ""
            reason = f"{shown_path(str(path))!r} is not the file that it was"
        return reason
