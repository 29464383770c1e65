"""Local reference images on their way to a provider: read again, checked, uploaded once, or put into the request.

All of it happens before the intent is recorded, and none of it can cost money.  What was true at import must still
be true: bytes that differ from the recorded digest stop their tasks and nothing else.

An upload belongs to the account and to the bytes.  Tasks that need the same file at the same moment share one
upload; afterwards it is used by all, in this run and in later ones, until it comes near the end of its life.
"""

import base64
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Literal, TypeAlias

import msgspec
import trio

from adapters.base import FileBytes, ImageRequest, Uploaded, Uploads
from adapters.references import LocalFile, local_file
from ledger.events import PayloadRef, ReferenceUploaded
from runtime.accountlog import AccountLog
from runtime.accounts import Account
from runtime.bytebudget import ByteBudget
from runtime.evidence import Query
from runtime.ports import Clock, Disk, DiskFailed, Threads
from runtime.reconcile import SKEW_S
from runtime.uploads import TRIES, UploadFailed, upload
from runtime.work import Work

_log = logging.getLogger(__name__)

_MEMORY = 256 << 20  # bytes that references may fill at one time, in all their forms (SEC-9)
_COPIES_INLINE = 4  # the file, its base64 text, and the body of the request as text and as bytes
_COPIES_UPLOAD = 3
_REMEMBERED_S = 5.0  # a file that could not be uploaded is not tried again at once
_ROUNDS = 4  # after so many failed rounds while other files went through, it is the file's own fault
_UNKNOWN_LIFE_S = 600.0  # how long an upload is used of which nobody says how long it lasts
_LATENCIES = 3.0  # a job may take so many times as long as usual before it reads its references

_ENDINGS = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}


class Resolved(msgspec.Struct, frozen=True):
    """A request as it may be sent.  ``uploads``: where its local references lie, in their order."""

    request: ImageRequest
    uploads: tuple[PayloadRef, ...] = ()


class Unresolved(msgspec.Struct, frozen=True):
    """Why a request cannot be sent with its local references.

    ``input_changed`` and ``refused`` concern the task for good, ``account`` every file of the account, ``later``
    nobody knows: the task may be tried again, here or elsewhere.
    """

    reason: Literal["input_changed", "refused", "account", "later"]
    detail: str


Resolution: TypeAlias = Resolved | Unresolved


class _Failed(Exception):
    def __init__(self, outcome: Unresolved) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


class ReferenceFiles:
    """Reads local references again, for all accounts, within one bound of memory."""

    def __init__(self, threads: Threads, disk: Disk, *, places: Mapping[str, str] | None = None) -> None:
        """``places``: where files were found last, by digest; for those that were moved since their import."""
        self._threads = threads
        self._disk = disk
        self._places = places or {}
        self.memory = ByteBudget(_MEMORY)

    async def read(self, file: LocalFile) -> bytes:
        """Return the bytes that were there at import.  Raises _Failed when they are not there any more."""
        return await self._threads.run(lambda: self._read(file))

    async def data_uri(self, file: LocalFile) -> str:
        """The same as a ``data:`` URI."""
        return await self._threads.run(
            lambda: f"data:{file.media_type};base64,{base64.b64encode(self._read(file)).decode('ascii')}"
        )

    def _read(self, file: LocalFile) -> bytes:
        why = ""
        for path in dict.fromkeys((file.path, self._places.get(file.sha256, file.path))):
            try:
                data = self._disk.read(Path(path), limit=file.size)
            except DiskFailed as exc:
                why = why or str(exc)
                continue
            if file.is_made_of(data):
                return data
            why = why or f"{path} is not the file that it was at import"
        raise _Failed(Unresolved("input_changed", why))


class _Held(msgspec.Struct, frozen=True):
    """An upload that can be referred to.  ``until``: monotonic, with the margin taken off."""

    url: str
    ref: PayloadRef
    until: float


class _Trouble(msgspec.Struct):
    """What became of the last tries to upload a file.  ``outcome`` counts until the monotonic ``until``."""

    outcome: Unresolved
    until: float
    rounds: int
    others: int  # uploads of the account at the first of the rounds


class References:
    """The local references of one account."""

    def __init__(
        self,
        account: Account,
        *,
        files: ReferenceFiles,
        query: Query,
        account_log: AccountLog,
        clock: Clock,
        random: Random,
        text: Callable[[int], str | None],
    ) -> None:
        """``query`` sends a free call under the account's query limit, ``text`` reads an erasable text by its row."""
        self._account = account
        self._files = files
        self._query = query
        self._account_log = account_log
        self._clock = clock
        self._random = random
        self._text = text
        record = account.codec.capabilities
        self._way = record.references.value.files
        self._life_s = record.references.value.upload_life_s
        self._margin_s = record.submit_timeout_s.value + _LATENCIES * account.latency
        self._held: dict[str, _Held] = {}
        self._troubles: dict[str, _Trouble] = {}
        self._under_way: dict[str, trio.Event] = {}
        self._earlier = dict(account_log.uploads)
        self._uploads = 0

    def __repr__(self) -> str:
        return f"<References {self._account.name} held={len(self._held)} under_way={len(self._under_way)}>"

    def cold(self, request: ImageRequest) -> bool:
        """Whether something must be uploaded before the request can be sent."""
        return self._way == "upload" and any(
            self._usable(file.sha256) is None and self._trouble(file.sha256) is None for file in _local(request)
        )

    async def warm(self, request: ImageRequest) -> None:
        """Upload what is missing; what goes wrong is told by :meth:`resolve`."""
        try:
            await self._url_all(_local(request))
        except _Failed as exc:
            _log.info("%s: %s", self._account.name, exc)

    async def resolve(self, request: ImageRequest, held: AsyncExitStack) -> Resolution:
        """Put URLs or bytes in the place of local files.  Memory of the bytes counts until ``held`` is closed."""
        files = _local(request)
        if not files:
            return Resolved(request)
        try:
            if self._way == "upload":
                uploads = await self._url_all(files)
                return Resolved(_with(request, [each.url for each in uploads]), tuple(each.ref for each in uploads))
            await held.enter_async_context(self._files.memory.hold(_COPIES_INLINE * sum(file.size for file in files)))
            return Resolved(_with(request, [await self._files.data_uri(file) for file in files]))
        except _Failed as exc:
            return exc.outcome

    async def as_sent(self, work: Work) -> ImageRequest | None:
        """The request of the newest attempt as the provider was given it; None when nobody can know any more."""
        files = _local(work.request)
        if not files:
            return work.request
        try:
            if self._way == "inline":
                return _with(work.request, [await self._files.data_uri(file) for file in files])
        except _Failed:
            return None
        return as_uploaded(work, self._text)

    # --- one file -----------------------------------------------------------------------------------------

    async def _url_all(self, files: Sequence[LocalFile]) -> list[_Held]:
        return [await self._url(file) for file in files]

    async def _url(self, file: LocalFile) -> _Held:
        """Find or make the upload of a file; whoever comes while it is under way waits for it."""
        while (turn := self._under_way.get(file.sha256)) is not None:
            await turn.wait()
        held = self._usable(file.sha256)
        if held is not None:
            return held
        trouble = self._trouble(file.sha256)
        if trouble is not None:
            raise _Failed(trouble)
        turn = self._under_way[file.sha256] = trio.Event()
        try:
            held = self._held[file.sha256] = await self._upload(file)
            self._uploads += 1
            self._troubles.pop(file.sha256, None)
            return held
        except _Failed as exc:
            raise _Failed(self._note(file, exc.outcome)) from exc
        finally:
            del self._under_way[file.sha256]
            turn.set()

    async def _upload(self, file: LocalFile) -> _Held:
        async with self._files.memory.hold(_COPIES_UPLOAD * file.size):
            data = await self._files.read(file)
            name = f"{file.sha256[:32]}.{_ENDINGS.get(file.media_type, 'img')}"
            uploaded = await self._send(FileBytes(name, file.media_type, data))
        life_s = uploaded.life_s or self._life_s
        ref, payload = self._account_log.text(uploaded.url)
        expires_at_us = self._clock.now_us() + int(life_s * 1e6) if life_s else 0
        await self._account_log.append(
            ReferenceUploaded(sha256=file.sha256, url=ref, expires_at_us=expires_at_us), payloads=[payload]
        )
        usable_s = max(life_s - self._margin_s, life_s / 2) if life_s else _UNKNOWN_LIFE_S
        return _Held(uploaded.url, ref, self._clock.monotonic() + usable_s)

    async def _send(self, file: FileBytes) -> Uploaded:
        codec = self._account.codec
        assert isinstance(codec, Uploads), f"{self._account.name}: uploads in the record and none in the codec"
        context = self._account.context()
        try:
            return await upload(
                lambda: codec.upload(file, context), self._query, clock=self._clock, random=self._random
            )
        except UploadFailed as exc:
            said = {
                "account": str(exc),
                "refused": f"the upload was refused: {exc}",
                "later": f"the upload failed: {exc}",
            }
            raise _Failed(Unresolved(exc.reason, said[exc.reason])) from exc

    # --- what is remembered -------------------------------------------------------------------------------

    def _usable(self, sha256: str) -> _Held | None:
        held = self._held.get(sha256) or self._recalled(sha256)
        return held if held is not None and self._clock.monotonic() < held.until else None

    def _recalled(self, sha256: str) -> _Held | None:
        """Take up an upload of an earlier run, whose recorded end is believed with a margin (REC-8)."""
        earlier = self._earlier.pop(sha256, None)
        if earlier is None or not earlier.expires_at_us:
            return None
        url = self._text(earlier.url.row)
        if url is None:
            return None
        left_s = (earlier.expires_at_us - self._clock.now_us()) / 1e6
        if self._life_s:
            left_s = min(left_s, self._life_s)  # else our clock was set back
        held = _Held(url, earlier.url, self._clock.monotonic() + left_s - SKEW_S - self._margin_s)
        self._held[sha256] = held
        return held

    def _trouble(self, sha256: str) -> Unresolved | None:
        trouble = self._troubles.get(sha256)
        return trouble.outcome if trouble is not None and self._clock.monotonic() < trouble.until else None

    def _note(self, file: LocalFile, outcome: Unresolved) -> Unresolved:
        """Remember what went wrong, so that the tasks which share the file do not each find out for themselves."""
        known = self._troubles.setdefault(file.sha256, _Trouble(outcome, 0.0, 0, self._uploads))
        known.rounds += 1
        if outcome.reason == "later" and known.rounds >= _ROUNDS and self._uploads > known.others:
            tries = known.rounds * TRIES
            outcome = Unresolved("refused", f"{outcome.detail} ({tries} times, and other files went through)")
        lasting = outcome.reason in ("input_changed", "refused")
        known.outcome = outcome
        known.until = float("inf") if lasting else self._clock.monotonic() + _REMEMBERED_S
        return outcome


def _local(request: ImageRequest) -> list[LocalFile]:
    return [file for reference in request.references if (file := local_file(reference)) is not None]


def _with(request: ImageRequest, texts: Sequence[str]) -> ImageRequest:
    """Put a text in the place of each local reference, in order."""
    left = iter(texts)
    references = tuple(next(left) if local_file(reference) else reference for reference in request.references)
    return msgspec.structs.replace(request, references=references)


def as_uploaded(work: Work, text: Callable[[int], str | None]) -> ImageRequest | None:
    """The request of the newest attempt with its files where they were uploaded to, from the record alone; None when
    that is not known any more."""
    files = _local(work.request)
    urls = [url for ref in work.attempt.uploads if (url := text(ref.row)) is not None] if files else []
    return _with(work.request, urls) if len(urls) == len(files) else None
