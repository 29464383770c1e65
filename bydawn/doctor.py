"""What on this machine could break a run: each check looks at one thing and says what to do about it.

Nothing is sent anywhere and no key is read out: of keys only the names of their variables are shown.  The one
thing written is a small file in the ledger's folder, to see how long the disk takes to make a write durable.
"""

import os
import shutil
import stat
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from adapters.registry import PROVIDERS, Added
from ledger.engine import EngineFacts, network_filesystem

State = Literal["ok", "note", "bad"]

GB = 1_000_000_000
IMAGE_BYTES = 2_000_000  # a usual 1K or 2K result
SAFE_FREE_BYTES = 2 * GB
SLOW_SYNC_S = 0.05
FEW_FILES = 1024


class Check(NamedTuple):
    """``note`` is worth knowing, ``bad`` must be put right before a run."""

    name: str
    state: State
    text: str
    fix: str = ""


def examine(
    ledger: Path, keys: dict[str, bool], *, engine: EngineFacts, mounts: str, packages: Added
) -> Iterator[Check]:
    """Look at everything; ``keys`` says of each provider's variable whether it is set."""
    folder = ledger.parent
    yield python_version()
    yield sqlite_engine(engine)
    yield place(ledger, mounts)
    yield free_space(folder)
    yield sync_speed(folder)
    yield wall_clock(ledger)
    yield open_files()
    yield key_names(keys)
    yield from provider_packages(packages)


def python_version() -> Check:
    return Check("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")


def sqlite_engine(facts: EngineFacts) -> Check:
    """Name an engine with the WAL-reset fault, and why one writer is safe on it."""
    if not facts.wal_reset_fault:
        return Check("sqlite", "ok", facts.version)
    return Check(
        "sqlite",
        "note",
        f"{facts.version} has the WAL-reset fault (fixed in 3.51.3, 3.50.7, 3.44.6): two connections that write or "
        "checkpoint at the same moment can damage a file.  bydawn is safe: one connection writes, all others only read",
        "never write to a ledger with another program while a run goes on; read it as you like",
    )


def place(ledger: Path, mounts: str) -> Check:
    folder = ledger.parent
    if not folder.is_dir():
        return Check("ledger", "bad", f"the folder {folder} does not exist", f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Check("ledger", "bad", f"{folder} is not writable by you", "choose another folder, or --ledger FILE")
    if kind := network_filesystem(folder.resolve(), mounts):
        return Check("ledger", "bad", f"{folder} is on a network file system ({kind})", "--ledger FILE on a local disk")
    if folder.stat().st_mode & stat.S_IWOTH:
        return Check("ledger", "note", f"everybody can write in {folder}", "a folder of your own, or --ledger FILE")
    if not ledger.exists():
        return Check("ledger", "note", f"none yet; the first run makes {ledger}")
    mode = stat.S_IMODE(ledger.stat().st_mode)
    if not os.access(ledger, os.R_OK | os.W_OK):
        return Check(
            "ledger", "bad", f"{ledger} is not readable and writable by you", f"chown it, or chmod 600 {ledger}"
        )
    for path in (ledger, ledger.with_name(f"{ledger.name}.key"), ledger.with_name(f"{ledger.name}.inbox")):
        if path.exists() and (loose := stat.S_IMODE(path.stat().st_mode)) & 0o077:
            fix = f"chmod {'700' if path.is_dir() else '600'} {path}"
            return Check("ledger", "note", f"{path} is open to others (mode {loose:03o})", fix)
    return Check("ledger", "ok", f"{ledger}, {ledger.stat().st_size / 1e6:,.1f} MB, mode {mode:03o}")


def free_space(folder: Path) -> Check:
    existing = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    free = shutil.disk_usage(existing).free
    text = f"{free / GB:,.1f} GB free, room for about {free // IMAGE_BYTES:,} images of 2 MB"
    if free < SAFE_FREE_BYTES:
        return Check("disk", "note", text, "a run stops buying in time and goes on after you have freed space")
    return Check("disk", "ok", text)


def sync_speed(folder: Path) -> Check:
    """Time what every purchase waits for: a small write made durable."""
    if not os.access(folder, os.W_OK):
        return Check("fsync", "bad", f"cannot write in {folder}", "choose another folder, or --ledger FILE")
    took = []
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".bydawn-doctor-") as file:
            for _ in range(12):
                start = time.perf_counter()
                file.write(b"\0" * 4096)
                file.flush()
                os.fsync(file.fileno())
                took.append(time.perf_counter() - start)
    except OSError as error:
        return Check("fsync", "bad", f"the disk refused a write: {error.strerror}", "free space, or another disk")
    median = statistics.median(took)
    text = f"{median * 1000:.2f} ms for a durable write"
    if median > SLOW_SYNC_S:
        return Check("fsync", "note", f"{text}: slow, but writes are grouped", "a local SSD makes a night shorter")
    if median < 0.00002:
        return Check("fsync", "note", f"{text}: this disk seems not to sync; a power cut could lose the last commits")
    return Check("fsync", "ok", text)


def wall_clock(ledger: Path) -> Check:
    """The clock decides nothing about buying, but records and result lifetimes are told by it."""
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(now))
    written = [path.stat().st_mtime for path in (ledger, Path(f"{ledger}-wal")) if path.exists()]
    if written and max(written) > now + 5:
        late = max(written) - now
        return Check("clock", "bad", f"{shown} is {late:,.0f} s before the ledger's last write", "set the clock (NTP)")
    if now < Path(__file__).stat().st_mtime - 86_400:
        return Check("clock", "bad", f"{shown} is before this program was installed", "set the clock (NTP)")
    return Check("clock", "ok", shown)


def open_files() -> Check:
    try:
        import resource
    except ImportError:  # not on Windows
        return Check("open files", "ok", "not limited here")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FEW_FILES:
        return Check("open files", "note", f"limit {soft}: few for many images in flight", "ulimit -n 4096")
    return Check("open files", "ok", "no limit" if soft == resource.RLIM_INFINITY else f"limit {soft:,}")


def key_names(keys: dict[str, bool]) -> Check:
    there = [name for name, is_set in keys.items() if is_set]
    missing = [name for name, is_set in keys.items() if not is_set]
    if not there:
        return Check("keys", "note", f"none set ({', '.join(missing)})", "set one, or practise with --sandbox")
    text = f"set: {', '.join(there)}" + (f"; not set: {', '.join(missing)}" if missing else "")
    return Check("keys", "ok", text)


def provider_packages(packages: Added) -> Iterator[Check]:
    """Name the providers that packages add, and each one that promises a provider and cannot keep it."""
    added = f", and from packages: {', '.join(packages.entries)}" if packages.entries else ""
    yield Check("providers", "ok", f"{len(PROVIDERS)} built in{added}")
    for point, reason in packages.left_out.items():
        yield Check("providers", "note", f"left out: {point}: {reason}", "repair or uninstall the package that adds it")
