"""What a power cut may leave of the ledger's files, rebuilt from copies and opened again (LED-4, LED-10).

SQLite appends the pages of a commit to the ``-wal`` file and syncs that before COMMIT returns; a checkpoint copies them
into the file and syncs that before the log is begun anew.  So a power cut may take any part of what was written since
the last sync, in any order, by the sector, and nothing else.  The copies here are taken between the steps; what a step
wrote is the difference of two of them, and states between the two are laid out and opened as a new process would.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import msgspec
import pytest

from ledger.audit import SealedHead, check_against, export_head, verify
from ledger.journal import Ledger
from tests.ledger.ledgers import do, opened
from tests.ledger.stories import INTEND, bought
from tests.processes import in_memory

PAGE = 4096
FRAME = 24 + PAGE
HEADER = 32  # of the log


Anew: TypeAlias = "tuple[Files, Files, Files]"


class Files(msgspec.Struct, frozen=True):
    """The ledger at one moment, and its head when somebody was last told that a commit is durable."""

    main: bytes
    wal: bytes
    shm: bytes
    told: SealedHead


class Cut(msgspec.Struct, frozen=True):
    """What is found after a cut, and how far the ledger must and may reach then."""

    name: str
    main: bytes
    wal: bytes
    least: SealedHead
    most: SealedHead
    shm: bytes | None = None


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: the cuts are made by hand, so syncing would only be slow."""
    with in_memory() as folder:
        yield folder


def copied(path: Path) -> Files:
    """The files as they stand.  Another process copies: a descriptor closed in this one would drop SQLite's locks."""
    told = export_head(path)
    folder = path.parent / "copy"
    folder.mkdir()
    names = [path.with_name(path.name + ending) for ending in ("", "-wal", "-shm")]
    subprocess.run(["cp", *names, folder], check=True)
    main, wal, shm = ((folder / name.name).read_bytes() for name in names)
    shutil.rmtree(folder)
    return Files(main, wal, shm, told)


@pytest.fixture(scope="module")
def commits(memory: Path) -> list[Files]:
    """A ledger after its making, and after each of some commits; never checkpointed."""
    path = memory / "commits" / "l.db"
    with opened(path, tasks=2) as ledger:
        moments = [copied(path)]
        for n, command in (*((1, each) for each in (INTEND, *bought(1))), (2, INTEND)):
            do(ledger, n, command)
            moments.append(copied(path))
    return moments


@pytest.fixture(scope="module")
def begun_anew(memory: Path) -> Anew:
    """Before a checkpoint, after it, and after a commit that begins the log anew over what stands in it."""
    path = memory / "anew" / "l.db"
    with opened(path, tasks=2) as ledger:
        do(ledger, 1, INTEND, *bought(1))
        before = copied(path)
        assert ledger.store.row("PRAGMA wal_checkpoint(PASSIVE)")
        after = copied(path)
        do(ledger, 2, INTEND)
        return before, after, copied(path)


def examine(cut: Cut, folder: Path) -> SealedHead:
    """Open what was left, hold it against what was told, and go on with it; returns the head that was found."""
    path = folder / "l.db"
    path.write_bytes(cut.main)
    path.with_name("l.db-wal").write_bytes(cut.wal)
    if cut.shm is not None:
        path.with_name("l.db-shm").write_bytes(cut.shm)
    with Ledger.create_or_open(path, create=False) as ledger:
        head = export_head(path)
        ledger.start_epoch(machine="m", pid=2, app_version="0.1.0", operator="ann", command="run", at_us=20)
    report = verify(path)
    assert report.ok, (cut.name, report.problems)
    assert report.seq == head.seq + 1
    assert head in (cut.least, cut.most), f"{cut.name}: neither what was told nor the commit on its way"
    assert check_against(path, head) is None
    return head


def lengths(start: int, end: int, step: int) -> list[int]:
    """Where an append may have ended: at and around each frame's edges, and every ``step`` bytes."""
    edges = range(start, end + 1, FRAME)
    near = {edge + by for edge in edges for by in (-1, 0, 1, 8, 23, 24, 25, 24 + 512, 24 + PAGE // 2)}
    return sorted(at for at in {start, *near, *range(start, end, step)} if start <= at < end)


def torn_append(before: Files, after: Files, *, step: int) -> Iterator[Cut]:
    """The log while the frames of one commit are on their way, and no sync has ended."""
    old, new = len(before.wal), len(after.wal)
    assert after.main == before.main
    assert new > old
    assert after.wal[:old] == before.wal
    assert (new - old) % FRAME == 0

    def cut(name: str, wal: bytes) -> Cut:
        return Cut(name, after.main, wal, before.told, before.told)

    for at in lengths(old, new, step):
        yield cut(f"the log ends at {at} of {new}", after.wal[:at])
    for at in lengths(old, new, step):
        # The file had grown already, and what was not written yet reads as zeros.
        if any(after.wal[at:]):
            yield cut(f"zeros from {at} of {new}", after.wal[:at] + bytes(new - at))
    blocks = range(old - old % 512, new, 512)
    for start in blocks if step < PAGE else random.Random(old).sample(blocks, 8):
        wal = bytearray(after.wal)
        wal[max(start, old) : start + 512] = bytes(min(start + 512, new) - max(start, old))
        if wal != after.wal:
            yield cut(f"the sector at {start} is missing", bytes(wal))
    last = new - FRAME
    for at in (0, 4, 8, 12, 16, 20, 24, 24 + PAGE // 2, FRAME - 1):
        wal = bytearray(after.wal)
        wal[last + at] ^= 0x40
        yield cut(f"byte {at} of the last frame is another", bytes(wal))
    draws = random.Random(new)
    for turn in range(8):
        wal = bytearray(after.wal)
        for start in blocks:
            if draws.random() < 0.5:
                wal[max(start, old) : start + 512] = bytes(min(start + 512, new) - max(start, old))
        yield cut(f"some sectors are missing, draw {turn}", bytes(wal))


def whole(files: Files, name: str) -> Iterator[Cut]:
    """After COMMIT has returned: nothing may be lost, whatever becomes of the index, which is never synced."""
    indexes = (None, files.shm, b"", bytes(len(files.shm)), files.shm[: len(files.shm) // 2], b"\xff" * len(files.shm))
    for number, shm in enumerate(indexes):
        yield Cut(f"{name}, index {number}", files.main, files.wal, files.told, files.told, shm)


def all_appends(commits: list[Files], *, step: int) -> Iterator[Cut]:
    for number, (before, after) in enumerate(pairwise(commits), 1):
        yield from torn_append(before, after, step=step)
        yield from whole(after, f"after commit {number}")


def torn_checkpoint(before: Files, after: Files, *, step: int) -> Iterator[Cut]:
    """The file while a checkpoint writes into it; the log is whole until the file is synced."""
    assert after.wal == before.wal
    assert after.told == before.told

    def cut(name: str, main: bytes, wal: bytes = before.wal) -> Cut:
        return Cut(name, main, wal, before.told, before.told)

    old = before.main.ljust(len(after.main), b"\0")
    changed = [at for at in range(0, len(after.main), 512) if old[at : at + 512] != after.main[at : at + 512]]
    assert changed
    every = max(1, step // 512)
    for at in changed[::every]:
        yield cut(f"written up to {at}", after.main[:at] + before.main[at:])
        yield cut(f"cut off at {at}", after.main[: max(at, len(before.main))])
        yield cut(f"all but the sector at {at}", after.main[:at] + old[at : at + 512] + after.main[at + 512 :])
        yield cut(f"only the sector at {at}", old[:at] + after.main[at : at + 512] + old[at + 512 :])
    draws = random.Random(1)
    for turn in range(8):
        main = bytearray(after.main)
        for at in changed:
            if draws.random() < 0.5:
                main[at : at + 512] = old[at : at + 512]
        yield cut(f"some sectors are missing, draw {turn}", bytes(main))
    # Synced, and then the log is emptied, or not yet.
    yield cut("all of it", after.main)
    yield cut("all of it, and the log is emptied", after.main, b"")


def torn_restart(after: Files, anew: Files, *, step: int) -> Iterator[Cut]:
    """The log while a commit begins it anew, over the frames of before."""
    assert anew.main == after.main
    assert len(anew.wal) == len(after.wal)
    written = max(at for at in range(len(anew.wal)) if anew.wal[at] != after.wal[at]) + 1
    assert written > FRAME

    def cut(name: str, wal: bytes) -> Cut:
        most = anew.told if wal[:written] == anew.wal[:written] else after.told
        return Cut(name, after.main, wal, after.told, most)

    for at in sorted(
        {0, 1, 12, 16, 20, 24, 28, HEADER, *(HEADER + each for each in lengths(0, written - HEADER, step))}
    ):
        yield cut(f"begun anew up to {at} of {written}", anew.wal[:at] + after.wal[at:])
    yield cut("begun anew, all of it", anew.wal)


def examined(cuts: Iterable[Cut], folder: Path) -> tuple[int, int]:
    """How many there were, and in how many of them the commit that was on its way had come through."""
    seen = newer = 0
    for cut in cuts:
        place = folder / "cut"
        place.mkdir()
        newer += examine(cut, place) != cut.least
        shutil.rmtree(place)
        seen += 1
    return seen, newer


def test_a_cut_in_any_commit_leaves_what_was_told_and_nothing_half(commits: list[Files], memory: Path) -> None:
    """LED-4: the log torn at the edges of its frames and within, sectors missing, bits flipped, its index gone."""
    seen, newer = examined(list(all_appends(commits, step=4 * PAGE))[::8], memory)
    assert seen > 60
    assert newer == 0  # a commit of which a piece is missing never counts


def test_a_cut_in_a_checkpoint_loses_nothing(begun_anew: Anew, memory: Path) -> None:
    """LED-4: whatever reached the file, the log still has it all."""
    before, after, _ = begun_anew
    assert examined(torn_checkpoint(before, after, step=PAGE), memory)[0] > 20


def test_a_cut_while_the_log_is_begun_anew_loses_nothing(begun_anew: Anew, memory: Path) -> None:
    """LED-4: the new frames stand before old ones, which look like frames too."""
    _, after, anew = begun_anew
    seen, newer = examined(list(torn_restart(after, anew, step=4 * PAGE))[::-2], memory)
    assert seen > 30
    assert newer == 1


def test_a_new_ledger_is_found_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LED-4: SQLite syncs the folder that the log lies in; the folders that we make above it are ours to sync."""
    synced: list[int] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    real = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    path = tmp_path / "a" / "b" / "l.db"
    opened(path).close()
    assert synced == [folder.stat().st_ino for folder in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")]


@pytest.mark.slow
def test_every_cut_loses_nothing_that_was_told(
    commits: list[Files], begun_anew: Anew, memory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """LED-4: every sector of every step, and their number."""
    before, after, anew = begun_anew
    states = {
        "commits": all_appends(commits, step=512),
        "checkpoint": torn_checkpoint(before, after, step=512),
        "log begun anew": torn_restart(after, anew, step=64),
    }
    counted = {name: examined(cuts, memory)[0] for name, cuts in states.items()}
    with capsys.disabled():
        print(f"\nstates of the ledger's files after a power cut: {sum(counted.values())}: {counted}")
