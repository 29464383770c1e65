"""The first reading of an input: everything is checked before anything is staged or sent.

Every unusable row is reported with row, column and reason; the first thousand are kept, all go to
``rejected.csv``.  A row is usable when each of its requests is taken by at least one chosen provider; what the
others refuse is counted with their reasons, for the plan.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from adapters.base import Codec, ImageRequest
from bydawn.errors import UserError
from bydawn.inputs.building import Builder, Problem, Wanted
from bydawn.inputs.localfiles import LocalFiles
from bydawn.inputs.rejected import Problems
from bydawn.inputs.repeats import Repeats
from bydawn.inputs.rows import Row
from bydawn.inputs.tallies import Tallies
from runtime.planning import Group

_EXCERPT_CHARS = 200


class Checked(msgspec.Struct, frozen=True):
    """What the first reading found.

    ``tasks`` and ``groups`` count the usable rows only.  ``refusals`` says per provider what it cannot take and
    how often, though another one can.  ``problems`` holds the first thousand of ``problem_count``; a row may
    have several, ``bad_rows`` counts it once.  ``local_files`` counts different usable files, by their bytes.
    """

    rows: int
    tasks: int
    bad_rows: int
    problems: tuple[Problem, ...]
    problem_count: int
    rejected: Path | None
    digest: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    refusals: dict[str, dict[str, int]]
    local_files: int = 0
    local_bytes: int = 0


class RowSet:
    """Row numbers, a bit each."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self.count = 0

    def add(self, row: int) -> None:
        byte = row >> 3
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits)))
        if row not in self:
            self._bits[byte] |= 1 << (row & 7)
            self.count += 1

    def __contains__(self, row: int) -> bool:
        byte = row >> 3
        return byte < len(self._bits) and bool(self._bits[byte] >> (row & 7) & 1)


class Check:
    """One check.  ``bad`` holds the rows that the second reading leaves out."""

    def __init__(self, builder: Builder, codecs: Mapping[str, Codec], *, rejected: Path | None) -> None:
        self.bad = RowSet()
        self.rows = 0
        self.seen_columns: set[str] = set()
        self._builder = builder
        self._codecs = codecs
        self._tallies = Tallies(codecs)
        self._given = Repeats()
        self._problems = Problems(rejected)

    def run(self, rows: Iterator[Row], again: Iterator[Row], *, open_columns: bool, lenient: bool) -> None:
        """Read all rows.

        Args:
            again: the same rows once more, read only when an id seems to be repeated.
            open_columns: the columns are only known from the rows: collect them.
            lenient: cells may hold bytes that could not be decoded.
        """
        with self._problems:
            for row in rows:
                self.rows += 1
                if row.problem:
                    self._report(Problem(row.number, "", row.problem, row.text))
                    continue
                if open_columns:
                    self.seen_columns.update(row.cells)
                if lenient and (spoilt := _undecodable(row)) is not None:
                    self._report(spoilt)
                    continue
                wanted = self._builder.build(row.number, row.cells)
                if isinstance(wanted, tuple):
                    for problem in wanted:
                        self._report(problem)
                else:
                    self._judge_row(wanted)
            suspects = self._given.suspects()
            if suspects:
                self._find_repeated(again, suspects)

    def result(self, *, digest: str, columns: tuple[str, ...], files: LocalFiles) -> Checked:
        groups = self._tallies.groups()
        return Checked(
            rows=self.rows,
            tasks=sum(group.count for group in groups),
            bad_rows=self.bad.count,
            problems=tuple(self._problems.first),
            problem_count=self._problems.count,
            rejected=self._problems.rejected,
            digest=digest,
            columns=columns,
            groups=groups,
            refusals=self._tallies.refusals(),
            local_files=files.count,
            local_bytes=files.size,
        )

    def _judge_row(self, wanted: Wanted) -> None:
        judged: list[tuple[ImageRequest, int, tuple[str, ...]]] = []
        if wanted.provider and wanted.provider not in self._codecs:
            chosen = ", ".join(self._codecs)
            reason = f"{wanted.provider} is not among the chosen providers ({chosen})"
            self._report(Problem(wanted.row, self._builder.label("provider"), reason, wanted.provider))
            return
        for request, _, variant in wanted.requests:
            takers = self._tallies.takers(request, provider=wanted.provider)
            if not takers:
                self._report(self._untaken(wanted, request))
                return
            judged.append((request, variant, takers))
        if wanted.given_id:
            self._given.add(wanted.given_id)
        for request, variant, takers in judged:
            self._tallies.add(request, takers, variant=variant)

    def _uncount(self, row: Row) -> None:
        """Take a row out of the tallies that turned out to be unusable later."""
        wanted = self._builder.build(row.number, row.cells)
        assert isinstance(wanted, Wanted)
        for request, _, variant in wanted.requests:
            self._tallies.discard(request, provider=wanted.provider, variant=variant)

    def _untaken(self, wanted: Wanted, request: ImageRequest) -> Problem:
        field, reason = self._tallies.untaken(request, provider=wanted.provider)
        return Problem(wanted.row, self._builder.label(field), reason)

    def _find_repeated(self, again: Iterator[Row], suspects: set[int]) -> None:
        """Compare the suspects as text: ids whose hashes are equal by chance are not repeated."""
        first: dict[str, int] = {}
        for row in again:
            if row.problem or row.number in self.bad:
                continue
            given = self._builder.given_id(row.cells)
            if given and hash(given) in suspects:
                earlier = first.setdefault(given, row.number)
                if earlier != row.number:
                    self._uncount(row)
                    self._report(
                        Problem(row.number, self._builder.label("id"), f"row {earlier} has the same id", given)
                    )

    def _report(self, problem: Problem) -> None:
        self.bad.add(problem.row)
        self._problems.add(problem)


def _undecodable(row: Row) -> Problem | None:
    for column, cell in row.cells.items():
        if not cell.isascii():
            try:
                cell.encode()
            except UnicodeEncodeError:
                shown = cell.encode(errors="replace").decode()[:_EXCERPT_CHARS]
                return Problem(row.number, column, "bytes that are not in the input's encoding (see --encoding)", shown)
    return None


def bad_rows_error(checked: Checked, *, where: str) -> UserError:
    """What the command says when rows are not usable and it was not told to leave them out."""
    listed = [f"row {p.row}, {p.column or 'whole row'}: {p.reason}" for p in checked.problems]
    more = checked.problem_count - len(listed)
    if more:
        listed.append(f"and {more:,} more" + (f" in {checked.rejected}" if checked.rejected else ""))
    return UserError(
        "BD-016",
        f"{checked.bad_rows:,} of {checked.rows:,} rows are not usable; nothing was sent",
        where=where,
        why="\n    ".join(["", *listed]).rstrip(),
        fix="correct them" + (f" (list: {checked.rejected})" if checked.rejected else "") + ", or --skip-invalid",
    )
