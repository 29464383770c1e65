"""Whoever else is on the machine reads nothing, plants nothing and says nothing (SEC-7).

A whole life runs in a process that is told by the interpreter of each file it is about to touch, under a umask that
allows everybody everything.  So what is looked at is what another user could have seen then, and not only what
is left in the end.
"""

import json
import os
import signal
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bydawn import doctor
from bydawn.cli.main import main
from bydawn.inputs.building import Problem
from bydawn.inputs.copies import Fit
from bydawn.inputs.rejected import RejectedFile
from bydawn.single import write_request
from ledger.errors import LedgerPlace
from ledger.lock import RunLock, lock_path
from runtime.blobs import BlobStore
from runtime.disk import RealDisk
from runtime.images import Expected
from runtime.inbox import hints_of, is_message
from runtime.ports import DiskFailed
from tests.runtime.pictures import picture
from tests.system.shop import PATIENCE_S, ROOT, Shop, prompts, sandbox

# Run in a child: every file below the folder is looked at whenever the interpreter reports that something is opened,
# made, renamed or protected, and once more at the end.  Reports come before the act, so what was made by the last one
# is seen before anybody could have tightened it.
WATCHER = r"""
import os, sys, stat
root, found, busy = sys.argv[1], set(), False
ACTS = {"open", "os.mkdir", "os.rename", "os.chmod", "os.link", "os.symlink", "os.remove", "subprocess.Popen"}

def look():
    for folder, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(folder, name)
            try:
                mode = os.lstat(path).st_mode
            except FileNotFoundError:
                continue
            if mode & 0o077:
                found.add((os.path.relpath(path, root), oct(stat.S_IMODE(mode))))

def hook(event, arguments):
    global busy
    if event in ACTS and not busy:
        busy = True
        try:
            look()
        finally:
            busy = False

os.umask(0)
sys.addaudithook(hook)
from bydawn.cli.main import main
code = main(sys.argv[2:])
look()
print("LOOSE", sorted(found))
sys.exit(code)
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    (tmp_path / "work").mkdir(mode=0o755)
    with sandbox(tmp_path / "providers", latency=0.05) as url, Shop(tmp_path / "work", url) as shop:
        yield shop


def watched(shop: Shop, *arguments: str, own_sandbox: bool = False) -> str:
    """Run a command and say which of its files anybody else could open at any moment."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("BYDAWN_")}
    env |= shop.env | {"XDG_CONFIG_HOME": str(shop.folder), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    if own_sandbox:
        del env["BYDAWN_SANDBOX_URL"]
        env["BYDAWN_SANDBOX_LATENCY"] = "0.05"
    done = subprocess.run(
        [sys.executable, "-c", WATCHER, str(shop.folder / "out"), *arguments],
        cwd=shop.folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("LOOSE ")
    return last.removeprefix("LOOSE ")


def test_every_file_of_a_whole_life_is_private_from_its_first_byte(shop: Shop) -> None:
    """SEC-7: ledger with -wal, -shm, lock and key; images, blobs, parts, manifest; seals, plans, exports, backups."""
    table = shop.table("pots.jsonl", prompts("private", 3))
    (shop.folder / "out").mkdir(mode=0o700)
    ledger = ("--sandbox", "--ledger", "out/deeper/l.db")
    every = [
        ("run", table, "--to", "out/images/here", "--provider", "kie,together", *ledger),
        ("plan", table, "--save", "out/plan.json", *ledger),
        ("verify", "--seal", "out/head.json", *ledger),
        ("export", "pots", "--format", "csv", "-o", "out/e.csv", *ledger),
        ("ledger", "backup", "out/copies/b.db", *ledger),
        ("cancel", "pots", *ledger),
        ("image", "a private wish", "-o", "out/one.png", "--provider", "kie", *ledger),
    ]
    for command in every:
        assert watched(shop, *command) == "[]", command
    made = {path.name for path in (shop.folder / "out").rglob("*")}
    assert {"l.db", "l.db.key", "l.db.lock", "plan.json", "head.json", "e.csv", "b.db", "one.png"} <= made
    assert {"manifest.jsonl", ".bydawn", "blobs", "images"} <= made


def test_the_sandbox_that_a_run_starts_is_private_too(shop: Shop) -> None:
    """SEC-7: its jobs hold the prompts; and it is another process, with the umask of the one that starts it."""
    table = shop.table("pots.jsonl", prompts("practice", 2))
    (shop.folder / "out").mkdir(mode=0o700)
    assert (
        watched(shop, "run", table, "--sandbox", "--ledger", "out/l.db", "--provider", "kie", own_sandbox=True) == "[]"
    )
    place = shop.folder / "out" / "l.db.sandbox"
    address = (place / "address").read_text().strip()
    assert address.startswith("http://127.0.0.1:")
    try:
        assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (place, *place.rglob("*"))} == {0}
    finally:
        with urllib.request.urlopen(f"{address}/sandbox", timeout=PATIENCE_S) as hello:
            os.kill(json.load(hello)["pid"], signal.SIGTERM)  # else it would wait a while for the next run


def test_a_command_gives_the_umask_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = os.umask(0o027)
    try:
        main(["explain", "BD-112"])
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


# --- planted files ----------------------------------------------------------------------------------------------


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_is_untouched(tmp_path: Path) -> None:
    """SEC-7: in a folder that others can write to, a link in the place of a file we write is an old trick."""
    victim, ledger = tmp_path / "victim", tmp_path / "l.db"
    victim.write_text("precious")
    lock_path(ledger).symlink_to(victim)
    with pytest.raises(LedgerPlace):
        RunLock.take(ledger)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["blobs/1-1.part", "disputed/1-1.bin"])
def test_a_link_in_the_place_of_a_result_is_not_written_through(tmp_path: Path, name: str) -> None:
    """SEC-2, SEC-7: whole, in pieces, and as what is kept for dispute."""
    victim, root = tmp_path / "victim", tmp_path / "out"
    victim.write_text("precious")
    place = root / name
    for data in (picture(), b"no picture"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(victim)
        store = BlobStore(RealDisk(), root)
        store.put(data, part="1-1", expected=Expected())
        assert victim.read_text() == "precious"


def test_a_link_in_the_place_of_a_list_or_a_copy_is_not_written_through(tmp_path: Path) -> None:
    """SEC-7: of what is wrong with an input, of a reference that fits, and of what one image was asked with."""
    victim = tmp_path / "victim"
    victim.write_text("precious")

    def linked(part: str) -> None:
        (tmp_path / part).symlink_to(victim)

    linked("rejected.csv.part")
    with RejectedFile(tmp_path / "rejected.csv") as rejected:
        rejected.write(Problem(7, "prompt", "empty prompt", ""))
    linked("digest.part")
    copy = Fit(tmp_path, ("image/jpeg",), 0).copy(picture(), "digest")
    linked("request.jsonl.part")
    write_request(tmp_path / "request.jsonl", {"id": "a"})
    assert copy is not None
    for path in (tmp_path / "rejected.csv", copy, tmp_path / "request.jsonl"):
        assert not path.is_symlink()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert victim.read_text() == "precious"


def test_a_link_in_the_place_of_a_piece_is_an_error(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1-1.part").symlink_to(victim)
    with pytest.raises(DiskFailed):
        BlobStore(RealDisk(), tmp_path).spill(b"more", part="1-1", first=False)
    assert victim.read_text() == "precious"


def test_a_message_of_somebody_else_is_none() -> None:
    """SEC-7: messages can spend money."""

    def left_by(uid: int, mode: int = stat.S_IFREG | 0o600, size: int = 100) -> os.stat_result:
        return os.stat_result((mode, 1, 1, 1, uid, 0, size, 0, 0, 0))

    me = os.geteuid()
    assert is_message(left_by(me))
    assert is_message(left_by(0))
    assert not is_message(left_by(me + 1))
    assert not is_message(left_by(me, stat.S_IFIFO | 0o600))
    assert not is_message(left_by(me, size=1 << 20))


def test_doctor_names_what_others_can_reach(tmp_path: Path) -> None:
    """Rights that somebody changed afterwards, or that a copy lost."""
    ledger = tmp_path / "bydawn.db"
    hints_of(tmp_path / "bydawn.db.inbox").mkdir(parents=True)
    for path in (ledger, tmp_path / "bydawn.db.key"):
        path.touch()
    every = (ledger, tmp_path / "bydawn.db.key", tmp_path / "bydawn.db.inbox")

    def private() -> None:
        tmp_path.chmod(0o700)
        for path in every:
            path.chmod(0o700 if path.is_dir() else 0o600)

    private()
    assert doctor.place(ledger, "").state == "ok"
    for path in every:
        path.chmod(0o744)
        told = doctor.place(ledger, "")
        assert (told.state, str(path) in told.text, told.fix.endswith(str(path))) == ("note", True, True)
        private()
    tmp_path.chmod(0o777)
    assert "everybody can write" in doctor.place(ledger, "").text
