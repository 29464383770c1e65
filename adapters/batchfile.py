"""What a codec must know where images are bought by the file: hundreds of requests, and one call that pays for them.

A file is JSON lines; each line carries a key of ours and one request.  It is uploaded (free, may be repeated), then one
call turns it into a *batch*; that call is the one that can cost money, for all lines at once.  The batch is asked for
rarely, since it may take a day, and when it has ended its results are one more file, a line per key.

Nothing here knows a provider, and nothing does any I/O.  What is assumed of a provider that can do this: a batch shows
the name that we gave it in a complete list, so that after a crash it is found by its name and by nothing else.
"""

from typing import Protocol, TypeAlias, runtime_checkable

import msgspec

from adapters.base import (
    Accepted,
    Context,
    Failed,
    FileBytes,
    Finished,
    Gone,
    HttpCall,
    HttpReply,
    ImageRequest,
    NotVisible,
    Pending,
    Refused,
    Throttled,
    Unclear,
    Unreadable,
    UploadSteps,
)


class ResultFile(msgspec.Struct, frozen=True):
    """The batch has ended, and what became of its lines stands in this file."""

    name: str


class LineResult(msgspec.Struct, frozen=True):
    """What became of one line: an image (``Finished.data``), or why there is none."""

    key: str
    outcome: Finished | Failed


class ListedBatch(msgspec.Struct, frozen=True):
    """A batch as the list shows it; ``name`` is what it was created with, empty when it has none."""

    batch: str
    name: str
    created_us: int


class BatchPage(msgspec.Struct, frozen=True):
    """One page of the list; ``next_cursor`` None = this was the last one."""

    batches: tuple[ListedBatch, ...]
    next_cursor: str | None


CreateOutcome: TypeAlias = Accepted | Refused | Throttled | Unclear  # Accepted.job is the id of the batch
BatchOutcome: TypeAlias = Pending | ResultFile | Failed | NotVisible | Throttled | Unreadable
NoResults: TypeAlias = Gone | Throttled | Unreadable


@runtime_checkable
class BatchFiles(Protocol):
    """The optional part of a codec whose record says ``batch-file``; the limits of a file stand in the record."""

    def line(self, key: str, request: ImageRequest) -> bytes:
        """Spell one line with its line feed.  Same key and request, same bytes; references carry their bytes."""
        ...

    def tokens(self, request: ImageRequest) -> int:
        """Estimate what the request takes of the budget of its lane while it waits; references may be local still."""
        ...

    def token_budget(self, lane: str) -> int:
        """How many tokens may wait in the batches of a lane at one time."""
        ...

    def upload_lines(self, file: FileBytes, ctx: Context) -> UploadSteps:
        """Upload a file: ``Uploaded.url`` is how :meth:`build_create` refers to it.  Free, and may be repeated.

        Raises:
            UploadRefused: the provider will not take it, or not now.
            MalformedReply: an answer outside the documentation.
        """
        ...

    def build_create(self, lane: str, file: str, name: str, ctx: Context) -> HttpCall:
        """Build the one call that can cost money: a batch of this name, from an uploaded file."""
        ...

    def read_create(self, reply: HttpReply) -> CreateOutcome: ...

    def build_batch(self, batch: str, ctx: Context) -> HttpCall: ...

    def read_batch(self, reply: HttpReply) -> BatchOutcome:
        """Read how far a batch is.  ``Failed`` speaks of all its lines.  Raises MalformedReply."""
        ...

    def build_results(self, file: str, ctx: Context) -> HttpCall:
        """Ask for a file of results; ``max_reply_bytes`` bounds it."""
        ...

    def read_no_results(self, reply: HttpReply) -> NoResults:
        """Read an answer to :meth:`build_results` that is no success."""
        ...

    def read_line(self, line: bytes) -> LineResult:
        """Read one line of the results.  Raises MalformedReply."""
        ...

    def build_batches(self, ctx: Context, *, cursor: str | None) -> HttpCall: ...

    def read_batches(self, reply: HttpReply) -> BatchPage:
        """Read one page of the list; raises MalformedReply when anything on it cannot be read (REC-4)."""
        ...

    def build_stop(self, batch: str, ctx: Context) -> HttpCall:
        """Ask to stop a batch: what came of it is told by the batch itself."""
        ...


def line_job(batch: str, key: str) -> str:
    """Name the job of one line: what is bound to an attempt."""
    return f"{batch}.{key}"


def batch_of_job(job: str) -> tuple[str, str]:
    """Undo :func:`line_job`: the batch and the key."""
    batch, _, key = job.partition(".")
    return batch, key
