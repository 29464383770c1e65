"""Images, spool and inbox on the real disk, with the process killed or its disk failing at every system call.

RES-2, RES-5: nobody ever sees half a file under a final name, what was acknowledged is there, what is left over belongs
to one epoch and goes with the next, and doing it again ends the same.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
import trio

from adapters.base import Finished
from runtime import inbox, spool
from runtime.blobs import Blob, BlobStore
from runtime.disk import RealDisk
from runtime.images import BadImage, Expected
from runtime.ports import DiskFailed, DiskFull
from runtime.simulated import SimThreads
from runtime.spool import Spool
from tests.processes import Ending, forked, in_memory, system_calls
from tests.runtime.fakes import Bench
from tests.runtime.pictures import picture

IMAGE = picture(width=96, height=96)
DIGEST = hashlib.sha256(IMAGE).hexdigest()
HINT = inbox.Hint(account="kie", batch=1, n=1, attempt=1, job="j")
ORDER = inbox.CancelBatch(batch=1, operator="ann")
REPLY = b"\x89PNG\nnot\nonly\none\nline"
WORK = Bench().work()


class Case(Protocol):
    """Something that is written; ``look`` asserts what may be there, and returns whether the thing is."""

    def write(self, folder: Path, epoch: int) -> None: ...

    def look(self, folder: Path) -> bool: ...

    def sweep(self, folder: Path) -> None: ...


class Image:
    """A whole image, with its name for people."""

    def write(self, folder: Path, epoch: int) -> None:
        stored = BlobStore(RealDisk(), folder).put(
            IMAGE, part=f"{epoch}-1-1-1", expected=Expected(), link=Path("images", "mug")
        )
        assert isinstance(stored, Blob)

    def look(self, folder: Path) -> bool:
        blobs = [path for path in (folder / "blobs").glob("*/*") if path.is_file()]
        names = [path for path in (folder / "images").glob("*") if path.suffix != ".part"]
        assert {path.name for path in blobs} <= {DIGEST}
        assert {path.name for path in names} <= {"mug.png"}
        assert all(path.read_bytes() == IMAGE for path in (*blobs, *names))
        return bool(names)

    def sweep(self, folder: Path) -> None:
        BlobStore(RealDisk(), folder).sweep(2)
        assert list((folder / "blobs").glob("*.part")) == []


class Spilled(Image):
    """An image that came in pieces."""

    def write(self, folder: Path, epoch: int) -> None:
        store, part = BlobStore(RealDisk(), folder), f"{epoch}-1-1-1"
        store.spill(IMAGE[:100], part=part, first=True)
        store.spill(IMAGE[100:], part=part, first=False)
        stored = store.put_spilled(part=part, sha256=DIGEST, expected=Expected(), link=Path("images", "mug"))
        assert isinstance(stored, Blob)


class Disputed(Image):
    """What is no image is kept as it came."""

    def write(self, folder: Path, epoch: int) -> None:
        stored = BlobStore(RealDisk(), folder).put(REPLY, part=f"{epoch}-1-1-1", expected=Expected())
        assert isinstance(stored, BadImage)

    def look(self, folder: Path) -> bool:
        kept = list((folder / "disputed").glob("*"))
        assert all(path.read_bytes() == REPLY for path in kept)
        return bool(kept)


class Spooled:
    """An image that came inside a reply."""

    def write(self, folder: Path, epoch: int) -> None:
        kept = Spool(SimThreads(), lambda work: BlobStore(RealDisk(), folder))
        trio.run(kept.keep, WORK, 1, Finished(data=REPLY, cost_microusd=5))

    def look(self, folder: Path) -> bool:
        found: list[bytes | None] = []

        async def read() -> None:
            found.append(await Spool(SimThreads(), lambda work: BlobStore(RealDisk(), folder)).data(WORK, 1))

        trio.run(read)
        assert found[0] in (None, REPLY)
        return found[0] is not None

    def sweep(self, folder: Path) -> None:
        spool.sweep(BlobStore(RealDisk(), folder), lambda *attempt: True)
        assert list((folder / "spool").glob("*.part")) == []


class Order:
    """A control message."""

    def write(self, folder: Path, epoch: int) -> None:
        inbox.leave(folder / "inbox", ORDER, name="1")

    def look(self, folder: Path) -> bool:
        found = [message for _, message in inbox.waiting(folder / "inbox")]
        assert found in ([], [ORDER])
        return bool(found)

    def sweep(self, folder: Path) -> None:
        """What is left unfinished goes when there are many, and is no message meanwhile."""


class Called(Order):
    """A callback of a provider."""

    def write(self, folder: Path, epoch: int) -> None:
        inbox.leave_hint(folder / "inbox", HINT)

    def look(self, folder: Path) -> bool:
        found = [hint for _, hint in inbox.hints(folder / "inbox")]
        assert found in ([], [HINT])
        return bool(found)


def _no_links(*_: object) -> None:
    raise PermissionError(errno.EPERM, "no hard links here")


CASES: list[Case] = [Image(), Spilled(), Disputed(), Spooled(), Order(), Called()]
ENDINGS: list[Ending] = ["kill", "EIO", "ENOSPC", "short"]


@pytest.fixture
def memory() -> Iterator[Path]:
    with in_memory() as folder:
        yield folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: type(case).__name__.lower())
@pytest.mark.parametrize("ending", ENDINGS)
def test_whatever_call_it_ends_at_there_is_a_whole_file_or_none(memory: Path, case: Case, ending: Ending) -> None:
    """RES-2, RES-5: the file is acknowledged and there, or the caller hears of it; and the next try succeeds."""
    ends(case, ending, memory)


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_where_there_are_no_hard_links(memory: Path, ending: Ending, monkeypatch: pytest.MonkeyPatch) -> None:
    """RES-2, RES-5: the name for people is a copy then."""
    monkeypatch.setattr(os, "link", _no_links)
    assert ends(Image(), ending, memory) > ends(Disputed(), ending, memory / "kept")


@pytest.mark.slow
def test_how_many_calls_that_were(memory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The number of calls at which each kind of file was ended, in each way."""
    counted = {type(case).__name__.lower(): ends(case, "EIO", memory / type(case).__name__) for case in CASES}
    with capsys.disabled():
        print(f"\nsystem calls ended at, in {len(ENDINGS)} ways each: {sum(counted.values())}: {counted}")


def ends(case: Case, ending: Ending, root: Path) -> int:
    """End at each call, look, sweep, and write again; returns how many calls there were."""
    (root / "whole").mkdir(parents=True)
    with system_calls() as made:
        case.write(root / "whole", 1)
    assert case.look(root / "whole")
    assert "fsync" in made
    for at, name in enumerate(made):
        folder = root / str(at)
        folder.mkdir()
        told = _ended(case, folder, at, ending)
        there = case.look(folder)
        assert there or not told, f"acknowledged and not there: ended at {at}, {name}"
        assert told or ending != "short", f"a short write is no failure: {at}, {name}"
        case.sweep(folder)
        assert case.look(folder) == there
        case.write(folder, 2)
        assert case.look(folder)
        case.sweep(folder)
    return len(made)


def _ended(case: Case, folder: Path, at: int, ending: Ending) -> bool:
    """Write with an end at call ``at``; whether it was acknowledged."""
    if ending == "kill":

        def work(tell: Callable[[str], None]) -> None:
            with system_calls(at, ending):
                case.write(folder, 1)
            tell("done")

        status, told = forked(work)
        assert (status, told) == (-9, [])
        return False
    try:
        with system_calls(at, ending):
            case.write(folder, 1)
    except DiskFull:
        assert ending == "ENOSPC"
        return False
    except (DiskFailed, OSError):
        return False
    return True
