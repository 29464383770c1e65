#!/usr/bin/env python3
"""``make demo``: a night in a minute, killed in the middle.

A batch of 300 real prompts is bought from three emulated providers, killed with ``kill -9`` half-way, continued with
the same command, verified, and held against the providers' own bill.  Everything happens in ``demo/``, which is made
anew; no keys, no charge, no network.  Exit 0 only if every promise was seen to hold.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # scripts/ itself is on the path, but our helpers are imported by their full name

from PIL import Image, ImageDraw, ImageFont  # noqa: E402

from ledger.errors import LedgerError  # noqa: E402
from ledger.reader import Reader  # noqa: E402
from scripts import check_bill  # noqa: E402

FOLDER = ROOT / "demo"
PROMPTS = ROOT / "examples" / "parti-prompts.tsv"
LEDGER = FOLDER / "bydawn-sandbox.db"
OUTPUT = FOLDER / "parti-sandbox"
BYDAWN = Path(sys.executable).with_name("bydawn")
RUN = ["run", "parti.tsv", "--map", "prompt=Prompt", "--aspect", "1:1,9:16,16:9"]
RUN += ["--provider", "kie,replicate,segmind", "--sandbox"]

TASKS = 300
ASPECTS = 3
KILL_AT, LATEST = 0.4, 0.8  # of the tasks settled; 0.2 is the earliest that would count
EARLIEST = 0.2
OPEN_AT_LEAST = 10
PAUSE_S = 2.0
PATIENCE_S = 120.0
COLOURS = {"kie": (196, 86, 52), "replicate": (46, 110, 142), "segmind": (106, 132, 52)}
SETTLED = ("succeeded", "failed", "held", "cancelled")


class DemoFailed(Exception):
    """A promise was not seen to hold; the sentence says which."""


class Cut(NamedTuple):
    """What the ledger holds at one moment.  ``unacknowledged`` is the part of ``open`` at Kie that no answer has come
    for: after a kill nobody can ask Kie about those."""

    settled: int
    open: int
    unacknowledged: int

    @property
    def share(self) -> float:
        return self.settled / TASKS


def main() -> int:
    started = time.monotonic()
    try:
        prepare()
        with sandbox_ended():
            cut = kill_in_the_middle()
            say(f"pause of {PAUSE_S:.0f} s: the providers go on without us")
            time.sleep(PAUSE_S)
            go_on()
            bydawn("verify", "--sandbox")
            read_bill(cut)
            sheet = contact_sheet()
    except DemoFailed as failed:
        print(f"\ndemo failed: {failed}", file=sys.stderr)
        return 1
    print()
    for name, path in (
        ("contact sheet", sheet),
        ("images", OUTPUT / "images"),
        ("manifest", OUTPUT / "manifest.jsonl"),
        ("ledger", LEDGER),
    ):
        print(f"{name:<14} {relative(path)}")
    print(f"done in {time.monotonic() - started:.0f} s")
    return 0


# --- the steps --------------------------------------------------------------------------------------------


def prepare() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    # Marks the folder as a project, so that a ledger in the folder above is not taken for the demo's.
    (FOLDER / "bydawn.toml").touch()
    head, *rows = PROMPTS.read_bytes().splitlines(keepends=True)
    count = TASKS // ASPECTS
    spread = [rows[n * len(rows) // count] for n in range(count)]
    (FOLDER / "parti.tsv").write_bytes(b"".join([head, *spread]))
    print(
        f"{TASKS} tasks: {count} of the PartiPrompts in {ASPECTS} aspects, from Kie, Replicate and Segmind (emulated)\n"
    )


def kill_in_the_middle() -> Cut:
    """Start the batch and kill -9 it, between 20 % and 80 % of the tasks and with at least 10 attempts open."""
    command(*RUN)
    process = start(*RUN)
    deadline = time.monotonic() + PATIENCE_S
    try:
        while True:
            cut = look()
            if cut.share >= KILL_AT and (cut.open >= OPEN_AT_LEAST or cut.share > LATEST):
                break
            if process.poll() is not None:
                raise DemoFailed(f"the run ended before it could be killed (exit {process.returncode}):\n{log()}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"only {cut.settled} tasks were settled after {PATIENCE_S:.0f} s:\n{log()}")
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    cut = look()  # what was durable when it died
    say(f"kill -9 of process {process.pid}")
    say(f"{cut.settled} of {TASKS} tasks settled ({cut.share:.0%}), {cut.open} attempts open")
    if not EARLIEST <= cut.share <= LATEST:
        raise DemoFailed(f"the kill should fall between {EARLIEST:.0%} and {LATEST:.0%} of the tasks")
    if cut.open < OPEN_AT_LEAST:
        raise DemoFailed(f"at least {OPEN_AT_LEAST} attempts should have been open")
    return cut


def go_on() -> None:
    command(*RUN)
    process = start(*RUN)
    code = process.wait()
    text = log()
    if code not in (0, 3):  # 3: finished, something is held
        raise DemoFailed(f"the second run ended with exit {code}:\n{text}")
    for line in text.splitlines():
        if "succeeded" in line:
            say(line)


def read_bill(cut: Cut) -> None:
    """Hold the providers' bill against the manifest: two files that know nothing of the ledger."""
    address = (LEDGER.with_name(LEDGER.name + ".sandbox") / "address").read_text().strip()
    bill = list(check_bill.read_bill(address))
    (FOLDER / "bill.jsonl").write_text("".join(json.dumps(line) + "\n" for line in bill))
    print("the providers' bill, held against the manifest (scripts/check_bill.py)")
    manifest = list(check_bill.read_manifest(OUTPUT / "manifest.jsonl"))
    verdict = check_bill.compare(bill, manifest)
    held = held_at_risk()
    say(f"paid once   {len(verdict.once):>4} tasks, {check_bill.dollars(verdict.charged_microusd)}")
    say(f"paid twice  {len(verdict.twice):>4} tasks, {check_bill.dollars(verdict.twice_microusd)}")
    say(f"held        {len(held):>4} tasks, {check_bill.dollars(sum(each for _, _, each in held))} at risk")
    for task, provider, microusd in held:
        say(f"  {task}: {provider} cannot say whether it took the job, {check_bill.dollars(microusd)}")
    if held:
        say("  decide with: bydawn resolve parti --sandbox --all --buy-again  (or --give-up)")
    succeeded = sum(task.status == "succeeded" for task in manifest)
    for broken, promise in (
        (verdict.twice, "nothing is paid twice"),
        (verdict.nobody, "every job on the bill belongs to a task"),
        (verdict.unpaid, "every image was paid for"),
        (succeeded + len(held) != TASKS, "every task has its image or is held"),
        ([name for _, name, _ in held if name != "kie"], "only Kie leaves anything in doubt"),
        (len(held) > cut.unacknowledged, "no more is held than was open at the kill"),
    ):
        if broken:
            raise DemoFailed(f"the bill denies that {promise}\n" + "\n".join(check_bill.lines(verdict)))


def contact_sheet(columns: int = 24, side: int = 72) -> Path:
    """Draw all images on one page, in the order of the manifest; the bar below each tells who made it."""
    gap, head = 8, 48
    rows = [json.loads(line) for line in (OUTPUT / "manifest.jsonl").read_text("utf-8").splitlines()]
    step = side + gap
    sheet = Image.new("RGB", (columns * step + gap, head + -(-len(rows) // columns) * step + gap), (250, 248, 243))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=18)
    images = sum(row["file"] is not None for row in rows)
    pen.text((gap, 14), f"bydawn demo: {images} images, one kill -9, nothing paid twice", fill=(31, 41, 66), font=font)
    for place, (provider, colour) in enumerate(COLOURS.items()):
        pen.text((sheet.width - (3 - place) * 110, 14), provider, fill=colour, font=font)
    for place, row in enumerate(rows):
        if row["file"] is None:  # held: the gap shows
            continue
        left, top = gap + place % columns * step, head + place // columns * step
        with Image.open(OUTPUT / row["file"]) as image:
            image.draft("RGB", (side * 2, side * 2))  # JPEGs are decoded small, which is most of the time here
            small = image.convert("RGB")
        small.thumbnail((side, side - 4))
        sheet.paste(small, (left + (side - small.width) // 2, top + (side - 4 - small.height) // 2))
        pen.rectangle((left, top + side - 2, left + side, top + side), fill=COLOURS[row["provider"]])
    path = FOLDER / "contact-sheet.png"
    sheet.save(path)
    return path


# --- tools ------------------------------------------------------------------------------------------------


def look() -> Cut:
    """Read how far the batch is; all zero before it exists."""
    if not LEDGER.exists():
        return Cut(0, 0, 0)
    try:
        with Reader(LEDGER) as reader:
            batch = reader.batch_by_name("parti")
            if batch is None:
                return Cut(0, 0, 0)
            settled = sum(row.n for row in reader.counts(batch) if row.state in SETTLED)
            live = reader.live()
            doubtful = sum(each.account == "kie" and each.phase in ("intended", "ambiguous") for each in live)
            return Cut(settled, len(live), doubtful)
    except LedgerError:  # it is being made
        return Cut(0, 0, 0)


def held_at_risk() -> list[tuple[str, str, int]]:
    """Id, provider and dollars of what is held."""
    found = []
    with Reader(LEDGER) as reader:
        batch = reader.batch_by_name("parti") or 0
        for live in reader.held(batch):
            attempt, row = live.state.attempts[live.attempt - 1], reader.task(batch, live.n)
            found.append((row.id if row else str(live.n), attempt.provider, attempt.ceiling_microusd))
    return found


def environment() -> dict[str, str]:
    """The caller's, without settings of bydawn: the demo is the same for everybody."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BYDAWN_")}


def start(*arguments: str) -> subprocess.Popen[bytes]:
    with (FOLDER / "run.log").open("wb") as out:
        return subprocess.Popen([BYDAWN, *arguments], cwd=FOLDER, env=environment(), stdout=out, stderr=out)


def log() -> str:
    return (FOLDER / "run.log").read_text("utf-8", "replace")


def bydawn(*arguments: str) -> None:
    """Run a command, show what it says, and insist on its success."""
    command(*arguments)
    done = subprocess.run([BYDAWN, *arguments], cwd=FOLDER, env=environment(), capture_output=True, text=True)
    for line in (done.stdout + done.stderr).splitlines():
        say(line.replace(f"{FOLDER}{os.sep}", ""))
    if done.returncode:
        raise DemoFailed(f"bydawn {arguments[0]} ended with exit {done.returncode}")


@contextmanager
def sandbox_ended() -> Iterator[None]:
    """End the sandbox that the first run starts; left alone it would go by itself after a while."""
    try:
        yield
    finally:
        address = LEDGER.with_name(LEDGER.name + ".sandbox") / "address"
        with suppress(OSError):  # it was never started, or has gone already
            about = urllib.request.urlopen(f"{address.read_text().strip()}/sandbox", timeout=10).read()
            os.kill(json.loads(about)["pid"], signal.SIGTERM)


def command(*arguments: str) -> None:
    print(f"$ bydawn {' '.join(arguments)}", flush=True)


def say(line: str) -> None:
    print(f"  {line}", flush=True)


def relative(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


if __name__ == "__main__":
    raise SystemExit(main())
