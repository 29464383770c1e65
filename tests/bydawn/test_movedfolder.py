"""Results that were moved are found by their marker, and nobody else's folder is taken for them."""

from pathlib import Path

import pytest

from bydawn.movedfolder import follow_moved, moved_to
from bydawn.opening import opened_for_writing
from bydawn.preparing import new_batch
from runtime.disk import RealDisk
from runtime.outputs import MARKER, Marker, write_marker

OURS = Marker(ledger="us", batch=1)


def folder(path: Path, marker: Marker | None = OURS) -> Path:
    path.mkdir(parents=True)
    if marker is not None:
        write_marker(RealDisk(), path, marker)
    return path


def test_results_stay_where_they_are_on_record(tmp_path: Path) -> None:
    ledger = tmp_path / "new" / "bydawn.db"
    recorded = folder(tmp_path / "old" / "pots")
    folder(tmp_path / "new" / "pots")  # a copy to look at
    assert moved_to(ledger, recorded, OURS, named=None) is None
    assert moved_to(ledger, recorded, OURS, named=recorded) is None


def test_results_beside_a_moved_ledger_are_found(tmp_path: Path) -> None:
    there = folder(tmp_path / "new" / "pots")
    assert moved_to(tmp_path / "new" / "bydawn.db", tmp_path / "old" / "pots", OURS, named=None) == there


@pytest.mark.parametrize("marker", [None, Marker(ledger="us", batch=2), Marker(ledger="them", batch=1)])
def test_another_folder_of_that_name_is_left_alone(tmp_path: Path, marker: Marker | None) -> None:
    there = folder(tmp_path / "new" / "pots", marker)
    assert moved_to(tmp_path / "new" / "bydawn.db", tmp_path / "old" / "pots", OURS, named=None) is None
    assert moved_to(tmp_path / "new" / "bydawn.db", tmp_path / "old" / "pots", OURS, named=there) is None


def test_a_damaged_marker_is_nobodys(tmp_path: Path) -> None:
    there = folder(tmp_path / "new" / "pots")
    (there / MARKER).write_text("{")
    assert moved_to(tmp_path / "new" / "bydawn.db", tmp_path / "old" / "pots", OURS, named=there) is None


def test_a_named_folder_wins(tmp_path: Path) -> None:
    recorded = folder(tmp_path / "old" / "pots")
    named = folder(tmp_path / "disk" / "any-name")
    assert moved_to(tmp_path / "bydawn.db", recorded, OURS, named=named) == named


def test_a_move_is_put_on_record_once(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    with opened_for_writing(old / "bydawn.db", create=True) as opened:
        batch = new_batch(opened, "pots", old / "pots", sandbox=True)
    old.rename(new)
    with opened_for_writing(new / "bydawn.db", create=False) as opened:
        follow_moved(opened, batch, named=None)
        version = opened.ledger.batch(batch).version
        assert opened.ledger.batch(batch).folder == str(new / "pots")
        follow_moved(opened, batch, named=None)
        assert opened.ledger.batch(batch).version == version
