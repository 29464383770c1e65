"""A ledger with a small night in it, for the tests of the commands that read.

Batch ``teapots`` holds one task of every kind: bought, bought at the second try, failed, held, in flight, queued,
shared.  Batch ``empty`` was opened and never sealed.
"""

import hashlib
from pathlib import Path

from adapters.base import ImageRequest
from ledger.decisions import Append, Committed, Decision, NewPayload
from ledger.events import (
    AccountOpened,
    AttemptAccepted,
    AttemptAmbiguous,
    AttemptFailed,
    AttemptIntended,
    AttemptRejected,
    AttemptUnknown,
    BatchConfigured,
    BatchOpened,
    BatchSealed,
    EpochEnded,
    Event,
    ImportOpened,
    ResultReady,
    TaskCompleted,
    TaskFailed,
    TaskQueued,
    TaskShared,
)
from ledger.journal import Ledger
from ledger.streams import StreamKey, account_stream, batch_stream, runtime_stream, task_stream
from runtime.requests import encode_request

START_US = 1_795_334_400_000_000  # 2026-11-22 08:00:00 UTC
IMAGE = b"not a picture, but bytes with a digest"
SECRET_URL = "https://files.example/secret-result.png?token=abc"

IDS = ("red", "blue", "=1+1", "wet\x1b[2J", "陶壶", "next", "red-again")


class Night:
    """Writes events one second apart."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.ledger = Ledger.create_or_open(path, create=True, mounts=lambda: "")
        self.folder = folder
        self.at_us = START_US
        self.ledger.start_epoch(
            machine="m",
            pid=2**22,  # above every process id: nobody
            app_version="0.1.0",
            operator="ada",
            command="bydawn run teapots.csv",
            at_us=self.at_us,
        )

    def write(self, stream: StreamKey, version: int, *events: Event, payloads: tuple[NewPayload, ...] = ()) -> None:
        self.at_us += 1_000_000
        append = Append(stream, version, events)
        (outcome,) = self.ledger.commit([Decision((append,), self.at_us, payloads=payloads)])
        assert isinstance(outcome, Committed), outcome

    def open_batch(self, batch: int, name: str, ids: tuple[str, ...], *, sandbox: bool = False) -> None:
        stream = batch_stream(batch)
        opened = BatchOpened(name=name, folder=str(self.folder / name), sandbox=sandbox, operator="ada")
        configured = BatchConfigured(operator="ada", providers=("kie", "segmind"), budget_microusd=5_000_000)
        importing = ImportOpened(number=1, first=1, source=f"{name}.csv", input_digest="00")
        self.write(stream, 0, opened, configured, importing)
        for n, task_id in enumerate(ids, start=1):
            self.queue(batch, n, task_id, owner=1 if task_id == "red-again" else 0)
        self.write(stream, 3, BatchSealed(number=1, tasks=len(ids), rows=len(ids), input_digest="00"))

    def queue(self, batch: int, n: int, task_id: str, *, owner: int) -> None:
        wanted = ImageRequest(prompt=f"A teapot, {task_id}", references=("https://ref.example/pot.png?sig=zzz",))
        ref, payload = self.ledger.payload(encode_request(wanted, {"Title": "=HYPERLINK(1)"}))
        queued = TaskQueued(
            id=task_id, request=ref, model=wanted.model, aspect="1:1", resolution="1K", line=n, number=1, owner=owner
        )
        self.write(task_stream(batch, n), 0, queued, payloads=(payload,))

    def intend(self, number: int, provider: str = "kie") -> AttemptIntended:
        return AttemptIntended(
            attempt=number,
            account=provider,
            provider=provider,
            lane="default",
            route="cheapest",
            ceiling_microusd=75_000,
            body_digest="ab" * 16,
            deadline_us=self.at_us + 60_000_000,
        )

    def complete(self, batch: int, n: int, version: int, attempt: int) -> None:
        sha256 = hashlib.sha256(IMAGE).hexdigest()
        with self.ledger.reader() as reader:
            name = reader.batch(batch).name
        blob = self.folder / name / "blobs" / sha256[:2] / sha256
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(IMAGE)
        ref, payload = self.ledger.payload(SECRET_URL)
        stream = task_stream(batch, n)
        self.write(stream, version, ResultReady(attempt=attempt, url=ref, cost_microusd=60_000), payloads=(payload,))
        done = TaskCompleted(
            attempt=attempt,
            version=1,
            sha256=sha256,
            size=len(IMAGE),
            media_type="image/png",
            width=1024,
            height=1024,
            cost_microusd=60_000,
            flags=("small",),
        )
        self.write(stream, version + 1, done)


def tell(path: Path, folder: Path) -> None:
    """Write the night into a new ledger at ``path``; images go under ``folder``."""
    night = Night(path, folder)
    night.write(account_stream(1), 0, AccountOpened(name="kie", provider="kie", fingerprint="f"))
    night.open_batch(1, "teapots", IDS)

    red, blue, odd, wet, pot = (task_stream(1, n) for n in range(1, 6))
    night.write(red, 1, night.intend(1))
    night.write(red, 2, AttemptAccepted(attempt=1, job="job-red"))
    night.complete(1, 1, 3, attempt=1)
    # refused by one provider as too fast, bought from another
    night.write(blue, 1, night.intend(1, "segmind"))
    night.write(blue, 2, AttemptRejected(attempt=1, reason="throttled"))
    night.write(blue, 3, night.intend(2))
    night.write(blue, 4, AttemptAccepted(attempt=2, job="job-blue"))
    night.complete(1, 2, 5, attempt=2)
    # failed for good
    said, payload = night.ledger.payload("model says no\x1b[31m")
    night.write(odd, 1, night.intend(1))
    night.write(odd, 2, AttemptAccepted(attempt=1, job="job-odd"))
    failed = AttemptFailed(attempt=1, reason="policy", detail=said)
    night.write(odd, 3, failed, TaskFailed(reason="policy"), payloads=(payload,))
    # nobody knows
    night.write(wet, 1, night.intend(1))
    night.write(wet, 2, AttemptAmbiguous(attempt=1, reason="no_reply"))
    night.write(wet, 3, AttemptUnknown(attempt=1, reason="no_evidence"))
    # in flight; the sixth is queued; the seventh shares the first
    night.write(pot, 1, night.intend(1))
    night.write(pot, 2, AttemptAccepted(attempt=1, job="job-pot"))
    shared = TaskShared(
        owner=1,
        version=1,
        sha256=hashlib.sha256(IMAGE).hexdigest(),
        size=len(IMAGE),
        media_type="image/png",
        width=1024,
        height=1024,
    )
    night.write(task_stream(1, 7), 1, shared)
    ended = EpochEnded(
        stopped_by="signal", exit_code=130, batch=1, succeeded=3, failed=1, held=1, run_cost_microusd=120_000
    )
    night.write(runtime_stream(), 1, ended)
    night.ledger.close()
