"""A disk that fills, on a small file system of its own: nothing paid is lost, and the same command finishes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.shop import Shop, prompts, wait

TASKS = 24


class SmallDisk:
    """A tmpfs of a few megabytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self._mount("-t", "tmpfs", "-o", "size=14m", "tmpfs")

    def grow(self) -> None:
        self._mount("-o", "remount,size=200m")

    def _mount(self, *options: str) -> None:
        done = subprocess.run(["mount", *options, self.path], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"THE DISK-FULL TESTS DID NOT RUN: mount needs root: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    place = tmp_path / "disk"
    try:
        yield SmallDisk(place)
    finally:
        subprocess.run(["umount", "-l", place], capture_output=True)


@pytest.fixture
def shop(market: str, disk: SmallDisk) -> Iterator[Shop]:
    with Shop(disk.path, market) as shop:
        yield shop


def finish(shop: Shop, disk: SmallDisk, table: str) -> None:
    """Make room, give the same command again, and check that nothing was lost or paid twice."""
    disk.grow()
    done = shop.run("run", table, "--resolution", "4K", "--provider", "replicate,segmind", "--sandbox")
    assert done.code == 0, done.err
    verdict = shop.verdict("pots")
    assert verdict.agrees, verdict
    assert len(verdict.once) == TASKS
    assert shop.strangers("pots") == []
    assert shop.leftovers("pots") == []
    assert shop.run("verify", "--sandbox").code == 0


@pytest.mark.slow
def test_buying_stops_while_everything_in_flight_still_fits(shop: Shop, disk: SmallDisk) -> None:
    table = shop.table("pots.jsonl", prompts("small disk", TASKS))
    done = shop.run("run", table, "--resolution", "4K", "--provider", "replicate,segmind", "--sandbox")
    assert done.code == 7, done.err
    assert set(shop.phases("pots")) <= {"queued", "succeeded"}
    assert len(shop.bill()) == shop.phases("pots").get("succeeded", 0) < TASKS
    finish(shop, disk, table)


def test_a_disk_that_somebody_else_fills(shop: Shop, disk: SmallDisk) -> None:
    """No room is left at all, from one moment to the next: commits fail, and the run ends at once (LED-7)."""
    table = shop.table("pots.jsonl", prompts("filled disk", TASKS))
    process = shop.start("run", table, "--resolution", "4K", "--provider", "replicate,segmind", "--sandbox")
    shop.wait_phases(process, "pots", "accepted", "ready", "succeeded", least=1)
    hog = disk.path / "hog"
    with hog.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
    done = wait(process)
    assert done.code == 7, done.err
    assert "free some space" in done.err.lower()
    hog.unlink()
    finish(shop, disk, table)
