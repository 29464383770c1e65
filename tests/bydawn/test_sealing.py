"""The head beside the results: written whole, renewed during a run, believed only where it can be read and is ours."""

from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from bydawn.cli.main import main
from bydawn.sealing import HEAD, Sealer, head_of, sealed_heads
from ledger.audit import SealedHead
from ledger.reader import Reader
from runtime.disk import RealDisk
from runtime.ports import DiskFull
from runtime.simulated import SimThreads
from tests.bydawn.a_night import tell


@pytest.fixture
def night(tmp_path: Path) -> Path:
    tell(tmp_path / "bydawn.db", tmp_path)
    return tmp_path


def heads(night: Path) -> list[tuple[Path, SealedHead]]:
    with Reader(night / "bydawn.db") as reader:
        return list(sealed_heads(reader))


def test_a_sealed_head_is_what_verify_holds_the_ledger_against(night: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """REC-10, LED-8."""
    folder = night / "teapots"
    with Reader(night / "bydawn.db") as reader:
        Sealer(RealDisk(), folder, reader).seal()
        assert list(sealed_heads(reader)) == [(folder, head_of(reader))]
    ledger = ("--ledger", str(night / "bydawn.db"))
    assert main(["verify", "--no-files", "--against", str(folder / HEAD), *ledger]) == 0
    assert "all agrees" in capsys.readouterr().out


def test_a_damaged_head_and_another_ledgers_are_not_compared(night: Path) -> None:
    path = night / "teapots" / HEAD
    path.write_text("{")
    assert heads(night) == []
    path.write_bytes(msgspec.json.encode(SealedHead("another", 9_999, "00")))
    assert heads(night) == []
    path.unlink()
    assert heads(night) == []


class FullDisk(RealDisk):
    def rename(self, source: Path, target: Path) -> None:
        raise DiskFull("no space")


@pytest.mark.parametrize(("disk", "sealed"), [(RealDisk(), True), (FullDisk(), False)])
def test_the_head_is_renewed_while_a_run_goes_on(night: Path, disk: RealDisk, sealed: bool) -> None:
    """REC-10: a disk that refuses it does not end the run, which notices by itself."""

    async def some_time(reader: Reader) -> None:
        with trio.move_on_after(60):
            await Sealer(disk, night / "teapots", reader).keep_sealing(SimThreads())

    with Reader(night / "bydawn.db") as reader:
        trio.run(partial(some_time, reader), clock=trio.testing.MockClock(autojump_threshold=0))
    assert len(heads(night)) == sealed
