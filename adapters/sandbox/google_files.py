"""The Files API of Google's emulator: resumable upload, metadata, and the bytes for whoever refers to them.

Nothing is kept beside the job table: the address that an upload continues at carries what its start said.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from adapters.sandbox.base import Call, JobTable, Reply
from adapters.sandbox.google_input import Refused, invalid, plain
from adapters.sandbox.wirefmt import json_object, json_reply

LIFE_US = 48 * 3_600_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_MAX_BYTES = 2_000_000_000


class _Meta(msgspec.Struct, frozen=True):
    """What is known of a file; while it is uploaded, all of it travels in the address."""

    name: str
    account: str
    display_name: str
    media_type: str
    size: int
    created_us: int
    origin: str
    deleted: bool = False


class Files:
    """The files of one emulated Google."""

    def __init__(self, jobs: JobTable, provider: str) -> None:
        self._jobs = jobs
        self._provider = provider

    def handle(self, call: Call, rest: Sequence[str], account: str, now_us: int, *, upload: bool) -> Reply:
        match call.method, list(rest):
            case "POST", [] if upload:
                return self._start(call, account, now_us)
            case "GET", [name]:
                return json_reply(200, _shown(self._meta(name, account, now_us)))
            case "DELETE", [name]:
                meta = self._meta(name, account, now_us)
                self._keep_meta(msgspec.structs.replace(meta, deleted=True))
                self._jobs.keep(self._provider, f"data/{name}", b"")
                return json_reply(200, {})
            case _:
                raise Refused(404, "NOT_FOUND", "Method not found.")

    def receive(self, call: Call, now_us: int) -> Reply:
        """Take a piece of an upload; the last one makes the file."""
        meta = _from_token(call.query["upload_id"])
        commands = {command.strip() for command in call.headers.get("x-goog-upload-command", "").split(",")}
        part = f"part/{meta.name}"
        have = self._jobs.kept(self._provider, part) or b""
        if call.headers.get("x-goog-upload-offset", "") != str(len(have)):
            if call.headers.get("x-goog-upload-offset") != "0":
                raise invalid("The offset does not continue the upload.")
            have = b""  # the client begins again
        data = have + call.body
        if len(data) > meta.size or ("finalize" in commands and len(data) != meta.size):
            raise invalid("The size is not that which the upload began with.")
        if "finalize" not in commands:
            self._jobs.keep(self._provider, part, data)
            return Reply(200, {"x-goog-upload-status": "active"}, b"")
        self._jobs.keep(self._provider, f"data/{meta.name}", data)
        self._keep_meta(meta)
        self._jobs.keep(self._provider, part, b"")
        return json_reply(200, {"file": _shown(meta)}, {"x-goog-upload-status": "final"})

    def content(self, name_or_uri: str, account: str, now_us: int) -> bytes:
        """Give the bytes of a file of this account, by ``files/...`` or by its address."""
        name = name_or_uri.rpartition("files/")[2]
        self._meta(name, account, now_us)
        return self._jobs.kept(self._provider, f"data/{name}") or b""

    def _start(self, call: Call, account: str, now_us: int) -> Reply:
        told = plain(json_object(call.body) or {})
        file = told.get("file", {}) if isinstance(told, dict) else {}
        headers = call.headers
        length = headers.get("x-goog-upload-header-content-length", "")
        if headers.get("x-goog-upload-protocol") != "resumable" or headers.get("x-goog-upload-command") != "start":
            raise invalid("Only resumable uploads are supported.")
        if not isinstance(file, dict) or not re.fullmatch(r"[0-9]{1,12}", length) or int(length) > _MAX_BYTES:
            raise invalid("The upload needs its length, and a file object.")
        chosen = str(file.get("name", "")).removeprefix("files/")
        if chosen and (not _NAME.fullmatch(chosen) or self._known(chosen) is not None):
            raise Refused(409, "ALREADY_EXISTS", f"Requested entity already exists or has no valid name: {chosen}")
        seed = f"{account}/{now_us}/{length}/{file.get('displayName', '')}".encode()
        meta = _Meta(
            name=chosen or hashlib.sha256(seed).hexdigest()[:12],
            account=account,
            display_name=str(file.get("displayName", "")),
            media_type=headers.get("x-goog-upload-header-content-type", "") or "application/octet-stream",
            size=int(length),
            created_us=now_us,
            origin=call.origin,
        )
        token = base64.urlsafe_b64encode(msgspec.json.encode(meta)).decode()
        where = f"{call.origin}{call.path}?upload_id={token}&upload_protocol=resumable"
        return Reply(200, {"x-goog-upload-url": where, "x-goog-upload-status": "active"}, b"")

    def _known(self, name: str) -> _Meta | None:
        kept = self._jobs.kept(self._provider, f"meta/{name}")
        meta = msgspec.json.decode(kept, type=_Meta) if kept else None
        return None if meta is None or meta.deleted else meta

    def _meta(self, name: str, account: str, now_us: int) -> _Meta:
        meta = self._known(name)
        if meta is None or meta.account != account or now_us >= meta.created_us + LIFE_US:
            text = f"You do not have permission to access the File {name} or it may not exist."
            raise Refused(403, "PERMISSION_DENIED", text)
        return meta

    def _keep_meta(self, meta: _Meta) -> None:
        self._jobs.keep(self._provider, f"meta/{meta.name}", msgspec.json.encode(meta))


def iso(at_us: int) -> str:
    """Spell a time as Google does."""
    return (_EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _from_token(token: str) -> _Meta:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token), type=_Meta)
    except (ValueError, msgspec.DecodeError):
        raise invalid("The upload is not known.") from None


def _shown(meta: _Meta) -> dict[str, object]:
    return {
        "name": f"files/{meta.name}",
        "displayName": meta.display_name,
        "mimeType": meta.media_type,
        "sizeBytes": str(meta.size),
        "createTime": iso(meta.created_us),
        "updateTime": iso(meta.created_us),
        "expirationTime": iso(meta.created_us + LIFE_US),
        "uri": f"{meta.origin}/v1beta/files/{meta.name}",
        "state": "ACTIVE",
        "source": "UPLOADED",
    }
