"""The real disk's modes and errors, and the simulated disk's crashes (RES-2, RES-5, SEC-7)."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.disk import RealDisk
from runtime.ports import DiskFailed, DiskFull
from runtime.simulated import SimDisk

OUT = Path("/out")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def loose_umask() -> object:
    old = os.umask(0)
    yield
    os.umask(old)


# --- the real one -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("loose_umask")
def test_everything_is_private_even_under_a_loose_umask(tmp_path: Path) -> None:
    disk = RealDisk()
    disk.make_dir(tmp_path / "a" / "b")
    disk.write_new(tmp_path / "a" / "b" / "new", b"x")
    disk.append(tmp_path / "a" / "b" / "more.part", b"x")
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700
    assert mode(tmp_path / "a" / "b" / "new") == mode(tmp_path / "a" / "b" / "more.part") == 0o600
    disk.protect(tmp_path / "a" / "b" / "new")
    assert mode(tmp_path / "a" / "b" / "new") == 0o400


def test_a_symbolic_link_is_never_written_through(tmp_path: Path) -> None:
    disk = RealDisk()
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "trap").symlink_to(tmp_path / "target")
    with pytest.raises(DiskFailed):
        disk.write_new(tmp_path / "trap", b"x")
    with pytest.raises(DiskFailed):
        disk.append(tmp_path / "trap", b"x")
    assert (tmp_path / "target").read_bytes() == b"precious"


def test_a_link_is_a_hard_link_where_it_can_be(tmp_path: Path) -> None:
    disk = RealDisk()
    disk.write_new(tmp_path / "a", b"x")
    disk.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").samefile(tmp_path / "b")


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EXDEV, errno.EMLINK])
def test_where_links_are_refused_a_copy_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int) -> None:
    def no_link(source: Path, target: Path) -> None:
        raise OSError(refusal, os.strerror(refusal))

    disk = RealDisk()
    disk.write_new(tmp_path / "a", b"x" * 100_000)
    monkeypatch.setattr(os, "link", no_link)
    disk.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"x" * 100_000
    assert not (tmp_path / "a").samefile(tmp_path / "b")
    assert disk.names(tmp_path) == ("a", "b")


@pytest.mark.parametrize(
    ("code", "error"), [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, DiskFailed)]
)
def test_a_failed_sync_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    disk = RealDisk()
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(error):
        disk.write_new(tmp_path / "a", b"x")
    assert disk.names(tmp_path) == ()


def test_bytes_are_synced_before_the_rename_and_the_directory_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RES-2, as far as one can see without pulling the plug."""
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def seen_sync(fd: int) -> None:
        steps.append("sync " + Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        sync(fd)

    def seen_replace(source: Path, target: Path) -> None:
        steps.append(f"rename {source.name} {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", seen_sync)
    monkeypatch.setattr(os, "replace", seen_replace)
    disk = RealDisk()
    disk.make_dir(tmp_path / "new" / "deep")
    disk.write_new(tmp_path / "new" / "a.part", b"x")
    disk.rename(tmp_path / "new" / "a.part", tmp_path / "new" / "deep" / "a")
    disk.append(tmp_path / "new" / "b.part", b"x")
    disk.sync(tmp_path / "new" / "b.part")
    assert steps == [
        f"sync {tmp_path.name}",
        "sync new",
        "sync a.part",
        "rename a.part a",
        "sync deep",
        "sync b.part",
    ]


def test_a_full_device_is_told_from_a_broken_one() -> None:
    if not Path("/dev/full").exists():
        pytest.fail("this law needs Linux's /dev/full")
    with pytest.raises(DiskFull, match="No space left"):
        RealDisk().append(Path("/dev/full"), b"x")


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, bytes(data[:7])))
    disk = RealDisk()
    disk.write_new(tmp_path / "a", bytes(range(100)))
    assert disk.read(tmp_path / "a") == bytes(range(100))


# --- the simulated one ------------------------------------------------------------------------------------


def sim() -> SimDisk:
    disk = SimDisk()
    disk.make_dir(OUT)
    return disk


def test_a_power_cut_takes_names_whose_directory_was_not_synced() -> None:
    disk = sim()
    disk.write_new(OUT / "a", b"one")
    assert disk.crash().names(OUT) == ()


def test_a_renamed_file_survives_a_power_cut() -> None:
    disk = sim()
    disk.write_new(OUT / "a.part", b"one")
    disk.rename(OUT / "a.part", OUT / "a")
    assert disk.crash().read(OUT / "a") == b"one"


def test_a_rename_without_a_sync_survives_as_an_empty_name() -> None:
    disk = sim()
    disk.append(OUT / "a.part", b"one")
    disk.rename(OUT / "a.part", OUT / "a")
    assert disk.crash().read(OUT / "a") == b""


def test_a_removed_name_may_come_back_after_a_power_cut() -> None:
    disk = sim()
    disk.write_new(OUT / "a.part", b"one")
    disk.rename(OUT / "a.part", OUT / "a")
    disk.remove(OUT / "a")
    assert disk.crash().read(OUT / "a") == b"one"


def test_a_kill_takes_nothing() -> None:
    disk = sim()
    disk.append(OUT / "a.part", b"one")
    assert disk.crash(power=False).read(OUT / "a.part") == b"one"


def test_hard_links_stay_one_file_through_a_crash() -> None:
    disk = sim()
    disk.write_new(OUT / "a", b"one")
    disk.link(OUT / "a", OUT / "b")
    after = disk.crash(power=False)
    after.append(OUT / "a", b"two")
    assert after.read(OUT / "b") == b"onetwo"


def test_a_dead_process_changes_nothing() -> None:
    disk = sim()
    disk.write_new(OUT / "a", b"one")
    disk.freeze()
    effects: list[Callable[[], None]] = [
        lambda: disk.write_new(OUT / "b", b""),
        lambda: disk.remove(OUT / "a"),
        lambda: disk.rename(OUT / "a", OUT / "b"),
        lambda: disk.append(OUT / "a", b"x"),
        lambda: disk.link(OUT / "a", OUT / "b"),
        lambda: disk.make_dir(OUT / "d"),
        lambda: disk.protect(OUT / "a"),
        lambda: disk.sync(OUT / "a"),
    ]
    for effect in effects:
        with pytest.raises(DiskFailed, match="dead"):
            effect()
    assert disk.names(OUT) == ("a",)
    assert disk.read(OUT / "a") == b"one"


@given(st.integers(0, 3), st.sampled_from(["full", "failed"]))
def test_the_chosen_effect_fails_once_and_has_no_effect(n: int, fault: str) -> None:
    disk = sim()
    disk.fail(n, "full" if fault == "full" else "failed")
    for i in range(5):
        if i == n:
            with pytest.raises(DiskFull if fault == "full" else DiskFailed):
                disk.write_new(OUT / str(i), b"x")
        else:
            disk.write_new(OUT / str(i), b"x")
    assert disk.names(OUT) == tuple(str(i) for i in range(5) if i != n)


def test_a_simulated_disk_can_be_full() -> None:
    disk = SimDisk(capacity_bytes=10)
    disk.make_dir(OUT)
    disk.write_new(OUT / "a", b"1234567")
    with pytest.raises(DiskFull):
        disk.append(OUT / "b.part", b"12345")
    assert disk.free_bytes(OUT) == 3
    assert disk.names(OUT) == ("a",)
