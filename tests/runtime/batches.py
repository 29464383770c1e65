"""A provider that sells by the file and says what a test tells it."""

from msgspec.structs import replace

from adapters.base import (
    Context,
    Failed,
    FailedReason,
    FileBytes,
    Finished,
    Gone,
    HttpCall,
    HttpReply,
    ImageRequest,
    MalformedReply,
    Throttled,
    Uploaded,
    UploadSteps,
)
from adapters.batchfile import BatchOutcome, BatchPage, CreateOutcome, LineResult, ListedBatch, NoResults
from adapters.capabilities import BatchFile, Capabilities, References
from tests.runtime.fakes import CAPS, FakeProvider, known

LINES = 4
FILE_CAPS: Capabilities = replace(
    CAPS,
    shape=known("batch-file"),
    references=known(References(urls=False, files="inline", max_file_bytes=1_000_000)),
    batch_file=known(BatchFile(lines=LINES, file_bytes=200, batches=3, expires_s=172_800.0)),
    concurrency=known(100),
    max_concurrency=known(100),
)


def key_of(n: int, number: int = 1) -> str:
    """The key of a line of the benches' task: by their salt, which is the same for all."""
    return f"1-{n}-{number}-63479ad6"


class FileProvider(FakeProvider):
    """Kinds of questions: ``upload``, ``create``, ``batch``, ``results`` (streamed), ``batches``, ``stop``.

    A line of results is ``KEY=bytes`` for an image and ``KEY!words`` for a failure.  ``files`` are what was uploaded.
    """

    def __init__(self, *, budget: int = 1_000_000) -> None:
        super().__init__(caps=FILE_CAPS)
        self.files: list[bytes] = []
        self.budget = budget

    def lane(self, request: ImageRequest) -> str:
        return "m"

    def line(self, key: str, request: ImageRequest) -> bytes:
        return f"{key} {request.prompt}\n".encode()

    def tokens(self, request: ImageRequest) -> int:
        return len(request.prompt)

    def token_budget(self, lane: str) -> int:
        return self.budget

    def upload_lines(self, file: FileBytes, ctx: Context) -> UploadSteps:
        reply = yield HttpCall("POST", f"upload/{file.name}", {}, file.data)
        outcome = self._told[int(reply.body)]
        if isinstance(outcome, Exception):
            raise outcome
        self.files.append(file.data)
        return Uploaded(f"files/{len(self.files)}")

    def build_create(self, lane: str, file: str, name: str, ctx: Context) -> HttpCall:
        return HttpCall("POST", f"create/{file}/{name}", {})

    def read_create(self, reply: HttpReply) -> CreateOutcome:
        return self._told[int(reply.body)]  # type: ignore[return-value]

    def build_batch(self, batch: str, ctx: Context) -> HttpCall:
        return HttpCall("GET", f"batch/{batch}", {})

    def read_batch(self, reply: HttpReply) -> BatchOutcome:
        return self._told[int(reply.body)]  # type: ignore[return-value]

    def build_results(self, file: str, ctx: Context) -> HttpCall:
        return HttpCall("GET", f"results/{file}", {})

    def read_no_results(self, reply: HttpReply) -> NoResults:
        return Gone("gone") if reply.status == 404 else Throttled(7.0)

    def read_line(self, line: bytes) -> LineResult:
        for mark in (b"=", b"!"):
            key, found, rest = line.partition(mark)
            if found:
                words = rest.decode()
                reason: FailedReason = "policy" if words == "policy" else "provider"
                cost = 90_000 if words == "dear" else 0
                failed = Failed(reason, words, retryable=words != "policy", cost_microusd=cost)
                return LineResult(key.decode(), Finished(data=rest, cost_microusd=9) if mark == b"=" else failed)
        raise MalformedReply("no line")

    def build_batches(self, ctx: Context, *, cursor: str | None) -> HttpCall:
        return HttpCall("GET", f"batches/{cursor or ''}", {})

    def read_batches(self, reply: HttpReply) -> BatchPage:
        page = self._told[int(reply.body)]
        assert isinstance(page, BatchPage)
        return page

    def build_stop(self, batch: str, ctx: Context) -> HttpCall:
        return HttpCall("POST", f"stop/{batch}", {})


def page(*batches: tuple[str, str, int], cursor: str | None = None) -> BatchPage:
    return BatchPage(tuple(ListedBatch(*batch) for batch in batches), cursor)
