"""How many tasks of which shape a run is about: what the planner counts and a limit leaves of it."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from bydawn.cli.formats import count, counted
from bydawn.inputs.judging import Judge
from ledger.folds import BatchSettings, BatchState
from ledger.reader import Reader
from runtime.accounts import Account
from runtime.planning import Group
from runtime.requests import decode_request


def wanted_tasks(state: BatchState) -> int:
    """How many tasks this run is to settle."""
    return _bounded(state.sealed_through, state)


def sample_of(settings: BatchSettings, tasks: int) -> int:
    """How many of so many tasks a --sample is: a share is rounded up.  0 = no sample."""
    if settings.sample_ppm:
        return max(1, -(-tasks * settings.sample_ppm // 1_000_000))
    return settings.sample or 0


def _bounded(tasks: int, state: BatchState) -> int:
    """How many of so many tasks a --limit or --sample leaves."""
    return min([tasks, *(bound for bound in (state.settings.limit, sample_of(state.settings, tasks)) if bound)])


def groups_of(reader: Reader, batch: int, accounts: Sequence[Account]) -> list[Group]:
    """Count the tasks of a batch by shape, from the ledger.  Who takes references depends on each of them; for the
    rest everybody counts, and the planner asks by the shape."""
    codecs = {account.provider: account.codec for account in accounts}
    judge, everybody = Judge(codecs), tuple(codecs)
    tally: Counter[tuple[str, str, str, bool, tuple[str, ...]]] = Counter()
    after = 0
    while page := reader.queued(batch, after=after, limit=10_000):
        after = page[-1].n
        for task in page:
            queued = task.state.queued
            if queued is not None:
                takers = everybody
                if queued.references and task.request is not None:
                    takers = judge.takers(decode_request(task.request).request)
                tally[queued.model, queued.aspect, queued.resolution, queued.references > 0, takers] += 1
    return [Group(model, aspect, size, refs, takers, n) for (model, aspect, size, refs, takers), n in tally.items()]


def shapes_of(reader: Reader, batch: int, accounts: Sequence[Account]) -> list[Group]:
    """The same at a glance: as if every account could take all references.  For questions, not for a plan."""
    everybody = tuple(dict.fromkeys(account.provider for account in accounts))
    return [
        Group(shape.model, shape.aspect, shape.resolution, shape.references, everybody, shape.count)
        for shape in reader.queued_shapes(batch)
    ]


def part_of(groups: Sequence[Group], state: BatchState, *, settled: int = 0) -> tuple[list[Group], tuple[str, ...]]:
    """What a --limit or --sample leaves of the tasks that wait, and how a plan says so.

    ``settled`` tasks of the batch count against it: they are bought already.
    """
    waiting = sum(group.count for group in groups)
    wanted = max(0, _bounded(settled + waiting, state) - settled)
    if wanted >= waiting:
        return list(groups), ()
    option = "--limit" if state.settings.limit else "--sample"
    return share_of(groups, wanted), (f"{option}: {counted(wanted, 'task')} of {count(waiting)}",)


def share_of(groups: Sequence[Group], wanted: int) -> list[Group]:
    """Scale the groups down to what a --limit or --sample leaves of them."""
    total = sum(group.count for group in groups)
    if total <= wanted or not total:
        return list(groups)
    left = wanted
    scaled = []
    for group in groups:
        part = min(left, -(-group.count * wanted // total))
        left -= part
        scaled.append(msgspec.structs.replace(group, count=part, shared=min(group.shared, part)))
    return scaled
