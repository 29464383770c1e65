"""Every provider there is, the example of a package and installed ones too, in one house: what holds for all of them.

:class:`World` buys from a provider's emulator, without a socket, in whatever way the provider has.
"""

from collections.abc import Callable, Iterator

from acme_bydawn import PROVIDER as ACME

from adapters import registry
from adapters.base import (
    Accepted,
    Callbacks,
    Cancels,
    Codec,
    Context,
    FileBytes,
    Finished,
    HttpCall,
    HttpReply,
    ImageRequest,
    Lists,
    LooksUp,
    Polls,
    Quotes,
    Recall,
    Secret,
    Sweeps,
    Uploaded,
    Uploads,
    UploadSteps,
)
from adapters.batchfile import BatchFiles, ResultFile
from adapters.capabilities import Model
from adapters.registry import Entry, load
from adapters.sandbox.base import JobTable
from adapters.sandbox.solo import Solo
from tests.adapters.inprocess import START_US, S

ENTRIES: dict[str, Entry] = {**registry.entries(), "acme": ACME}
KEY = "sandbox-of-everyone"
REFERENCE = "bydawn-0123456789abcdef"
PNG = FileBytes("picture.png", "image/png", b"\x89PNG\r\n\x1a\n" + bytes(64))
DAY_S = 90_000


def codec_of(name: str) -> Codec:
    codec = load(ENTRIES[name].codec)
    assert hasattr(codec, "capabilities")
    return codec  # type: ignore[return-value]  # what the registry checks for packages


CODECS: dict[str, Codec] = {name: codec_of(name) for name in ENTRIES}


class World:
    """One provider's emulator, with a customer."""

    def __init__(self, name: str, key: str = KEY) -> None:
        self.codec = CODECS[name]
        self.solo = Solo(ENTRIES[name], now_us=START_US)
        self.ctx = Context(key=Secret(key), base_url=self.solo.base_url, marker=123_456_789, reference=REFERENCE)
        self.said: list[HttpReply] = []

    @property
    def jobs(self) -> JobTable:
        return self.solo.settings.jobs

    def send(self, call: HttpCall) -> HttpReply:
        answer = self.solo.send(call)
        self.said.append(answer)
        return answer

    def upload(self, steps: UploadSteps) -> Uploaded:
        return driven(steps, self.send)

    def buy(self, request: ImageRequest) -> bytes:
        """Buy one image in the provider's own way and bring it home."""
        outcome = self._bought_by_file(request) if isinstance(self.codec, BatchFiles) else self._bought(request)
        assert isinstance(outcome, Finished), outcome
        return outcome.data or self.solo.image(outcome.url)

    def _bought(self, request: ImageRequest) -> object:
        outcome: object = self.codec.read_submit(self.send(self.codec.build_submit(request, self.ctx)))
        if isinstance(outcome, Accepted):
            assert isinstance(self.codec, Polls)
            self.solo.now_us += 20 * S
            outcome = self.codec.read_poll(self.send(self.codec.build_poll(outcome.job, self.ctx)))
        return outcome

    def _bought_by_file(self, request: ImageRequest) -> object:
        codec = self.codec
        assert isinstance(codec, BatchFiles)
        lines = FileBytes("lines.jsonl", "application/jsonl", codec.line("task-1", request))
        file = self.upload(codec.upload_lines(lines, self.ctx)).url
        created = codec.read_create(self.send(codec.build_create(codec.lane(request), file, "batch-1", self.ctx)))
        assert isinstance(created, Accepted), created
        self.solo.now_us += DAY_S * S
        ended = codec.read_batch(self.send(codec.build_batch(created.job, self.ctx)))
        assert isinstance(ended, ResultFile), ended
        (line,) = self.send(codec.build_results(ended.name, self.ctx)).body.splitlines()
        result = codec.read_line(line)
        assert result.key == "task-1"
        return result.outcome


# --- requests ---------------------------------------------------------------------------------------------


def a_request(model: Model, resolution: str = "", aspect: str = "") -> ImageRequest:
    """A request that the model takes, in an aspect that no square picture has by chance."""
    wide = next((each for each in ("16:9", "3:2", "4:3") if each in model.aspects), "1:1")
    return ImageRequest(
        "a red kettle", model=model.name, aspect=aspect or wide, resolution=resolution or model.resolutions[0]
    )


def resolved(codec: Codec, reference: str) -> str:
    """A reference as the codec gets it: local files were uploaded, or travel inside."""
    if not reference.startswith("file:"):
        return reference
    if codec.capabilities.references.value.files == "inline":
        return "data:image/png;base64,iVBORw0KGgo="
    return "https://uploads.example/picture.png"


# --- every call and every reader ----------------------------------------------------------------------------


def calls(codec: Codec, request: ImageRequest, ctx: Context) -> Iterator[HttpCall]:
    """Everything that a codec can ask about one request."""
    if isinstance(codec, BatchFiles):
        yield next(codec.upload_lines(FileBytes("lines", "application/jsonl", codec.line("t", request)), ctx))
        yield codec.build_create(codec.lane(request), "files/abc", "batch-1", ctx)
        yield codec.build_batch("abc", ctx)
        yield codec.build_results("files/abc", ctx)
        yield codec.build_batches(ctx, cursor=None)
    else:
        yield codec.build_submit(request, ctx)
    yield codec.build_check(ctx)
    if isinstance(codec, Polls):
        yield codec.build_poll("job-1", ctx)
    if isinstance(codec, Sweeps):
        yield codec.build_sweep(["job-1"], ctx, since_us=START_US, until_us=START_US + 60 * S)
    if isinstance(codec, Lists):
        yield codec.build_list(ctx, since_us=START_US, until_us=START_US + 60 * S, cursor=None)
    if isinstance(codec, LooksUp):
        yield codec.build_lookup(REFERENCE, ctx)
    if isinstance(codec, Cancels):
        yield codec.build_cancel("job-1", ctx)
    if isinstance(codec, Recall):
        yield codec.build_recall("job-1", ctx)
    if isinstance(codec, Quotes):
        yield codec.build_quote(request, ctx)
    if isinstance(codec, Uploads):
        yield next(codec.upload(PNG, ctx))


Reader = Callable[[HttpReply], object]


def readers(codec: Codec, ctx: Context) -> dict[str, Reader]:
    """Everything of a codec that takes bytes from outside, as functions of a reply."""
    found: dict[str, Reader] = {"submit": codec.read_submit, "check": codec.read_check}
    if isinstance(codec, Polls):
        found["poll"] = codec.read_poll
    if isinstance(codec, Sweeps):
        found["sweep"] = codec.read_sweep
    if isinstance(codec, Lists):
        found["list"] = codec.read_list
    if isinstance(codec, LooksUp):
        found["lookup"] = codec.read_lookup
    if isinstance(codec, Cancels):
        found["cancel"] = codec.read_cancel
    if isinstance(codec, Recall):
        found["recall"] = codec.read_recall
    if isinstance(codec, Quotes):
        found["quote"] = codec.read_quote
    if isinstance(codec, Uploads):
        found["upload"] = lambda reply: driven(codec.upload(PNG, ctx), lambda _: reply)
    if isinstance(codec, Callbacks):
        secrets = [Secret("whsec_c2VjcmV0"), Secret("other")]
        found["callback"] = lambda reply: codec.read_callback(reply.body)
        found["signature"] = lambda reply: codec.verify_callback(
            reply.headers, reply.body, secrets=secrets, now_s=START_US / S
        )
    if isinstance(codec, BatchFiles):
        file = FileBytes("lines", "application/jsonl", b"{}\n")
        found |= {
            "create": codec.read_create,
            "batch": codec.read_batch,
            "no results": codec.read_no_results,
            "line": lambda reply: codec.read_line(reply.body),
            "batches": codec.read_batches,
            "lines": lambda reply: driven(codec.upload_lines(file, ctx), lambda _: reply),
        }
    return found


def driven(steps: UploadSteps, answer: Callable[[HttpCall], HttpReply]) -> Uploaded:
    """Run the steps of an upload to their end."""
    call = next(steps)
    while True:
        try:
            call = steps.send(answer(call))
        except StopIteration as end:
            uploaded: Uploaded = end.value
            return uploaded
