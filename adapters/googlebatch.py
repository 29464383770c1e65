"""Google's Batch API: the same images for half the price, hundreds in one file, within a day.

Documentation followed:

- batches: https://ai.google.dev/gemini-api/docs/batch-api and https://ai.google.dev/api/batch-api
- files: https://ai.google.dev/gemini-api/docs/files
- limits: https://ai.google.dev/gemini-api/docs/rate-limits
- SDK: the official Python client, google-genai 3.4.0

What matters here:

- Creating a batch is not idempotent: the same creation twice makes two batches, and two bills.  ``displayName`` is the
  only thing of ours that a batch shows; the list cannot be searched, so it is read whole.
- A batch that has not ended after 48 hours has no results at all, and costs nothing: files are kept small.
- ``BATCH_STATE_SUCCEEDED`` says that the batch was worked off, not that its lines succeeded: each line carries an
  answer or an error, and an answer may be without an image.
- States are called ``BATCH_STATE_...`` on the wire and ``JOB_STATE_...`` in the documents; both are taken.
- A file that is not there (any more) is answered with 403, as if the key were to blame.

How a request and an answer look is :mod:`adapters.gemini`'s, as for the plain call.
"""

import re
from datetime import datetime
from typing import ClassVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec.structs import replace

from adapters import google
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
    MalformedReply,
    NotVisible,
    Pending,
    Refused,
    Standing,
    SubmitOutcome,
    Throttled,
    Unclear,
    Unreadable,
    Uploaded,
    UploadRefused,
    UploadSteps,
)
from adapters.batchfile import (
    BatchOutcome,
    BatchPage,
    CreateOutcome,
    LineResult,
    ListedBatch,
    NoResults,
    ResultFile,
)
from adapters.capabilities import BatchFile, Capabilities, Known, Listing, Rate
from adapters.fitting import model_of
from adapters.gemini import (
    Status,
    answer_of,
    api_url,
    body_of,
    check_call,
    headers,
    is_unauthorized,
    problem_of,
    refusal_of,
    standing_of,
    status_of,
)
from adapters.reading import decode, decode_or_none, to_us, words

_GUIDE = "https://ai.google.dev/gemini-api/docs/batch-api"
_API = "https://ai.google.dev/api/batch-api"
_FILES = "https://ai.google.dev/gemini-api/docs/files"
_LIMITS = "https://ai.google.dev/gemini-api/docs/rate-limits"
_READ = "2026-11-22"

_CHUNK = 8 << 20  # uploads continue at multiples of 256 KiB
_PAGE_SIZE = 100
_TOKENS_PER_REFERENCE = 560
# Tokens that may wait per model in tier 1, for the preview models; assumed to hold for those that followed.
_BUDGETS = {
    "gemini-2.5-flash-image": 3_000_000,
    "gemini-3.1-flash-image": 1_000_000,
    "gemini-3-pro-image": 2_000_000,
}

CAPABILITIES = replace(
    google.CAPABILITIES,
    provider="google-batch",
    title="Google Batch",
    shape=Known("batch-file", _GUIDE, _READ, "confirmed"),
    submit_rate=Known(Rate(30, 60.0), "batches a minute: no figure is published", _READ, "assumed"),
    poll_rate=Known(Rate(120, 60.0), "no figure is published", _READ, "assumed"),
    concurrency=Known(16_000, "1,000,000 waiting tokens per model, some 60 for a request", _READ, "assumed"),
    max_concurrency=Known(20_000, "100 batches of 200 requests", _READ, "assumed"),
    submit_timeout_s=Known(120.0, "a batch is created at once", _READ, "assumed"),
    typical_latency_s=Known(86_400.0, _GUIDE, _READ, "confirmed"),  # the target; usually it is faster
    visible_after_s=Known(600.0, "no delay is documented", _READ, "assumed"),
    result_life_s=Known(48 * 3_600.0, _FILES, _READ, "assumed"),
    result_hosts=Known((), "the images are in the file of results", _READ, "confirmed"),
    charged_on=Known("success", "an expired batch has no results", _READ, "assumed"),
    no_job_answers=Known(
        (*google.CAPABILITIES.no_job_answers.value, "403: the uploaded file is not there"), _API, _READ, "reported"
    ),
    listing=Known(
        Listing(lag_s=60.0, shows_input_s=48 * 3_600.0, keeps_s=48 * 3_600.0, page_size=_PAGE_SIZE),
        _API,
        _READ,
        "assumed",
    ),
    cancel=Known(False, _API, _READ, "assumed"),
    batch_file=Known(
        BatchFile(lines=200, file_bytes=64 << 20, batches=100, expires_s=48 * 3_600.0), _LIMITS, _READ, "reported"
    ),
    best_for="large batches that may take a day: half of Google's own price, found again after a crash",
)

_BATCH_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_FILE_NAME = re.compile(r"files/[A-Za-z0-9_-]{1,100}")
_KEY = re.compile(r"[A-Za-z0-9-]{1,60}")
_NO_FILE = re.compile(r"\bfile\b", re.IGNORECASE)
# Codes of one line, as HTTP and as gRPC count them: the request itself is bad.
_BAD_REQUEST = frozenset({400, 3})


# --- what they send -----------------------------------------------------------------------------------------


class _Output(msgspec.Struct, frozen=True, rename="camel"):
    responses_file: str = ""


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    state: str = ""
    display_name: str = ""
    create_time: datetime | None = None
    output: _Output = _Output()


class _Operation(msgspec.Struct, frozen=True):
    """A batch.  The state is the metadata's; ``response`` repeats the output of one that is done."""

    name: str
    metadata: _Metadata
    response: _Output = _Output()
    error: Status = Status()


class _Page(msgspec.Struct, frozen=True, rename="camel"):
    """One page of the list; an empty list is an empty object."""

    operations: list[_Operation] = []
    next_page_token: str = ""


class _Line(msgspec.Struct, frozen=True):
    """A line of results.  The error is assumed to stand under ``error``, or under ``status`` as in similar files."""

    key: str
    response: msgspec.Raw = msgspec.Raw(b"")
    error: Status | None = None
    status: Status | None = None


class _File(msgspec.Struct, frozen=True):
    name: str


class _UploadDone(msgspec.Struct, frozen=True):
    file: _File


# --- the codec ----------------------------------------------------------------------------------------------


class GoogleBatchCodec:
    """The dialect of the Batch API; it buys by the file only."""

    capabilities: ClassVar[Capabilities] = CAPABILITIES

    def problem(self, request: ImageRequest) -> str | None:
        return problem_of(CAPABILITIES, request)

    def lane(self, request: ImageRequest) -> str:
        """A batch is of one model, and the tokens that may wait are counted per model."""
        return model_of(CAPABILITIES, request).provider_id

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        raise ValueError("Google's batches are bought by the file")

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        return self.read_create(reply)

    def build_check(self, ctx: Context) -> HttpCall:
        return check_call(ctx)

    def read_check(self, reply: HttpReply) -> Standing:
        return standing_of(reply)

    # --- a file

    def line(self, key: str, request: ImageRequest) -> bytes:
        if _KEY.fullmatch(key) is None:
            raise ValueError(f"{key!r} cannot be the key of a line")
        body = body_of(request, model_of(CAPABILITIES, request))
        return msgspec.json.encode({"key": key, "request": body}) + b"\n"

    def tokens(self, request: ImageRequest) -> int:
        return len(request.prompt.encode()) // 3 + 1 + _TOKENS_PER_REFERENCE * len(request.references)

    def token_budget(self, lane: str) -> int:
        return _BUDGETS[lane]

    def upload_lines(self, file: FileBytes, ctx: Context) -> UploadSteps:
        start = HttpCall(
            "POST",
            api_url(ctx, "files", root="upload"),
            headers(ctx)
            | {
                "Content-Type": "application/json",
                "X-Goog-Upload-Protocol": "resumable",
                "X-Goog-Upload-Command": "start",
                "X-Goog-Upload-Header-Content-Length": str(len(file.data)),
                "X-Goog-Upload-Header-Content-Type": file.media_type,
            },
            msgspec.json.encode({"file": {"displayName": file.name, "mimeType": file.media_type}}),
        )
        reply = yield start
        query = _upload_query(_taken(reply))
        for offset in range(0, len(file.data), _CHUNK):
            piece = file.data[offset : offset + _CHUNK]
            last = offset + _CHUNK >= len(file.data)
            reply = yield HttpCall(
                "POST",
                f"{start.url}?{query}",
                {
                    "X-Goog-Upload-Offset": str(offset),
                    "X-Goog-Upload-Command": "upload, finalize" if last else "upload",
                },
                piece,
                timeout_s=180.0,
            )
            _taken(reply)
        done = decode(reply.body, _UploadDone, "upload")
        if _FILE_NAME.fullmatch(done.file.name) is None:
            raise MalformedReply("upload: no usable file name")
        return Uploaded(done.file.name, CAPABILITIES.result_life_s.value)

    # --- a batch

    def build_create(self, lane: str, file: str, name: str, ctx: Context) -> HttpCall:
        batch = {"displayName": name, "inputConfig": {"fileName": file}}
        return HttpCall(
            "POST",
            api_url(ctx, f"models/{quote(lane)}:batchGenerateContent"),
            headers(ctx) | {"Content-Type": "application/json"},
            msgspec.json.encode({"batch": batch}),
            timeout_s=CAPABILITIES.submit_timeout_s.value,
        )

    def read_create(self, reply: HttpReply) -> CreateOutcome:
        if 200 <= reply.status < 300:
            operation = decode_or_none(reply.body, _File)
            batch = _batch_id(operation.name) if operation else None
            return (
                Unclear("created, but without a readable name", likely_paid=True) if batch is None else Accepted(batch)
            )
        refusal = refusal_of(reply)
        if isinstance(refusal, Refused) and reply.status in (403, 404) and _NO_FILE.search(refusal.detail):
            return Refused("unavailable", refusal.detail)  # of the file, not of the account
        return refusal

    def build_batch(self, batch: str, ctx: Context) -> HttpCall:
        return HttpCall("GET", api_url(ctx, f"batches/{_checked(batch)}"), headers(ctx))

    def read_batch(self, reply: HttpReply) -> BatchOutcome:
        if not 200 <= reply.status < 300:
            return _no_answer(reply)
        operation = decode(reply.body, _Operation, "batch")
        match operation.metadata.state.removeprefix("BATCH_").removeprefix("JOB_"):
            case "STATE_PENDING" | "STATE_QUEUED" | "STATE_RUNNING" | "STATE_CANCELLING":
                return Pending()
            case "STATE_SUCCEEDED" | "STATE_PARTIALLY_SUCCEEDED":
                name = operation.metadata.output.responses_file or operation.response.responses_file
                if _FILE_NAME.fullmatch(name) is None:
                    raise MalformedReply("batch: done, but without a file of results")
                return ResultFile(name)
            case "STATE_EXPIRED":
                return Failed("expired", "the batch was not done within 48 hours")
            case "STATE_CANCELLED":
                # By us, or by whoever has the key: buying again is for the user to say.
                return Failed("cancelled", "the batch was cancelled", retryable=False)
            case "STATE_FAILED":
                return Failed("provider", operation.error.text or "the batch failed")
            case _:
                raise MalformedReply("batch: an unknown state")

    def build_results(self, file: str, ctx: Context) -> HttpCall:
        if _FILE_NAME.fullmatch(file) is None:
            raise ValueError(f"{file!r} is no file of results")
        url = api_url(ctx, f"{file}:download?alt=media", root="download")
        return HttpCall("GET", url, headers(ctx), timeout_s=120.0, max_reply_bytes=16 << 30)

    def read_no_results(self, reply: HttpReply) -> NoResults:
        error = status_of(reply)
        if error.status and (reply.status == 404 or (reply.status == 403 and _NO_FILE.search(error.message))):
            return Gone("the file of results is not there any more")
        if reply.status == 429:
            return Throttled(error.retry_after_s)
        return _unreadable(reply)

    def read_line(self, line: bytes) -> LineResult:
        read = decode(line, _Line, "line of results")
        error = read.error or read.status
        if error is None:
            outcome: Finished | Failed = answer_of(read.response, half_price=True)
            return LineResult(read.key, replace(outcome, job="") if isinstance(outcome, Finished) else outcome)
        return LineResult(read.key, Failed("provider", error.text, retryable=error.code not in _BAD_REQUEST))

    # --- finding again, and stopping

    def build_batches(self, ctx: Context, *, cursor: str | None) -> HttpCall:
        query = {"pageSize": str(_PAGE_SIZE)} | ({"pageToken": cursor} if cursor else {})
        return HttpCall("GET", api_url(ctx, "batches?" + urlencode(query)), headers(ctx))

    def read_batches(self, reply: HttpReply) -> BatchPage:
        if not 200 <= reply.status < 300:
            raise MalformedReply(f"batches: status {reply.status}")
        page = decode(reply.body, _Page, "batches")
        return BatchPage(tuple(map(_listed, page.operations)), page.next_page_token or None)

    def build_stop(self, batch: str, ctx: Context) -> HttpCall:
        return HttpCall("POST", api_url(ctx, f"batches/{_checked(batch)}:cancel"), headers(ctx))


GOOGLE_BATCH = GoogleBatchCodec()


# --- small things -------------------------------------------------------------------------------------------


def _checked(batch: str) -> str:
    if _BATCH_ID.fullmatch(batch) is None:
        raise ValueError(f"{batch!r} is no batch")
    return batch


def _batch_id(name: str) -> str | None:
    prefix, _, batch = name.partition("/")
    return batch if prefix == "batches" and _BATCH_ID.fullmatch(batch) else None


def _listed(operation: _Operation) -> ListedBatch:
    batch, created = _batch_id(operation.name), operation.metadata.create_time
    if batch is None or created is None:
        raise MalformedReply("batches: one without a usable name or time")
    return ListedBatch(batch, operation.metadata.display_name, to_us(created))


def _no_answer(reply: HttpReply) -> NotVisible | Throttled | Unreadable:
    error = status_of(reply)
    if reply.status == 404 and error.status:
        return NotVisible()
    return Throttled(error.retry_after_s) if reply.status == 429 else _unreadable(reply)


def _unreadable(reply: HttpReply) -> Unreadable:
    return Unreadable(words(f"status {reply.status} {status_of(reply).text}"), unauthorized=is_unauthorized(reply))


def _taken(reply: HttpReply) -> HttpReply:
    """Let an answer to a piece of an upload pass.

    Raises:
        UploadRefused: it is none.
    """
    if 200 <= reply.status < 300:
        return reply
    error = status_of(reply)
    # What the key may not do it may not do for the next file either.
    about_account = is_unauthorized(reply)
    retryable = reply.status in (408, 409, 429) or reply.status >= 500
    raise UploadRefused(words(f"status {reply.status} {error.text}"), retryable=retryable, account=about_account)


def _upload_query(reply: HttpReply) -> str:
    """Take the query of the address at which an upload continues.

    The host is ours all the same: an answer must not choose where the requests of a whole file are sent.
    """
    query = reply.headers.get("x-goog-upload-url", "").partition("?")[2]
    if not re.fullmatch(r"[A-Za-z0-9_=&%.~-]{1,4000}", query):
        raise MalformedReply("upload: no address to continue at")
    return query
