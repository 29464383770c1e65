"""``rejected.csv``: every row that is not usable, with column and reason.

The values come from the user's table and end in a spreadsheet, so cells that a spreadsheet would run as a
formula are neutralised, and each text is quoted (SEC-5).
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from bydawn.inputs.building import Problem
from runtime.disk import create_private
from runtime.outputs import csv_writer

KEPT_PROBLEMS = 1000
_VALUE_CHARS = 200


class RejectedFile:
    """Writes problems as they are found; the file appears under its name when all are in it, or not at all.

    A file of an earlier check is removed when there is nothing to report.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = path.with_name(path.name + ".part")
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            if kind is None:
                self.path.unlink(missing_ok=True)
            return
        self._file.close()
        if kind is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)

    def write(self, problem: Problem) -> None:
        if self._file is None:
            self._file = self._open()
            self._file.write("row,column,reason,value\r\n")
        csv_writer(self._file)((problem.row, problem.column, problem.reason, problem.value[:_VALUE_CHARS]))

    def _open(self) -> TextIO:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.fdopen(create_private(self._part), "w", encoding="utf-8", errors="replace", newline="")


class Problems:
    """The problems of one reading: the first thousand are kept, all are counted and go to ``rejected.csv``."""

    def __init__(self, path: Path | None) -> None:
        self.first: list[Problem] = []
        self.count = 0
        self._file = RejectedFile(path) if path is not None else None

    @property
    def rejected(self) -> Path | None:
        """Where they all stand, None when there are none, or nobody asked."""
        return self._file.path if self._file is not None and self.count else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.__exit__(kind, exc, trace)

    def add(self, problem: Problem) -> None:
        self.count += 1
        if len(self.first) < KEPT_PROBLEMS:
            self.first.append(problem)
        if self._file is not None:
            self._file.write(problem)
