"""What the dashboard shows: one value, read from the views in a few milliseconds, however many tasks there are."""

from pathlib import Path
from typing import NamedTuple

from bydawn.cli.status import is_open
from bydawn.overview import AccountLine, Overview, account_lines, overview
from bydawn.runs import Run, runs
from ledger.reader import BatchRow, LaneRow, Reader

_RUNS = 8
_BATCHES = 50


class Board(NamedTuple):
    """A ledger at one moment.  ``run`` is the newest one, None when there never was any."""

    path: Path
    at_us: int
    run: Run | None
    batches: list[Overview]
    more: int
    accounts: list[AccountLine]
    lanes: list[LaneRow]
    runs: list[Run]

    @property
    def is_running(self) -> bool:
        return self.run is not None and self.run.state == "running"


def board(path: Path, *, now_us: int) -> Board:
    """Read the ledger.  Blocking.

    Raises:
        LedgerError: it cannot be read.
    """
    with Reader(path) as reader:
        last = runs(reader, last=_RUNS)
        newest = last[0] if last else None
        chosen = _chosen(reader)
        views = [overview(reader, row, now_us=now_us) for row in chosen[:_BATCHES]]
        if newest is None or newest.state != "running":  # a pace is a promise that nobody keeps now
            views = [view._replace(rate_per_s=0.0, eta_s=None) for view in views]
        return Board(
            path=path,
            at_us=now_us,
            run=newest,
            batches=views,
            more=max(0, len(chosen) - _BATCHES),
            accounts=account_lines(reader),
            lanes=list(reader.lanes()),
            runs=last,
        )


def _chosen(reader: Reader) -> list[BatchRow]:
    """The open batches, newest first; the newest one when none is open."""
    newest_first = list(reversed(reader.batches()))
    return [row for row in newest_first if is_open(reader, row)] or newest_first[:1]
