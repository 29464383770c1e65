"""What a simulated night is to buy: batches of tasks, imported and sealed like any other."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from adapters.base import ImageRequest
from adapters.references import LocalFile
from ledger.decisions import Append, Decision
from ledger.events import BatchConfigured, BatchOpened, BatchSealed, Event, ImportOpened, TaskQueued
from ledger.journal import Ledger
from ledger.streams import StreamKey, batch_stream, task_stream
from runtime.requests import encode_request
from runtime.simulated import SimDisk
from runtime.trust import Trust

_SEEDREAM = "seedream-4"  # the one model that BytePlus has and the others have not


class Wanted(msgspec.Struct, frozen=True):
    """``followers`` of the tasks of each batch, its last ones, share the purchase of the first one.

    ``files``: each task has two local references, one that all share and one of its own.  ``trust``: what the batches
    were configured with; None = nothing was said.
    """

    tasks: int
    providers: Sequence[str]
    same_prompts: bool = False
    batches: int = 1
    followers: int = 0
    files: bool = False
    trust: Trust | None = None

    def decisions(self, ledger: Ledger, disk: SimDisk, at_us: int) -> Iterator[Decision]:
        """Everything that an import records."""
        for batch in range(1, self.batches + 1):
            opened = (
                BatchOpened(name=f"night {batch}", folder=str(folder(batch)), sandbox=True, operator="sim"),
                *((BatchConfigured(operator="sim", trust=self.trust),) if self.trust else ()),
                ImportOpened(number=1, first=1, source="test", input_digest="d"),
            )
            yield _decision(at_us, batch_stream(batch), 0, *opened)
            for n in range(1, self.tasks + 1):
                yield self._queued(ledger, disk, at_us, batch, n)
            sealed = BatchSealed(number=1, tasks=self.tasks, rows=self.tasks, input_digest="d")
            yield _decision(at_us, batch_stream(batch), len(opened), sealed)

    def streams(self) -> dict[str, list[StreamKey]]:
        """Prompt -> the tasks that want its picture."""
        found: dict[str, list[StreamKey]] = {}
        for batch in range(1, self.batches + 1):
            for n in range(1, self.tasks + 1):
                found.setdefault(self._prompt(batch, n), []).append(task_stream(batch, n))
        return found

    def _owner(self, n: int) -> int:
        return 1 if n > max(1, self.tasks - self.followers) else 0

    def _prompt(self, batch: int, n: int) -> str:
        return "one and the same" if self.same_prompts else f"picture number {batch}.{self._owner(n) or n}"

    def _queued(self, ledger: Ledger, disk: SimDisk, at_us: int, batch: int, n: int) -> Decision:
        owner = self._owner(n)
        request = ImageRequest(
            prompt=self._prompt(batch, n),
            references=(_file(disk, "logo"), _file(disk, f"{batch}.{owner or n}")) if self.files else (),
        )
        if "byteplus" in self.providers and (owner or n) % 2:
            request = msgspec.structs.replace(request, model=_SEEDREAM)
        ref, payload = ledger.payload(encode_request(request, {}))
        queued = TaskQueued(
            id=f"row{n}",
            request=ref,
            model=request.model,
            aspect=request.aspect,
            resolution=request.resolution,
            line=n,
            number=1,
            owner=owner,
        )
        return msgspec.structs.replace(_decision(at_us, task_stream(batch, n), 0, queued), payloads=(payload,))


def folder(batch: int) -> Path:
    """Where the images of a batch lie."""
    return Path("/night", str(batch))


def _file(disk: SimDisk, name: str) -> str:
    """Put a reference file on the disk, once; returns it as it stands in a request."""
    path, data = Path("/pics") / f"{name}.png", b"\x89PNG\r\n\x1a\n" + name.encode()
    if not disk.exists(path):
        part = path.with_suffix(".part")
        disk.make_dir(path.parent)
        disk.write_new(part, data)
        disk.rename(part, path)
    return LocalFile(hashlib.sha256(data).hexdigest(), len(data), "image/png", str(path)).text


def _decision(at_us: int, stream: StreamKey, expected: int, *events: Event) -> Decision:
    return Decision(appends=(Append(stream, expected, events),), at_us=at_us)
