"""A process that opened a ledger also records how it ended, whatever ended it."""

from pathlib import Path

import pytest

from bydawn.errors import UserError
from bydawn.opening import end_epoch, opened_for_writing
from ledger.reader import Reader


def ends(path: Path) -> list[tuple[str, int] | None]:
    with Reader(path) as reader:
        return [(row.ended.stopped_by, row.ended.exit_code) if row.ended else None for row in reader.epochs()]


def test_a_command_that_did_its_work_is_done(tmp_path: Path) -> None:
    path = tmp_path / "bydawn.db"
    with opened_for_writing(path, create=True):
        pass
    assert ends(path) == [("done", 0)]


@pytest.mark.parametrize(
    ("trouble", "end"),
    [
        (UserError("BD-070", "known tasks would change"), ("refused", 2)),
        (UserError("BD-080", "the disk is full", exit_code=7), ("disk_full", 7)),
        (KeyboardInterrupt(), ("interrupted", 130)),
        (ZeroDivisionError(), ("error", 1)),
    ],
)
def test_trouble_is_on_record_and_goes_on_to_the_user(
    tmp_path: Path, trouble: BaseException, end: tuple[str, int]
) -> None:
    path = tmp_path / "bydawn.db"
    with pytest.raises(type(trouble)), opened_for_writing(path, create=True):
        raise trouble
    assert ends(path) == [end]


def test_a_run_that_told_its_end_is_not_ended_twice(tmp_path: Path) -> None:
    path = tmp_path / "bydawn.db"
    with opened_for_writing(path, create=True) as opened:
        end_epoch(opened.ledger, stopped_by="budget", exit_code=5)
    assert ends(path) == [("budget", 5)]
