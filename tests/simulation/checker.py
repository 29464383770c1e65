"""Compares the books after the last life: the providers' bill, the ledger's events and views, the disk."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from adapters.registry import codec
from adapters.sandbox.house import BillLine
from adapters.sandbox.picture import read_digest, request_digest
from bydawn.moneylines import lines_data, stored_lines
from ledger.audit import verify
from ledger.folds import LIVE, AttemptState, TaskState
from ledger.money import account_money, batch_money, risk_money
from ledger.reader import Reader
from ledger.streams import task_stream
from runtime.requests import what_is_wanted
from runtime.trust import DEFAULT, Trust, unproven_absence
from runtime.work import Work, load_work
from tests.ledger.lines import by_attempts, dollars_of
from tests.simulation.wanted import folder
from tests.simulation.weather import FAIR
from tests.simulation.world import World

PRICED = ("google", "google-batch", "kie", "segmind")  # what these charge, they say


def problems(world: World, *, complete: bool = True) -> list[str]:
    """Every way in which the night broke its promise, in words; empty when all is well.

    ``complete`` False: the night was stopped by a cap or a signal, so tasks may still be queued or open.
    """
    found = list(world.broken)
    bill = {line.job: line for line in world.bill()}
    works: list[Work] = []
    with Reader(world.path) as reader:
        for batch in range(1, world.batches + 1):
            for row in reader.tasks(batch, limit=10_000):
                work = load_work(reader, batch, row.n)
                works.append(work)
                owner = None
                if row.owner:
                    owner = reader.state(task_stream(batch, row.owner))
                found += [f"task {batch}/{row.n}: {text}" for text in _task(world, work, bill, owner, complete)]
        found += _books(world, reader, works)
    found += _bill(works, bill, complete)
    found += _disk(world)
    report = verify(world.path)
    found += [f"verify: {problem.code} {problem.place}: {problem.text}" for problem in report.problems]
    return found


def missing_at_the_cut(world: World, reader: Reader) -> list[str]:
    """What the ledger says is on the disk and is not, as the next life will find it (RES-1, RES-2, W14)."""
    found: list[str] = []
    for batch in range(1, world.batches + 1):
        for row in reader.tasks(batch, limit=10_000):
            work = load_work(reader, batch, row.n)
            if work.state.phase == "succeeded":
                found += [f"at a cut: task {batch}/{row.n}: {text}" for text in _image(world, work)]
            for attempt in work.state.attempts:
                kept = folder(batch) / "spool" / f"{batch}-{row.n}-{attempt.number}"
                if attempt.phase == "ready" and attempt.url is None and not world.disk.exists(kept):
                    found.append(f"at a cut: task {batch}/{row.n}: ready, and its bytes are not in the spool (W14)")
    return found


def torn(world: World) -> list[str]:
    """Whoever looks now finds whole files under final names, or none (RES-2, RES-5)."""
    found: list[str] = []
    for batch in range(1, world.batches + 1):
        blobs = folder(batch) / "blobs"
        for name in (
            f"{start}/{name}" for start in world.disk.names(blobs) for name in world.disk.names(blobs / start)
        ):
            if hashlib.sha256(world.disk.read(blobs / name)).hexdigest() != name[3:]:
                found.append(f"at a cut: blobs/{name} is not what its name says (RES-2, RES-5)")
    return found


def _task(
    world: World, work: Work, bill: dict[str, BillLine], owner: TaskState | None, complete: bool
) -> Iterator[str]:
    state = work.state
    live = [attempt for attempt in state.attempts if attempt.phase in LIVE]
    undecided = [attempt for attempt in state.attempts if attempt.doubtful]
    if complete and (live or not state.settled):
        waits = owner is not None and (owner.phase == "held" or not owner.settled)
        strange = any(attempt.phase == "accepted" and _strange(world, attempt, bill) for attempt in live)
        # What a policy may buy beside a doubtful attempt may lack the money for duplicates.
        waits = waits or (state.phase == "queued" and state.doubted and world.max_duplicate_microusd is not None)
        if not waits and not strange:
            yield f"not settled ({state.phase})"
    if len(live) + len(undecided) > 1:
        yield "two attempts are open at once (MON-2)"
    # A listing may prove nothing.
    told = not (world.weather.listings_fail_s or world.weather.jumps)
    evidence = told and bool(state.attempts) and state.attempts[-1].epoch >= world.key_epoch
    pardoned = {"" if world.weather is FAIR else "listing_failed"}
    if world.seen["rotated keys, something open"]:  # where no known job is left, nothing shows whose key it is
        pardoned.add("account_changed")
    evidence = evidence and state.attempts[-1].reason not in pardoned
    if state.phase == "held" and evidence and can_tell(state.attempts[-1].provider, world.trust or DEFAULT):
        yield f"held at {state.attempts[-1].provider}, which can tell ({state.attempts[-1].reason})"
    charged = []
    for attempt in state.attempts:
        if attempt.phase == "lost":
            yield f"attempt {attempt.number} is lost, and nothing expired ({attempt.reason}, RES-6)"
        line = bill.get(attempt.job)
        if attempt.job and line is None:
            yield f"bound to {attempt.job}, which no provider knows"
        if line is None:
            continue
        # WaveSpeed deletes what it is told to cancel, also a job that ended since it was looked at last.
        deleted = attempt.provider == "wavespeed" and attempt.reason == "cancelled"
        excused = attempt.reason == "bad_image" or deleted
        if attempt.phase == "failed" and not excused and line.state == "succeeded":
            yield f"attempt {attempt.number} is failed ({attempt.reason}), and {attempt.job} is done (MON-6)"
        if line.charged_microusd and attempt.phase not in ("failed", "lost", "surplus"):
            charged.append(attempt.job)
        cost = attempt.cost_microusd or 0
        stated = attempt.provider in PRICED and attempt.phase in ("done", "failed", "surplus")
        if stated and cost != line.charged_microusd:
            yield f"attempt {attempt.number} cost {cost}, the bill says {line.charged_microusd} (MON-10)"
        # Where nobody says what a job cost, it may be thought dearer than it was, and never cheaper.
        if attempt.phase in ("done", "failed", "surplus", "lost") and cost < line.charged_microusd:
            yield f"attempt {attempt.number} {attempt.phase} for {cost}, the bill says {line.charged_microusd} (MON-8)"
    if len(charged) > 1 + state.permissions:
        yield f"paid more than once: {charged}"
    if owner is not None and state.attempts:
        yield "bought although it follows another task"
    if state.phase == "succeeded":
        yield from _image(world, work)


def _strange(world: World, attempt: AttemptState, bill: dict[str, BillLine]) -> bool:
    """Whether an accepted attempt may stay open: what another account's key bought is visible to nobody, and where no
    job of an older key was seen to run or succeed, nothing shows that a new one is of the same account (REC-9)."""
    line = bill.get(attempt.job)
    unproven = attempt.epoch < world.rotated_epoch and line is not None and line.state != "succeeded"
    return attempt.epoch < world.key_epoch or unproven


def _image(world: World, work: Work) -> Iterator[str]:
    result = work.state.current
    assert result is not None
    path = folder(work.batch) / "blobs" / result.sha256[:2] / result.sha256
    if not world.disk.exists(path):
        yield "done, and its image is not on disk (RES-1)"
        return
    data = world.disk.read(path)
    if hashlib.sha256(data).hexdigest() != result.sha256:
        yield "its image does not hash to its name (RES-1)"
    request = what_is_wanted(work.request)
    wanted = request_digest(request.prompt, request.references, request.aspect, request.resolution)
    if "blank" not in result.flags and _shown(data) != wanted:
        yield "it has somebody else's image"


_shown = lru_cache(maxsize=256)(read_digest)
"""The same small pictures are looked at in every night."""


def _books(world: World, reader: Reader, works: list[Work]) -> Iterator[str]:
    """MON-8, MON-10: the money views are the sums over the attempts."""
    spent, reserved, risk = Counter[str](), Counter[str](), Counter[str]()
    for work in works:
        for attempt in work.state.attempts:
            names = (batch_money(work.batch), account_money(attempt.account))
            open_or_held = attempt.phase in LIVE or attempt.phase == "unknown"
            for name in names:
                spent[name] += 0 if open_or_held else attempt.cost_microusd or 0
                reserved[name] += attempt.ceiling_microusd if open_or_held else 0
            if attempt.phase in ("intended", "ambiguous") or attempt.doubtful:
                risk[risk_money(work.batch)] += attempt.ceiling_microusd
    for name, balance in reader.money().items():
        if name.startswith(("batch/", "account/")):
            if (balance.captured, balance.reserved) != (spent[name], reserved[name]):
                yield f"{name}: {balance}, the attempts say {spent[name]} and {reserved[name]} (MON-10)"
        elif name.startswith("risk/") and balance.reserved != risk[name]:
            yield f"{name}: {balance}, the attempts say {risk[name]} (MON-3)"
        elif name.startswith("lane/") and balance.open != _still_unanswered(works, name, world.epoch):
            yield f"{name}: {balance.open} counted as open (MON-3)"
    for batch in range(1, world.batches + 1):
        told = dollars_of(lines_data(stored_lines(reader.money(), batch)))
        wanted = by_attempts([work.state for work in works if work.batch == batch])
        if told != wanted:
            yield f"batch {batch}: the lines say {told}, the attempts {wanted} (MON-10)"


def _still_unanswered(works: list[Work], lane: str, epoch: int) -> int:
    return sum(
        attempt.phase in ("intended", "ambiguous")
        and attempt.epoch == epoch
        and lane == f"lane/{attempt.account}/{attempt.lane}"
        for work in works
        for attempt in work.state.attempts
    )


def _bill(works: list[Work], bill: dict[str, BillLine], complete: bool) -> Iterator[str]:
    """MON-7, REC-5: every job on the bill is bound to one attempt, or may be that of an attempt in doubt."""
    bound, doubted, synchronous = Counter[str](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for work in works:
        for attempt in work.state.attempts:
            bought = (attempt.provider, work.request.prompt)
            if attempt.job:
                bound[attempt.job] += 1
            elif attempt.phase == "unknown" or (not complete and attempt.phase in LIVE):
                doubted[bought] += 1
            elif attempt.phase in ("ready", "done", "failed", "surplus", "lost"):
                synchronous[bought] += 1  # its answer was the image, and named no job
    for job, times in bound.items():
        if times > 1:
            yield f"{job}: bound to {times} attempts (REC-5)"
    # A synchronous provider refuses with its answer what it had begun: such a job is on the bill and costs nothing.
    orphans = Counter(
        (line.provider, line.prompt)
        for line in bill.values()
        if line.job not in bound and (line.charged_microusd or codec(line.provider).capabilities.shape.value != "sync")
    )
    for bought, count in orphans.items():
        count -= synchronous[bought]
        if count > doubted[bought]:
            provider, prompt = bought
            yield f"{provider}: {count} jobs for {prompt!r} that no attempt knows, {doubted[bought]} in doubt (MON-7)"


def can_tell(provider: str, trust: Trust) -> bool:
    """Whether the provider can be asked what became of a lost submit, and may be believed."""
    record = codec(provider).capabilities
    if unproven_absence(record, trust):
        return False
    shows_input = record.listing is not None and record.listing.value.shows_input_s > 0
    return record.lookup is not None or shows_input


def _disk(world: World) -> Iterator[str]:
    """RES-5: part files belong to one epoch and are removed by the next."""
    for batch in range(1, world.batches + 1):
        for name in world.disk.names(folder(batch) / "blobs"):
            part = re.fullmatch(r"(\d+)-.*\.part", name)
            if part is not None and int(part[1]) < world.last_night:
                yield f"{name} is left of an older epoch (RES-5)"
