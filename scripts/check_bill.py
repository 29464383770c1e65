#!/usr/bin/env python3
"""Hold a provider's bill against the manifests of its batches: was every task charged exactly once?

Reads two things and nothing else: the bill of the sandbox (``GET /sandbox/bill``, or a file with its lines) and each
batch's ``manifest.jsonl``.  It never opens the ledger and imports nothing of bydawn, so it is a second opinion.  A
job on the bill and a task of the manifest belong together when they ask for the same picture: prompt, references,
aspect and resolution, byte for byte.

    scripts/check_bill.py http://127.0.0.1:8700 products-sandbox/manifest.jsonl
    scripts/check_bill.py bill.jsonl products-sandbox/manifest.jsonl --map prompt=Title --json
    scripts/check_bill.py bill.jsonl products-sandbox/manifest.jsonl products-2-sandbox/manifest.jsonl

Exit 0: the books agree; 1: something was paid twice, paid for nobody, or delivered without being paid; 2: usage.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict


class Job(TypedDict):
    """A line of the bill; other fields are ignored."""

    n: int
    job: str
    provider: str
    digest: str
    prompt: str
    aspect: str
    resolution: str
    charged_microusd: int
    state: str


@dataclass(frozen=True)
class Task:
    """A line of the manifest, as far as a bill is concerned.  ``wanted`` is how many images of it were bought on
    purpose: more than one when a reviewer rejected the first."""

    id: str
    status: str
    digest: str
    provider: str
    wanted: int
    shared: bool


@dataclass(frozen=True)
class Twice:
    """A task that was charged more often than it was wanted; ``jobs`` are the superfluous ones, the latest."""

    id: str
    status: str
    jobs: tuple[str, ...]
    microusd: int


@dataclass
class Verdict:
    tasks: int = 0
    shared: int = 0
    jobs: int = 0
    charged_microusd: int = 0
    once: list[str] = field(default_factory=list)
    twice: list[Twice] = field(default_factory=list)
    never: dict[str, str] = field(default_factory=dict)  # task -> status
    fruitless: list[Job] = field(default_factory=list)  # charged, and no image came of it
    running: list[str] = field(default_factory=list)  # jobs that are not charged yet
    nobody: list[Job] = field(default_factory=list)

    @property
    def twice_microusd(self) -> int:
        return sum(each.microusd for each in self.twice)

    @property
    def fruitless_microusd(self) -> int:
        return sum(job["charged_microusd"] for job in self.fruitless)

    @property
    def unpaid(self) -> list[str]:
        """Tasks with an image that no bill line accounts for."""
        return [task for task, status in self.never.items() if status == "succeeded"]

    @property
    def agrees(self) -> bool:
        return not (self.twice or self.nobody or self.unpaid)


class UsageError(Exception):
    """A sentence for the user; exit 2."""


# --- the comparison ---------------------------------------------------------------------------------------


def compare(bill: Iterable[Job], tasks: Iterable[Task]) -> Verdict:
    verdict = Verdict()
    wanting: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        verdict.tasks += 1
        if task.shared:
            verdict.shared += 1
        else:
            wanting[task.digest].append(task)
    charged: dict[str, list[Job]] = defaultdict(list)
    for job in bill:
        verdict.jobs += 1
        verdict.charged_microusd += job["charged_microusd"]
        paid_for_nothing = job["charged_microusd"] and job["state"] != "succeeded"
        if paid_for_nothing:
            verdict.fruitless.append(job)
        if job["digest"] not in wanting:
            verdict.nobody.append(job)
        elif paid_for_nothing:  # not an image that was bought twice: there is none
            continue
        elif job["charged_microusd"]:
            charged[job["digest"]].append(job)
        elif job["state"] == "running":
            verdict.running.append(job["job"])
    for digest, alike in wanting.items():
        _deal(verdict, alike, charged.get(digest, []))
    return verdict


def _deal(verdict: Verdict, tasks: Sequence[Task], jobs: Sequence[Job]) -> None:
    """Deal the charged jobs of one picture out to the tasks that want it, in the order of the bill.

    Tasks with an image come first: they must have been paid.  What is left over was paid twice.
    """
    left = list(jobs)
    for task in sorted(tasks, key=lambda task: task.status != "succeeded"):
        if left:
            del left[: task.wanted]
            verdict.once.append(task.id)
        else:
            verdict.never[task.id] = task.status
    if left:
        paid = sum(job["charged_microusd"] for job in left)
        verdict.once.remove(tasks[0].id)
        verdict.twice.append(Twice(tasks[0].id, tasks[0].status, tuple(job["job"] for job in left), paid))


# --- reading ----------------------------------------------------------------------------------------------


def read_bill(source: str) -> Iterator[Job]:
    """Yield the lines of a bill from a sandbox's address or a file."""
    if source.startswith(("http://", "https://")):
        with urllib.request.urlopen(f"{source.rstrip('/')}/sandbox/bill", timeout=60) as reply:
            yield from map(_job, reply)
    else:
        with Path(source).open("rb") as file:
            yield from map(_job, file)


def _job(line: bytes) -> Job:
    job: Job = json.loads(line)
    return job


def read_manifest(path: Path, columns: Mapping[str, str] | None = None) -> Iterator[Task]:
    """Yield the tasks of a manifest.  ``columns`` are the ``--map`` options of the run: field -> column."""
    named = dict(columns or {})
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield _task(json.loads(line), named)


def read_manifests(paths: Sequence[Path], columns: Mapping[str, str]) -> Iterator[Task]:
    """Yield the tasks of all batches that a bill is about; of several, each task is named after its folder too."""
    for path in paths:
        for task in read_manifest(path, columns):
            yield replace(task, id=f"{path.parent.name}/{task.id}") if len(paths) > 1 else task


def _task(row: dict[str, object], columns: dict[str, str]) -> Task:
    if "prompt" not in columns:
        alike = [name for name in row if name.lower() == "prompt"]
        if len(alike) != 1:
            raise UsageError(f"which column is the prompt?  --map prompt=COLUMN; there are: {', '.join(row)}")
        columns["prompt"] = alike[0]

    def text(name: str) -> str:
        column = columns.get(name, name)
        return str(row.get(name if "{" in column else column) or "")  # a template has no column of its own

    if text("prompt") == "[erased]":
        raise UsageError(f"the prompt of {row['id']} was erased: its jobs cannot be found on a bill")
    references = tuple(_by_content(each) for each in _listed(text("images")))
    return Task(
        id=str(row["id"]),
        status=str(row["status"]),
        digest=request_digest(text("prompt"), references, text("aspect_ratio"), text("resolution")),
        provider=str(row["provider"] or ""),
        wanted=max(1, int(str(row["version"]))),
        shared=row["shared_with"] is not None,
    )


def _listed(cell: str) -> list[str]:
    if cell.startswith("["):
        return [str(each) for each in json.loads(cell)]
    return cell.split("|") if cell else []


def _by_content(reference: str) -> str:
    """A local file counts by its bytes, wherever the provider was given them; a URL is what it is."""
    if "://" in reference:
        return reference
    return f"sha256:{hashlib.sha256(Path(reference).read_bytes()).hexdigest()[:32]}"


def request_digest(prompt: str, references: Sequence[str], aspect: str, resolution: str) -> str:
    """Digest what makes a picture that picture, as the sandbox's bill does."""
    digest = hashlib.sha256()
    for part in (prompt, aspect, resolution, *references):
        raw = part.encode()
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()


# --- telling ----------------------------------------------------------------------------------------------


def dollars(microusd: int) -> str:
    return f"${microusd / 1e6:,.2f}"


def lines(verdict: Verdict, *, named: int = 20) -> Iterator[str]:
    yield f"{verdict.tasks:,} tasks; {verdict.jobs:,} jobs on the bill, {dollars(verdict.charged_microusd)} charged"
    yield f"  paid once   {len(verdict.once):>7,}"
    yield f"  paid twice  {len(verdict.twice):>7,}   {dollars(verdict.twice_microusd)}"
    for each in verdict.twice[:named]:
        yield f"      {each.id} ({each.status}): {dollars(each.microusd)} too much, {', '.join(each.jobs)}"
    yield f"  never paid  {len(verdict.never):>7,}"
    for task, status in list(verdict.never.items())[:named]:
        yield f"      {task} ({status})" + (": it has an image that nobody charged for" * (status == "succeeded"))
    if verdict.shared:
        yield f"  shared      {verdict.shared:>7,}   use another task's image"
    if verdict.fruitless:
        yield f"  no image    {len(verdict.fruitless):>7,}   {dollars(verdict.fruitless_microusd)} charged all the same"
    if verdict.running:
        yield f"  running     {len(verdict.running):>7,}   jobs that may still be charged"
    yield f"  nobody's    {len(verdict.nobody):>7,}   {dollars(sum(j['charged_microusd'] for j in verdict.nobody))}"
    for job in verdict.nobody[:named]:
        yield f"      {job['provider']} {job['job']}: no task of the manifest wants {job['prompt'][:40]!r}"


def as_data(verdict: Verdict) -> dict[str, object]:
    return {
        "type": "bill",
        "agrees": verdict.agrees,
        "tasks": verdict.tasks,
        "shared": verdict.shared,
        "jobs": verdict.jobs,
        "charged_microusd": verdict.charged_microusd,
        "once": len(verdict.once),
        "twice": [{"id": each.id, "jobs": each.jobs, "microusd": each.microusd} for each in verdict.twice],
        "twice_microusd": verdict.twice_microusd,
        "never": verdict.never,
        "fruitless": [job["job"] for job in verdict.fruitless],
        "fruitless_microusd": verdict.fruitless_microusd,
        "running": verdict.running,
        "nobody": [job["job"] for job in verdict.nobody],
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Was every task of a batch charged exactly once?")
    parser.add_argument("bill", help="address of the sandbox, or a file with the lines of its bill")
    parser.add_argument(
        "manifest", type=Path, nargs="+", help="manifest.jsonl of the batch, of each where there are more"
    )
    parser.add_argument("--map", action="append", default=[], metavar="FIELD=COLUMN", help="as it was given to run")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = parser.parse_args(argv)
    try:
        columns = dict(each.split("=", 1) for each in given.map)
        verdict = compare(read_bill(given.bill), read_manifests(given.manifest, columns))
    except (UsageError, OSError, urllib.error.URLError, ValueError, KeyError) as problem:
        print(f"check_bill: {problem}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps(as_data(verdict)))
    else:
        print("\n".join(lines(verdict)))
        print("the books agree" if verdict.agrees else "the books do not agree")
    return 0 if verdict.agrees else 1


if __name__ == "__main__":
    raise SystemExit(main())
