"""An opened input: checked once, then read again as tasks for the ledger.

Both readings go through the file from start to end and keep nothing but counters, so that a million rows cost
no more memory than a thousand.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import msgspec

from adapters.base import Codec, ImageRequest
from bydawn.errors import UserError
from bydawn.inputs.building import Builder
from bydawn.inputs.checking import Check, Checked, RowSet, bad_rows_error
from bydawn.inputs.copies import Fit
from bydawn.inputs.formats import find_format
from bydawn.inputs.jsons import JsonReader
from bydawn.inputs.localfiles import LocalFiles
from bydawn.inputs.mapping import Columns, compile_mapping
from bydawn.inputs.options import (
    DEFAULT_ASPECT,
    MAX_VARIANTS,
    InputOptions,
)
from bydawn.inputs.rows import Row
from bydawn.inputs.source import Source, copy_stream
from bydawn.inputs.tables import TableReader
from ledger.imports import NewTask
from runtime.requests import encode_request, request_key


class Reader(Protocol):
    """One format.  ``columns`` is empty when they are only known from the rows."""

    @property
    def columns(self) -> tuple[str, ...]: ...

    def rows(self) -> Iterator[Row]: ...


class InputFile:
    """Use as a context manager: standard input lies in a temporary file until the end."""

    def __init__(
        self,
        source: Source,
        reader: Reader,
        columns: Columns,
        options: InputOptions,
        *,
        folder: Path,
        fit: Fit | None = None,
    ) -> None:
        """``folder`` is where the relative paths of the rows begin."""
        self.where = source.where
        self._source = source
        self._reader = reader
        self._columns = columns
        self._options = options
        self._files = LocalFiles(fit)
        self._builder = Builder(columns, options, self._files, folder)
        self._bad: RowSet | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes as given, hex; reads them once if nobody has yet."""
        if not self._source.digest:
            self._source.survey()
        return self._source.digest

    def check(self, codecs: Mapping[str, Codec], *, rejected: Path | None = None) -> Checked:
        """Read everything once and say what is wrong with it.

        Args:
            codecs: of the chosen providers, by provider name.
            rejected: where ``rejected.csv`` goes when there is something to report.

        Raises:
            UserError: when the input as a whole is not usable.  Bad rows alone do not raise.
        """
        _refuse_impossible(codecs, self._options)
        open_columns = not self._reader.columns
        check = Check(self._builder, codecs, rejected=rejected)
        check.run(
            self._reader.rows(),
            self._reader.rows(),
            open_columns=open_columns,
            lenient=self._source.lenient or bool(self._options.encoding),
        )
        columns = self._reader.columns or tuple(sorted(check.seen_columns))
        if open_columns and check.seen_columns:
            self._columns.check(columns, where=self.where)
        if check.rows == 0:
            raise UserError("BD-016", "the input has no rows", where=self.where, fix="check that it is the right file")
        self._bad = check.bad
        return check.result(digest=self._source.digest, columns=columns, files=self._files)

    @property
    def places(self) -> Mapping[str, str]:
        """Where the local references that were read so far lie, by digest."""
        return self._files.places

    def find_files(self) -> None:
        """Look for the local references of all rows, of an input that was checked and imported earlier: they may have
        been moved with it.  What is not usable any more is passed over."""
        for row in self._reader.rows():
            if not row.problem:
                self._builder.build(row.number, row.cells)

    def require_usable(self, checked: Checked) -> None:
        """Raise unless all rows are usable, or the user chose to leave the others out and some remain."""
        if checked.bad_rows and not (self._options.skip_invalid and checked.tasks):
            raise bad_rows_error(checked, where=self.where)

    def tasks(self) -> Iterator[NewTask]:
        """Read again, yielding the tasks of all usable rows in order.

        Raises:
            UserError: at the end, when the input is not the one that was checked.
        """
        bad = self._bad
        if bad is None:
            raise ValueError("an input is checked before its tasks are read")
        builder = self._builder
        for row in self._reader.rows():
            if row.number in bad:
                continue
            wanted = builder.build(row.number, row.cells)
            if isinstance(wanted, tuple):
                raise self._changed()
            given = bool(wanted.given_id)
            row_id = wanted.given_id or builder.content_key(row.cells)
            columns = builder.carried(row.cells)
            for request, suffix, variant in wanted.requests:
                yield NewTask(
                    row=row_id,
                    given=given,
                    suffix=suffix,
                    request=encode_request(request, columns, provider=wanted.provider),
                    request_key=request_key(request, variant=variant),
                    model=request.model,
                    aspect=request.aspect,
                    resolution=request.resolution,
                    references=len(request.references),
                    variant=variant,
                    line=row.number,
                    group=wanted.group,
                )

    def _changed(self) -> UserError:
        return UserError(
            "BD-017",
            "the input changed while it was being read",
            where=self.where,
            fix="run the same command again when nothing writes to the file",
        )


def open_input(path: str, options: InputOptions, *, stdin: BinaryIO | None = None, fit: Fit | None = None) -> InputFile:
    """Open a table of wanted images; ``-`` is standard input.

    Args:
        fit: make copies of local references that are not taken as they are.

    Raises:
        UserError: when it cannot be read, or the options do not fit it.
    """
    options = _normal(options)
    if path == "-":
        name, where, folder = "", "standard input", Path.cwd()
        source = Source(copy_stream(stdin or sys.stdin.buffer), where=where, encoding=options.encoding, temporary=True)
    else:
        name, where, folder = Path(path).name, path, Path(path).absolute().parent
        source = Source(Path(path), where=where, encoding=options.encoding)
    try:
        source.survey()
        form = find_format(source, name=name)
        reader: Reader
        if form.name in ("csv", "tsv"):
            reader = TableReader(source, form)
        else:
            reader = JsonReader(source, array=form.name == "json")
        columns = compile_mapping(options.maps, reader.columns or None, where=where)
        return InputFile(source, reader, columns, options, folder=folder, fit=fit)
    except BaseException:
        source.close()
        raise


def _normal(options: InputOptions) -> InputOptions:
    if options.variants is not None and not 1 <= options.variants <= MAX_VARIANTS:
        raise UserError("BD-020", f"not a number from 1 to {MAX_VARIANTS}", where="--variants")
    return msgspec.structs.replace(
        options,
        aspects=tuple(dict.fromkeys(options.aspects)),
        resolutions=tuple(dict.fromkeys(resolution.upper() for resolution in options.resolutions)),
        models=tuple(dict.fromkeys(options.models)),
    )


def _refuse_impossible(codecs: Mapping[str, Codec], options: InputOptions) -> None:
    """Refuse option values that no chosen provider takes in any row, instead of a million bad rows."""
    for model in options.models or (options.default_model,):
        for option, field, values in (
            ("--model", "model", (model,)),
            ("--aspect", "aspect", options.aspects),
            ("--resolution", "resolution", options.resolutions),
        ):
            for value in values:
                plain = ImageRequest("x", model, DEFAULT_ASPECT, options.default_resolution)
                asked = msgspec.structs.replace(plain, **{field: value})
                edit = msgspec.structs.replace(asked, references=("https://example.com/reference.png",))
                reasons = [codec.problem(asked) for codec in codecs.values()]
                if None in reasons or any(codec.problem(edit) is None for codec in codecs.values()):
                    continue
                raise UserError(
                    "BD-018",
                    f"no chosen provider takes {value!r}",
                    where=option,
                    why="; ".join(dict.fromkeys(reason for reason in reasons if reason)),
                    fix="choose another value, or another provider",
                )
