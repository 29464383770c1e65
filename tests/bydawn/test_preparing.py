"""The folder of a new batch is nobody else's, and a process that died while it opened one is no stranger."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bydawn.errors import UserError
from bydawn.opening import Opened
from bydawn.preparing import free_name, new_batch
from bydawn.sealing import HEAD
from ledger.journal import Ledger
from runtime.disk import RealDisk
from runtime.outputs import MARKER, Marker, read_marker, write_marker


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with Ledger.create_or_open(tmp_path / "bydawn.db", create=True, mounts=lambda: "") as ledger:
        ledger.start_epoch(machine="m", pid=1, app_version="0", operator="o", command="run", at_us=1)
        yield Opened(ledger, keyed=str, created=True)


def test_a_new_batch_marks_its_folder(opened: Opened, tmp_path: Path) -> None:
    folder = tmp_path / "pots"
    assert new_batch(opened, "pots", folder, sandbox=True) == 1
    assert read_marker(RealDisk(), folder) == Marker(ledger=opened.ledger.ledger_id, batch=1)
    state = opened.ledger.batch(1)
    assert (state.name, state.folder, state.sandbox, state.rerun_of) == ("pots", str(folder), True, 0)


def test_an_opening_that_was_cut_short_is_done_again(opened: Opened, tmp_path: Path) -> None:
    """Killed between marker and event: the folder names the batch that would have come."""
    write_marker(RealDisk(), tmp_path / "pots", Marker(ledger=opened.ledger.ledger_id, batch=1))
    assert new_batch(opened, "pots", tmp_path / "pots", sandbox=True) == 1


@pytest.mark.parametrize("case", ["another ledger", "another batch", "results of a later ledger", "damaged"])
def test_a_folder_of_somebody_else_is_refused(opened: Opened, tmp_path: Path, case: str) -> None:
    """REC-10: also where an older copy of the ledger has not opened the batch yet whose results lie there."""
    folder = tmp_path / "pots"
    ledger_id = "f" * 32 if case == "another ledger" else opened.ledger.ledger_id
    write_marker(RealDisk(), folder, Marker(ledger=ledger_id, batch=7 if case == "another batch" else 1))
    if case == "results of a later ledger":
        (folder / HEAD).write_text("{}", "utf-8")
    if case == "damaged":
        (folder / MARKER).write_bytes(b"?")
    with pytest.raises(UserError) as refused:
        new_batch(opened, "pots", folder, sandbox=True)
    assert refused.value.code == "BD-075"
    assert opened.ledger.batch(1).version == 0


def test_a_name_that_is_taken_gets_the_first_free_number() -> None:
    assert [free_name("pots", taken) for taken in ((), ("pots",), ("pots", "pots-2", "pots-4"))] == [
        "pots",
        "pots-2",
        "pots-3",
    ]
