"""The result store: order, idempotence, dispute, and nothing lost or half-named at any crash (RES-1, 2, 4, 5)."""

import hashlib
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import trio_test

from runtime.blobs import Blob, BlobStore, Receiver
from runtime.disk import RealDisk
from runtime.images import BadImage, Expected
from runtime.ports import Disk, DiskFailed, DiskFull, NameTaken
from runtime.simulated import SimDisk, SimThreads
from runtime.threads import TrioThreads
from tests.runtime.pictures import picture

ROOT = Path("/night/products")
GOOD = picture()
SHA = hashlib.sha256(GOOD).hexdigest()
NAME = Path("images/sku-1")
ANY = Expected()


def store(disk: Disk | None = None) -> BlobStore:
    return BlobStore(disk or SimDisk(), ROOT)


@pytest.fixture(params=["real", "simulated"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return BlobStore(RealDisk(), tmp_path / "products") if request.param == "real" else store()


def test_an_image_is_stored_under_its_digest_and_linked_by_its_name(either: BlobStore) -> None:
    """SEC-2."""
    blob = either.put(GOOD, part="3-1-7-1", expected=ANY, link=NAME)
    assert blob == Blob(SHA, len(GOOD), "image/png", 64, 48)
    assert either.disk.read(either.root / "blobs" / SHA[:2] / SHA) == GOOD
    assert either.disk.read(either.root / "images" / "sku-1.png") == GOOD
    assert either.disk.names(either.root / "blobs") == (SHA[:2],)


def test_a_blob_is_read_only_and_its_name_a_hard_link(tmp_path: Path) -> None:
    real = BlobStore(RealDisk(), tmp_path)
    real.put(GOOD, part="3-1-7-1", expected=ANY, link=NAME)
    assert stat.S_IMODE(real.path(SHA).stat().st_mode) == 0o400
    assert real.path(SHA).samefile(tmp_path / "images" / "sku-1.png")


def test_storing_twice_changes_nothing(either: BlobStore) -> None:
    first = either.put(GOOD, part="3-1-7-1", expected=ANY, link=NAME)
    assert either.put(GOOD, part="4-1-7-1", expected=ANY, link=NAME) == first
    assert either.put(GOOD, part="4-1-8-1", expected=ANY, link=Path("images/sku-2")) == first
    assert either.disk.names(either.root / "images") == ("sku-1.png", "sku-2.png")
    assert either.disk.names(either.root / "blobs") == (SHA[:2],)


def test_the_ending_is_what_the_bytes_are(either: BlobStore) -> None:
    either.put(picture("image/jpeg"), part="1-1", expected=ANY, link=Path("images/00003/a.b"))
    assert either.disk.names(either.root / "images" / "00003") == ("a.b.jpg",)


def test_a_bad_image_is_kept_for_dispute_and_never_named(either: BlobStore) -> None:
    verdict = either.put(b"<html>", part="3-1-7-1", expected=ANY, link=NAME)
    assert isinstance(verdict, BadImage)
    assert verdict.kept == "disputed/3-1-7-1.bin"
    assert either.disk.read(either.root / verdict.kept) == b"<html>"
    assert either.disk.names(either.root / "blobs") == ()
    assert not either.disk.exists(either.root / "images")


def test_flags_come_from_what_was_expected() -> None:
    blob = store().put(GOOD, part="1-1", expected=Expected(aspect="1:1", resolution="1K"))
    assert isinstance(blob, Blob)
    assert blob.flags == ("small", "aspect")


def test_a_strangers_file_under_the_name_is_left_alone(either: BlobStore) -> None:
    either.disk.make_dir(either.root / "images")
    either.disk.write_new(either.root / "images" / "sku-1.png", b"retouched")
    assert isinstance(either.put(GOOD, part="1-1", expected=ANY, link=NAME), Blob)
    assert either.disk.read(either.root / "images" / "sku-1.png") == b"retouched"
    with pytest.raises(NameTaken):
        either.link(SHA, "image/png", NAME)


def test_the_next_version_takes_the_name_and_the_old_one_stays(either: BlobStore) -> None:
    either.put(GOOD, part="1-1", expected=ANY, link=NAME)
    for _ in range(2):
        either.supersede(NAME, "image/png", 1)
    better = picture(width=32)
    either.put(better, part="1-2", expected=ANY, link=NAME)
    assert either.disk.read(either.root / "images" / "sku-1.v1.png") == GOOD
    assert either.disk.read(either.root / "images" / "sku-1.png") == better


def test_parts_of_older_epochs_are_swept(either: BlobStore) -> None:
    either.put(GOOD, part="9-1", expected=ANY)
    for part in ("2-1-1-1", "3-1-1-1", "10-1-1-1"):
        either.spill(b"x", part=part, first=True)
    either.disk.write_new(either.root / "blobs" / "notes.part", b"not ours")
    assert either.sweep(10) == 2
    assert either.disk.names(either.root / "blobs") == tuple(sorted(("10-1-1-1.part", SHA[:2], "notes.part")))


def test_sweeping_a_folder_that_is_not_there_is_fine(either: BlobStore) -> None:
    assert either.sweep(10) == 0


@pytest.mark.parametrize("part", ["", "1", "x-1", "1-", "1-../../x", "1-a/b", "-1", "1-a\n"])
def test_a_part_name_cannot_lead_elsewhere(part: str) -> None:
    """SEC-2."""
    with pytest.raises(ValueError):
        store().put(GOOD, part=part, expected=ANY)


# --- the receiver -----------------------------------------------------------------------------------------


async def receive(to: BlobStore, data: bytes, *, chunk: int, memory: int, part: str = "3-1-7-1") -> Blob | BadImage:
    receiver = Receiver(to, part=part, threads=SimThreads(), memory_bytes=memory)
    for at in range(0, len(data), chunk):
        await receiver.write(data[at : at + chunk])
    result = await receiver.finish(ANY, link=NAME)
    await receiver.discard()
    return result


@pytest.mark.parametrize("memory", [1, 100, 1000, 1 << 20])
@trio_test
async def test_in_memory_or_spilled_the_blob_is_the_same(either: BlobStore, memory: int) -> None:
    assert await receive(either, GOOD, chunk=64, memory=memory) == Blob(SHA, len(GOOD), "image/png", 64, 48)
    assert either.disk.read(either.path(SHA)) == GOOD
    assert either.disk.read(either.root / "images" / "sku-1.png") == GOOD
    assert either.disk.names(either.root / "blobs") == (SHA[:2],)


@pytest.mark.parametrize("memory", [1, 1 << 20])
@trio_test
async def test_what_an_earlier_try_left_is_not_mixed_in(either: BlobStore, memory: int) -> None:
    either.spill(b"left over", part="3-1-7-1", first=True)
    assert isinstance(await receive(either, GOOD, chunk=100, memory=memory), Blob)
    assert either.disk.read(either.path(SHA)) == GOOD


@trio_test
async def test_a_large_bad_image_is_kept_for_dispute() -> None:
    to = store()
    verdict = await receive(to, GOOD[:-1], chunk=10, memory=50)
    assert isinstance(verdict, BadImage)
    assert to.disk.read(ROOT / verdict.kept) == GOOD[:-1]


@trio_test
async def test_an_empty_result_is_a_bad_image() -> None:
    verdict = await receive(store(), b"", chunk=1, memory=1)
    assert isinstance(verdict, BadImage)


@trio_test
async def test_a_discarded_download_leaves_nothing(either: BlobStore) -> None:
    receiver = Receiver(either, part="1-1", threads=TrioThreads(), memory_bytes=10)
    await receiver.write(b"x" * 100)
    assert either.disk.names(either.root / "blobs") == ("1-1.part",)
    for _ in range(2):
        await receiver.discard()
    assert either.disk.names(either.root / "blobs") == ()


@trio_test
async def test_bytes_that_change_on_the_disk_are_a_disk_error() -> None:
    to = store()
    receiver = Receiver(to, part="1-1", threads=SimThreads(), memory_bytes=10)
    await receiver.write(GOOD)
    to.disk.append(ROOT / "blobs" / "1-1.part", b"flipped")
    with pytest.raises(DiskFailed, match="other bytes"):
        await receiver.finish(ANY)


@trio_test
async def test_a_full_disk_is_told_and_a_later_try_succeeds() -> None:
    disk = SimDisk(capacity_bytes=len(GOOD) - 1)
    with pytest.raises(DiskFull):
        await receive(store(disk), GOOD, chunk=100, memory=1 << 20)
    with pytest.raises(DiskFull):
        await receive(store(disk), GOOD, chunk=100, memory=100)
    disk.capacity_bytes = 1 << 20
    assert isinstance(await receive(store(disk), GOOD, chunk=100, memory=100), Blob)


# --- the crash law ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(cut=st.integers(0, 30), power=st.booleans(), spilled=st.booleans(), good=st.booleans())
def test_killed_anywhere_no_final_name_lies_and_a_second_try_completes(
    cut: int, power: bool, spilled: bool, good: bool
) -> None:
    """RES-1, RES-2, RES-5: at every cut a file under a digest has that digest, and a returned blob is durable.

    W9, W10, W11.
    """
    data = GOOD if good else GOOD[:-4]
    disk = SimDisk()
    disk.fail(cut, "failed")
    returned = False
    try:
        _put(store(disk), data, spilled=spilled)
        returned = True
    except DiskFailed:
        pass
    after = disk.crash(power=power)
    for shard in after.names(ROOT / "blobs"):
        if len(shard) == 2:
            for sha256 in after.names(ROOT / "blobs" / shard):
                content = after.read(ROOT / "blobs" / shard / sha256)
                assert hashlib.sha256(content).hexdigest() == sha256
    for name in after.names(ROOT / "images"):
        assert after.read(ROOT / "images" / name) == GOOD
    if returned and good:
        assert after.read(store().path(SHA)) == GOOD
    if returned and not good:
        assert after.read(ROOT / "disputed" / "3-1-7-1.bin") == data
    again = store(after)
    again.sweep(4)
    assert isinstance(_put(again, GOOD, spilled=spilled, part="4-1-7-1"), Blob)
    assert after.names(ROOT / "blobs") == (SHA[:2],)
    assert after.read(ROOT / "images" / "sku-1.png") == GOOD


def _put(to: BlobStore, data: bytes, *, spilled: bool, part: str = "3-1-7-1") -> Blob | BadImage:
    if not spilled:
        return to.put(data, part=part, expected=ANY, link=NAME)
    to.spill(data[:100], part=part, first=True)
    to.spill(data[100:], part=part, first=False)
    return to.put_spilled(part=part, sha256=hashlib.sha256(data).hexdigest(), expected=ANY, link=NAME)
