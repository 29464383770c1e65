"""Files that people ask for by name: whole, private, and never in the place of a device."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bydawn.cli.main import main
from bydawn.outfile import write_out
from runtime.ports import DiskFailed
from tests.bydawn.a_night import Night


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_private_also_where_a_file_was_that_everybody_reads(tmp_path: Path) -> None:
    """SEC-7: the rights of what was there are not taken over, and a link is replaced."""
    open_to_all, victim, link = (tmp_path / name for name in ("a.json", "victim", "b.json"))
    open_to_all.write_text("old")
    open_to_all.chmod(0o644)
    victim.write_text("precious")
    link.symlink_to(victim)
    for path in (open_to_all, link, tmp_path / "c.json"):
        write_out(path, [b"one\n", b"two\n"])
        assert path.read_bytes() == b"one\ntwo\n"
        assert mode(path) == 0o600
        assert not path.is_symlink()
    assert victim.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json", "c.json", "victim"]


def test_what_was_there_stays_when_the_new_one_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("old")

    def breaks_off() -> Iterator[bytes]:
        yield b"new"
        raise DiskFailed("somewhere else")

    with pytest.raises(DiskFailed):
        write_out(tmp_path / "a.json", breaks_off())
    assert (tmp_path / "a.json").read_text() == "old"


def test_a_device_or_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    """With the rights for it, a file took the place of `/dev/null`."""
    write_out(Path("/dev/null"), [b"x"])
    assert Path("/dev/null").is_char_device()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_out(pipe, [b"one\n", b"two\n"])
    assert os.read(reading, 100) == b"one\ntwo\n"
    os.close(reading)
    assert pipe.is_fifo()
    with pytest.raises(DiskFailed):
        write_out(tmp_path, [b"x"])


def test_a_seal_that_cannot_be_written_is_told_as_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was an internal error, after the ledger had been found in order."""
    night = Night(tmp_path / "bydawn.db", tmp_path / "out")
    night.ledger.close()
    ledger = ("--ledger", str(tmp_path / "bydawn.db"))
    assert main(["verify", *ledger, "--seal", str(tmp_path / "bydawn.db" / "head.json")]) == 7
    assert "error BD-104" in capsys.readouterr().err
    assert main(["verify", *ledger, "--seal", str(tmp_path / "new" / "head.json")]) == 0
    assert main(["verify", *ledger, "--against", str(tmp_path / "new" / "head.json")]) == 0
