"""What came of a tortured batch, judged from outside: the bill of the sandbox against the batch's manifest.

The ledger is not asked what was bought.  It is read at the moments of the kills only, for what was open then (which
bounds what may be held) and what was finished (which nobody may ask for again); and in the end for how much buying
again was allowed to cost, where it was allowed.

``scripts/check_bill.py`` does the comparison of the two books, too, on purpose once more and without a line of
bydawn: it is the second opinion on this one, and a test holds the two against each other.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from adapters.sandbox.house import BillLine
from adapters.sandbox.picture import read_digest, request_digest
from bydawn.torture.planning import Round

SETTLED = frozenset({"succeeded", "failed", "held", "cancelled"})


class Wanted(msgspec.Struct, frozen=True):
    """A line of the manifest.

    ``own``: the image, where there is one, is the picture that was asked for; ``whole``: it is on the disk, with the
    bytes that the manifest tells, where there should be one.
    """

    id: str
    status: str
    digest: str
    provider: str = ""
    versions: int = 1
    shared: bool = False
    cost_microusd: int = 0
    own: bool = True
    whole: bool = True


class Cut(msgspec.Struct, frozen=True):
    """How the ledger stood when a life ended, and how long the bill was.

    ``open``: tasks with a paid request of this very life that was not answered on record.  What an earlier life had
    left open does not count again: else a task could come into doubt without a kill and never be noticed.
    """

    billed: int
    finished: frozenset[str] = frozenset()
    open: frozenset[str] = frozenset()


class Terms(msgspec.Struct, frozen=True):
    """What the sandbox does by itself, and so does not speak against bydawn.

    ``loses_answers``: purchases fall into doubt without a kill.  ``spoils``: images are unusable, and another is
    bought on purpose; then a second charge counts as paid twice where the manifest does not own up to it.
    """

    loses_answers: bool = False
    spoils: bool = False


class Again(msgspec.Struct, frozen=True):
    """What a round has bought beside doubtful purchases (``--on-unknown resubmit``), as its ledger has it.

    ``cost_microusd``: charged or still reserved.
    ``ceiling_microusd``: what they could have come to before their charges were known; no intent that found no room
    can have found more than that taken.
    ``waiting``: tasks that are still in doubt, held or queued once more because buying them again was refused, and
    what each could cost.
    ``unknown``: of how many purchases of a task nobody knows, whatever became of the task since; the ledger shows
    their dollars, so they are not lost.
    """

    allowed_microusd: int
    purchases: int = 0
    cost_microusd: int = 0
    ceiling_microusd: int = 0
    waiting: Mapping[str, int] = {}
    unknown: Mapping[str, int] = {}


class Broken(msgspec.Struct, frozen=True):
    """A promise that was not kept; ``tasks`` are those to look at."""

    promise: str
    tasks: tuple[str, ...] = ()
    detail: str = ""


class Verdict(msgspec.Struct, frozen=True):
    tasks: int
    jobs: int
    charged_microusd: int
    fruitless_microusd: int
    twice: tuple[str, ...]
    twice_microusd: int
    held: tuple[str, ...]
    held_billed: int
    lost: tuple[str, ...]
    unfinished: tuple[str, ...]
    failed: int
    broken: tuple[Broken, ...]
    again: Again | None = None


def judge(
    played: Round,
    tasks: Sequence[Wanted],
    bill: Sequence[BillLine],
    cuts: Sequence[Cut],
    *,
    terms: Terms,
    verified: bool,
    again: Again | None = None,
) -> Verdict:
    """Say what came of a round, and which promises were not kept.  ``again``: where buying again was allowed."""
    owners, images = _owners(tasks), _images(bill)
    weighed = _weigh(owners, images, unknown=again.unknown if again else {}, spoils=terms.spoils)
    waiting = again.waiting if again else {}
    held = [task for task in tasks if (task.status == "held" or task.id in waiting) and not task.shared]
    unfinished = tuple(task.id for task in tasks if task.status not in SETTLED and task.id not in waiting)
    twice = tuple(owners[digest][0].id for digest in weighed.twice)
    twice_microusd = sum(weighed.twice.values())
    broken = [
        Broken("nothing that was paid for is lost", weighed.lost),
        Broken("every task ends", unfinished),
        Broken("every image is the one that was asked for", tuple(task.id for task in tasks if not task.own)),
        Broken("every image is on the disk as it was recorded", tuple(task.id for task in tasks if not task.whole)),
        Broken("every image was paid for", weighed.unpaid),
        Broken("no finished task is asked for again", tuple(_asked_again(owners, bill, cuts))),
        Broken("every job on the bill belongs to a task", (), _strangers(owners, bill)),
        Broken("verify finds nothing", (), "" if verified else "verify ended with a mismatch"),
    ]
    if again is None:
        broken.append(Broken("nothing is paid twice", twice))
    else:
        broken += _within_the_budget(again, twice, twice_microusd)
    if not terms.loses_answers:
        calm, stray = _not_open_at_a_kill(owners, weighed.twice, held, cuts)
        broken += [
            Broken("only what was open at a kill is bought again", calm if again else ()),
            Broken("only what was open at a kill is held", stray),
            Broken("where a purchase can be found again, nothing is held", tuple(_findable(played, held, bill))),
        ]
    if not terms.spoils:
        called = tuple(_called_about(owners, images))
        broken.append(Broken("nothing is held that its provider has called about", called))
    return Verdict(
        tasks=len(tasks),
        jobs=len(bill),
        charged_microusd=sum(line.charged_microusd for line in bill),
        fruitless_microusd=sum(line.charged_microusd for line in bill if line.state != "succeeded"),
        twice=twice,
        twice_microusd=twice_microusd,
        held=tuple(task.id for task in held),
        held_billed=sum(task.digest in images for task in held),
        lost=weighed.lost,
        unfinished=unfinished,
        failed=sum(task.status == "failed" for task in tasks),
        broken=tuple(each for each in broken if each.tasks or each.detail),
        again=again,
    )


def _owners(tasks: Sequence[Wanted]) -> dict[str, list[Wanted]]:
    """The tasks that buy an image of their own, by what they ask for."""
    owners: dict[str, list[Wanted]] = defaultdict(list)
    for task in tasks:
        if not task.shared:
            owners[task.digest].append(task)
    return owners


def _images(bill: Sequence[BillLine]) -> dict[str, list[BillLine]]:
    """The images that were charged: what is charged for a failure buys nothing, so it is no image bought twice."""
    images: dict[str, list[BillLine]] = defaultdict(list)
    for line in bill:
        if line.charged_microusd and line.state == "succeeded":
            images[line.digest].append(line)
    return images


class _Weighed(msgspec.Struct, frozen=True):
    """The images of the bill against the tasks that asked for them.

    ``twice``: what was charged too much, by what was asked for.  ``unpaid``: tasks with an image that nobody charged.
    ``lost``: tasks without one, of which there is one on the bill.
    """

    twice: Mapping[str, int]
    unpaid: tuple[str, ...]
    lost: tuple[str, ...]


def _weigh(
    owners: Mapping[str, Sequence[Wanted]],
    images: Mapping[str, Sequence[BillLine]],
    *,
    unknown: Mapping[str, int],
    spoils: bool,
) -> _Weighed:
    twice: dict[str, int] = {}
    unpaid: list[str] = []
    lost: list[str] = []
    for digest, alike in owners.items():
        paid = [line.charged_microusd for line in images.get(digest, ())]
        surplus = paid[sum(task.versions for task in alike) :]
        owned_up = spoils and sum(task.cost_microusd for task in alike) >= sum(paid)
        if surplus and not owned_up:
            twice[digest] = sum(surplus)
        done = [task for task in alike if task.status == "succeeded"]
        unpaid += [task.id for task in done[len(paid) :]]
        without = [task for task in alike if task.status in ("failed", "cancelled")]
        shown = sum(unknown.get(task.id, 0) for task in without)
        if without and len(paid) > len(done) + shown and not owned_up:
            lost += [task.id for task in without]
    return _Weighed(twice, tuple(unpaid), tuple(lost))


def _strangers(owners: Collection[str], bill: Iterable[BillLine]) -> str:
    """The jobs that nobody asked for."""
    return ", ".join(line.job for line in bill if line.digest not in owners)


def _not_open_at_a_kill(
    owners: Mapping[str, Sequence[Wanted]], twice: Iterable[str], held: Iterable[Wanted], cuts: Sequence[Cut]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What was bought twice, and what is held, though it was open at no kill."""
    open_once = frozenset[str]().union(*(cut.open for cut in cuts))
    calm = [owners[digest][0].id for digest in twice if open_once.isdisjoint(task.id for task in owners[digest])]
    return tuple(calm), tuple(sorted({task.id for task in held} - open_once))


def _within_the_budget(again: Again, twice: tuple[str, ...], twice_microusd: int) -> Iterator[Broken]:
    """Where buying again was allowed: for how much, and that it was done as long as there was room."""
    allowed, cost = again.allowed_microusd, max(twice_microusd, again.cost_microusd)
    over = f"{cost} of {allowed} microusd" if cost > allowed else ""
    yield Broken("what is bought again stays within its budget", twice if over else (), over)
    room = [task for task, price in again.waiting.items() if again.ceiling_microusd + price <= allowed]
    yield Broken("only what finds no room in the budget is held", tuple(sorted(room)))


def _findable(played: Round, held: Sequence[Wanted], bill: Iterable[BillLine]) -> Iterator[str]:
    """Held tasks of providers that can tell.

    A list that shows no inputs tells of absence only as long as it shows no job that nobody called about: such a
    job may be that of any held task.
    """
    recovery = {target.provider: target.recovery for target in played.targets}
    doubtful = {task.digest for task in held}
    silent = {line.provider for line in bill if line.digest in doubtful and not line.called}
    for task in held:
        kind = recovery.get(task.provider, "lookup")
        if kind in ("lookup", "listing") or (kind == "absence" and task.provider not in silent):
            yield task.id


def _called_about(owners: Mapping[str, Sequence[Wanted]], images: Mapping[str, Sequence[BillLine]]) -> Iterator[str]:
    """Held tasks of which there is an image whose callback was taken, and that no other task has."""
    for digest, alike in owners.items():
        calls = sum(line.called for line in images.get(digest, ()))
        if calls > sum(task.status == "succeeded" for task in alike):
            yield from (task.id for task in alike if task.status == "held")


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
    status, file, flags = str(row["status"]), row["file"], row["flags"]
    image = None if file is None else _bytes(folder / str(file))
    blank = isinstance(flags, list) and "blank" in flags
    return Wanted(
        id=str(row["id"]),
        status=status,
        digest=digest,
        provider=str(row["provider"] or ""),
        versions=max(1, int(str(row["version"]))),
        shared=row["shared_with"] is not None,
        cost_microusd=int(str(row["cost_microusd"])),
        own=not image or blank or _drawn(image) == digest,
        whole=status != "succeeded" if image is None else hashlib.sha256(image).hexdigest() == row["sha256"],
    )


def _bytes(image: Path) -> bytes:
    """An image; empty when it is not there."""
    try:
        return image.read_bytes()
    except OSError:
        return b""


def _drawn(image: bytes) -> str:
    """The digest that is drawn in a picture of the sandbox; empty when it is none."""
    try:
        return read_digest(image).hex()
    except ValueError:
        return ""


def _listed(cell: str) -> list[str]:
    if cell.startswith("["):
        return [str(each) for each in json.loads(cell)]
    return cell.split("|") if cell else []


def _by_content(reference: str) -> str:
    if "://" in reference:
        return reference
    return f"sha256:{hashlib.sha256(Path(reference).read_bytes()).hexdigest()}"
