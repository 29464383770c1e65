"""Compares the three books after the last life: the providers' bill, the ledger, the disk."""

import hashlib
from collections import Counter

from adapters.sandbox.picture import read_digest, request_digest
from ledger.reader import Reader
from ledger.streams import task_stream
from runtime.work import load_work
from tests.simulation.world import FOLDER, World


def problems(world: World) -> list[str]:
    """Every way in which the night broke its promise, in words; empty when all is well."""
    found: list[str] = []
    bill = {line.job: line for line in world.bill()}
    bound: Counter[str] = Counter()
    held = Counter[str]()
    with Reader(world.path) as reader:
        for row in reader.tasks(1, limit=10_000):
            name = f"task {row.n}"
            state = reader.state(task_stream(1, row.n))
            work = load_work(reader, 1, row.n)
            live = [
                attempt for attempt in state.attempts if attempt.phase in ("intended", "ambiguous", "accepted", "ready")
            ]
            if live or not state.settled:
                found.append(f"{name}: not settled ({state.phase})")
            for attempt in state.attempts:
                if attempt.job:
                    bound[attempt.job] += 1
                    if attempt.job not in bill:
                        found.append(f"{name}: bound to {attempt.job}, which no provider knows")
                if attempt.phase == "unknown":
                    held[attempt.provider] += 1
            if state.phase == "held" and state.attempts[-1].provider != "kie":
                found.append(f"{name}: held at {state.attempts[-1].provider} although it has a listing")
            charged = [
                attempt.job
                for attempt in state.attempts
                if attempt.job and attempt.job in bill and bill[attempt.job].charged_microusd > 0
            ]
            paid_for_nothing = [
                a for a in state.attempts if a.phase in ("failed", "lost", "surplus") and a.job in charged
            ]
            if len(charged) - len(paid_for_nothing) > 1:
                found.append(f"{name}: paid more than once: {charged}")
            if state.phase == "succeeded":
                result = state.current
                assert result is not None
                path = FOLDER / "blobs" / result.sha256[:2] / result.sha256
                if not world.disk.exists(path):
                    found.append(f"{name}: done, and its image is not on disk (RES-1)")
                    continue
                data = world.disk.read(path)
                if hashlib.sha256(data).hexdigest() != result.sha256:
                    found.append(f"{name}: its image does not hash to its name (RES-1)")
                request = work.request
                wanted = request_digest(request.prompt, request.references, request.aspect, request.resolution)
                if "blank" not in result.flags and read_digest(data) != wanted:
                    found.append(f"{name}: it has somebody else's image")
    found += [f"{job}: bound to {times} attempts (REC-5)" for job, times in bound.items() if times > 1]
    orphans = Counter(line.provider for line in bill.values() if line.job not in bound)
    for provider, count in orphans.items():
        if count > held[provider]:
            found.append(f"{provider}: {count} jobs on the bill that no attempt knows, {held[provider]} held (MON-7)")
    return found
