"""What came of a tortured batch, judged from outside: the bill of the sandbox against the batch's manifest.

The ledger is not asked what was bought.  It is read at the moments of the kills only, for what was open then (which
bounds what may be held) and what was finished (which nobody may ask for again).

``scripts/check_bill.py`` does the comparison of the two books, too, on purpose once more and without a line of
bydawn: it is the second opinion on this one, and a test holds the two against each other.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from adapters.sandbox.house import BillLine
from adapters.sandbox.picture import read_digest, request_digest
from bydawn.torture.planning import Round

SETTLED = frozenset({"succeeded", "failed", "held", "cancelled"})


class Wanted(msgspec.Struct, frozen=True):
    """A line of the manifest.  ``own``: the image, where there is one, is the picture that was asked for."""

    id: str
    status: str
    digest: str
    versions: int = 1
    shared: bool = False
    cost_microusd: int = 0
    own: bool = True


class Cut(msgspec.Struct, frozen=True):
    """How the ledger stood when a life ended, and how long the bill was.

    ``open``: tasks with a paid request that was not answered on record; ``began``: some of them in this very life.
    """

    billed: int
    finished: frozenset[str] = frozenset()
    open: frozenset[str] = frozenset()
    began: bool = False


class Terms(msgspec.Struct, frozen=True):
    """What the sandbox does by itself, and so does not speak against bydawn.

    ``loses_answers``: purchases fall into doubt without a kill.  ``spoils``: images are unusable, and another is
    bought on purpose; then a second charge counts as paid twice where the manifest does not own up to it.
    """

    loses_answers: bool = False
    spoils: bool = False


class Broken(msgspec.Struct, frozen=True):
    """A promise that was not kept; ``tasks`` are those to look at."""

    promise: str
    tasks: tuple[str, ...] = ()
    detail: str = ""


class Verdict(msgspec.Struct, frozen=True):
    tasks: int
    jobs: int
    charged_microusd: int
    twice: tuple[str, ...]
    twice_microusd: int
    held: tuple[str, ...]
    lost: tuple[str, ...]
    unfinished: tuple[str, ...]
    failed: int
    broken: tuple[Broken, ...]


def judge(
    played: Round,
    tasks: Sequence[Wanted],
    bill: Sequence[BillLine],
    cuts: Sequence[Cut],
    *,
    terms: Terms,
    verified: bool,
) -> Verdict:
    """Say what came of a round, and which promises were not kept."""
    owners: dict[str, list[Wanted]] = defaultdict(list)
    for task in tasks:
        if not task.shared:
            owners[task.digest].append(task)
    jobs: dict[str, list[BillLine]] = defaultdict(list)
    for line in bill:
        jobs[line.digest].append(line)
    charged = {
        digest: [line.charged_microusd for line in lines if line.charged_microusd] for digest, lines in jobs.items()
    }

    twice, twice_microusd, unpaid, lost = [], 0, [], []
    for digest, alike in owners.items():
        paid = charged.get(digest, [])
        surplus = paid[sum(task.versions for task in alike) :]
        owned_up = terms.spoils and sum(task.cost_microusd for task in alike) >= sum(paid)
        if surplus and not owned_up:
            twice.append(alike[0].id)
            twice_microusd += sum(surplus)
        done = [task for task in alike if task.status == "succeeded"]
        if len(done) > len(paid):
            unpaid += [task.id for task in done[len(paid) :]]
        without = [task for task in alike if task.status in ("failed", "cancelled")]
        if without and len(paid) > len(done) and not owned_up:
            lost += [task.id for task in without]

    held = [task.id for task in tasks if task.status == "held" and not task.shared]
    open_once = frozenset().union(*(cut.open for cut in cuts))
    provable = all(target.recovery in ("lookup", "listing") for target in played.targets)
    nobody = [line for digest, lines in jobs.items() if digest not in owners for line in lines]
    strangers = [task.id for task in tasks if not task.own]
    unfinished = [task.id for task in tasks if task.status not in SETTLED]
    broken = [
        Broken("nothing is paid twice", tuple(twice)),
        Broken("nothing that was paid for is lost", tuple(lost)),
        Broken("every task ends", tuple(unfinished)),
        Broken("every image is the one that was asked for", tuple(strangers)),
        Broken("every image was paid for", tuple(unpaid)),
        Broken("no finished task is asked for again", tuple(_asked_again(owners, bill, cuts))),
        Broken("every job on the bill belongs to a task", (), ", ".join(line.job for line in nobody)),
        Broken("verify finds nothing", (), "" if verified else "verify ended with a mismatch"),
    ]
    if not terms.loses_answers:
        broken.append(Broken("only what was open at a kill is held", tuple(sorted(set(held) - open_once))))
        if provable:
            broken.append(Broken("where a purchase can be found again, nothing is held", tuple(held)))
    return Verdict(
        tasks=len(tasks),
        jobs=len(bill),
        charged_microusd=sum(line.charged_microusd for line in bill),
        twice=tuple(twice),
        twice_microusd=twice_microusd,
        held=tuple(held),
        lost=tuple(lost),
        unfinished=tuple(unfinished),
        failed=sum(task.status == "failed" for task in tasks),
        broken=tuple(each for each in broken if each.tasks or each.detail),
    )


def _asked_again(
    owners: Mapping[str, Sequence[Wanted]], bill: Iterable[BillLine], cuts: Sequence[Cut]
) -> Iterator[str]:
    """Tasks that were finished at a kill, and of which the bill has a later job."""
    last = {line.digest: line.n for line in bill}
    for digest, alike in owners.items():
        ids = {task.id for task in alike}
        finished = next((cut for cut in cuts if ids <= cut.finished), None)
        if finished is not None and last.get(digest, 0) > finished.billed:
            yield alike[0].id


# --- reading the manifest ---------------------------------------------------------------------------------


def read_manifest(folder: Path, columns: Mapping[str, str]) -> list[Wanted]:
    """Read what a batch's folder says of its tasks.  ``columns``: field -> column, as ``--map`` was given."""
    lines = (folder / "manifest.jsonl").read_bytes().splitlines()
    return [_wanted(json.loads(line), folder, columns) for line in lines]


def _wanted(row: Mapping[str, object], folder: Path, columns: Mapping[str, str]) -> Wanted:
    def text(field: str) -> str:
        column = columns.get(field, field)
        return str(row.get(field if "{" in column else column) or "")  # a template has no column of its own

    references = tuple(_by_content(each) for each in _listed(text("images")))
    digest = request_digest(text("prompt"), references, text("aspect_ratio"), text("resolution")).hex()
    file, flags = row["file"], row["flags"]
    blank = isinstance(flags, list) and "blank" in flags
    return Wanted(
        id=str(row["id"]),
        status=str(row["status"]),
        digest=digest,
        versions=max(1, int(str(row["version"]))),
        shared=row["shared_with"] is not None,
        cost_microusd=int(str(row["cost_microusd"])),
        own=file is None or blank or _drawn(folder / str(file)) == digest,
    )


def _drawn(image: Path) -> str:
    """The digest that is drawn in a picture of the sandbox; empty when it is none."""
    try:
        return read_digest(image.read_bytes()).hex()
    except (OSError, ValueError):
        return ""


def _listed(cell: str) -> list[str]:
    if cell.startswith("["):
        return [str(each) for each in json.loads(cell)]
    return cell.split("|") if cell else []


def _by_content(reference: str) -> str:
    if "://" in reference:
        return reference
    return f"sha256:{hashlib.sha256(Path(reference).read_bytes()).hexdigest()}"
