"""The Batch API of Google's emulator: a batch is as many jobs as it has lines, all accepted at once.

The keys of its lines are kept before they are accepted, and what has no accepted lines is no batch: so one that was
created exists whole, whenever the sandbox is killed.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from adapters.sandbox.accepting import Asked, admit, job_of, jobs_of
from adapters.sandbox.base import Call, Job, Reply
from adapters.sandbox.faults import job_fate
from adapters.sandbox.google_files import LIFE_US, Files, iso
from adapters.sandbox.google_input import MODELS, Refused, invalid, plain, price, prompt_tokens, validate
from adapters.sandbox.picture import draw
from adapters.sandbox.wirefmt import EmulatorSettings, json_object, json_reply

EXPIRES_US = 48 * 3_600_000_000
_MAX_INLINE_BYTES = 20_000_000
_MAX_RUNNING = 100
_AHEAD_US = 1_000_000  # creation times are distinct, so the lines of a batch are a little ahead of the clock
_TYPE = "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch"
_OUTPUT = "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatchOutput"

Answer = Callable[[Job, bytes | None], dict[str, object]]


class _Wire(msgspec.Struct, frozen=True):
    """What a line remembers of its batch."""

    key: str
    display_name: str
    inline: bool
    expires_us: int
    problem: str = ""  # why the request of this line is not valid


class _Sent(msgspec.Struct, frozen=True):
    """One line as it came."""

    key: str
    request: object


_wire_of = msgspec.json.Decoder(_Wire).decode


def is_line(job: Job) -> bool:
    """Tell whether a job is a line of a batch."""
    return bool(job.wire)


def expires_us(job: Job) -> int:
    """When the batch of a line gives up."""
    return _wire_of(job.wire).expires_us


class Batches:
    """The batches of one emulated Google."""

    def __init__(
        self,
        settings: EmulatorSettings,
        provider: str,
        files: Files,
        *,
        answer: Answer,
        listing_lag_s: float,
        stalled_s: float,
    ) -> None:
        """``answer`` says what a line became, with its picture if it is to be in it."""
        self._settings = settings
        self._provider = provider
        self._files = files
        self._answer = answer
        self._lag_us = round(listing_lag_s * 1_000_000)
        self._stalled_us = round(stalled_s * 1_000_000)

    def handle(self, call: Call, rest: Sequence[str], verb: str, account: str, now_us: int) -> Reply:
        match call.method, list(rest), verb:
            case "GET", [], "":
                return self._list(call.query, account, now_us)
            case "GET", [batch], "":
                return self._operation(self._lines(batch, account), now_us)
            case "POST", [batch], "cancel":
                for line in self._lines(batch, account):
                    self._settings.jobs.cancel(self._provider, line.id, now_us)
                return json_reply(200, {})
            case "DELETE", [batch], "":
                self._lines(batch, account)
                self._settings.jobs.keep(self._provider, f"batch/{batch}", b"")
                return json_reply(200, {})
            case _:
                raise Refused(404, "NOT_FOUND", "Method not found.")

    # --- creating -----------------------------------------------------------------------------------------

    def create(self, call: Call, name: str, account: str, now_us: int) -> Reply:
        """Take a batch: with a new id every time, also when the same one was created a moment ago."""
        told = json_object(call.body) or {}
        batch = told.get("batch")
        if not isinstance(batch, dict):
            raise invalid("batch is not specified")
        known = {"displayName", "display_name", "inputConfig", "input_config", "priority"}
        for field in batch:
            if field not in known:
                raise invalid(f"Invalid JSON payload received. Unknown name \"{field}\" at 'batch': Cannot find field.")
        display_name = batch.get("displayName", batch.get("display_name"))
        if not isinstance(display_name, str) or not display_name:
            raise invalid("batch.display_name is required")
        sent, inline = self._input(batch.get("inputConfig", batch.get("input_config")), call, account, now_us)
        judged = [self._judged(line, name, account, now_us) for line in sent]
        self._admit(name, [asked for asked, _ in judged], account, now_us)
        admission = admit(self._settings, self._provider, now_us)
        batch_id = admission.entropy.hex()[:20]
        done_us = max(admission.done_us + self._stalled_us, admission.created_us + len(sent))
        lines: list[Job] = []
        for index, (line, (asked, problem)) in enumerate(zip(sent, judged, strict=True)):
            wire = _Wire(line.key, display_name, inline, admission.created_us + EXPIRES_US, problem)
            fate = "fail" if problem else job_fate(self._settings.chaos, _entropy(admission.entropy, index))
            lines.append(
                job_of(
                    self._settings,
                    asked,
                    replace(admission, created_us=admission.created_us + index, done_us=done_us, fate=fate),
                    account=account,
                    job_id=f"{batch_id}.{line.key}",
                    wire=msgspec.json.encode(wire).decode(),
                    price_microusd=price(asked, drawn=True, half=True),
                )
            )
        keys = msgspec.json.encode([line.key for line in sent])
        self._settings.jobs.keep(self._provider, f"batch/{batch_id}", keys)
        self._settings.jobs.add_all(lines)
        return self._operation(lines, now_us)

    def _input(self, config: object, call: Call, account: str, now_us: int) -> tuple[list[_Sent], bool]:
        match config:
            case {"requests": {"requests": list(entries)}} if entries:
                if len(call.body) > _MAX_INLINE_BYTES:
                    raise invalid("Inline requests may have 20 MB: use a file.")
                return [_inlined(entry, index) for index, entry in enumerate(entries)], True
            case {"fileName": str(name)} | {"file_name": str(name)}:
                rows = self._files.content(name, account, now_us).splitlines()
                asked = [_read_row(row, number) for number, row in enumerate(rows, 1) if row.strip()]
                if not asked:
                    raise invalid("The input file is empty.")
                if len({line.key for line in asked}) != len(asked):
                    raise invalid("The keys of the input file are not unique.")
                return asked, False
            case _:
                raise invalid("batch.input_config is not specified")

    def _judged(self, line: _Sent, name: str, account: str, now_us: int) -> tuple[Asked, str]:
        """Check one line.  A wrong one fails by itself, later, and costs nothing."""
        try:
            return validate(plain(line.request), name, lambda uri: self._files.content(uri, account, now_us)), ""
        except Refused as exc:
            return Asked(name, "", (), "1:1", "1K", "jpg"), exc.message

    def _admit(self, name: str, wanted: Iterable[Asked], account: str, now_us: int) -> None:
        """Hold the limits of what may wait: batches at one time, and tokens per model."""
        # What was accepted longer ago than the slowest batch takes has ended.
        slowest_us = round(self._settings.latency_s * 3_000_000) + self._stalled_us + 1_000_000
        running = [
            line
            for line in jobs_of(
                self._settings, self._provider, account, since_us=now_us - slowest_us, until_us=now_us + _AHEAD_US
            )
            if is_line(line) and line.done_us > now_us and not line.cancelled_us
        ]
        if len({line.id.partition(".")[0] for line in running}) >= _MAX_RUNNING:
            raise Refused(429, "RESOURCE_EXHAUSTED", "Too many concurrent batch jobs.")
        tokens = sum(prompt_tokens(line.prompt, len(line.references)) for line in running if line.model == name)
        tokens += sum(prompt_tokens(each.prompt, len(each.references)) for each in wanted)
        if tokens > MODELS[name].enqueued:
            raise Refused(429, "RESOURCE_EXHAUSTED", "Enqueued token limit of this model exceeded.")

    # --- telling ------------------------------------------------------------------------------------------

    def _lines(self, batch: str, account: str) -> list[Job]:
        """Find the lines of a batch, in their order."""
        jobs = self._settings.jobs
        keys: list[str] = msgspec.json.decode(jobs.kept(self._provider, f"batch/{batch}") or b"[]")
        lines = [line for key in keys if (line := jobs.get(self._provider, f"{batch}.{key}")) is not None]
        if not lines or lines[0].account != account:
            raise Refused(404, "NOT_FOUND", "Requested entity was not found.")
        return lines

    def _list(self, query: Mapping[str, str], account: str, now_us: int) -> Reply:
        size, token = query.get("pageSize", "50"), query.get("pageToken", "0")
        if not (size.isascii() and size.isdigit() and token.isascii() and token.isdigit()):
            raise invalid("Invalid page size or token.")
        jobs = jobs_of(self._settings, self._provider, account, until_us=now_us + _AHEAD_US)
        names = dict.fromkeys(job.id.partition(".")[0] for job in jobs if is_line(job))
        known = [
            self._lines(name, account) for name in names if self._settings.jobs.kept(self._provider, f"batch/{name}")
        ]
        shown = [lines for lines in known if lines[0].created_us <= now_us - self._lag_us]
        first, count = int(token), min(100, int(size) or 50)
        page: dict[str, object] = {"operations": [self._shown(lines, now_us) for lines in shown[first : first + count]]}
        if first + count < len(shown):
            page["nextPageToken"] = str(first + count)
        return json_reply(200, page)

    def _operation(self, lines: Sequence[Job], now_us: int) -> Reply:
        """Answer with a batch; one that was asked inline holds its pictures, once it is done."""
        shown = self._shown(lines, now_us)
        if "response" not in shown or not _wire_of(lines[0].wire).inline:
            return json_reply(200, shown)
        return msgspec.structs.replace(json_reply(200, {}), late=lambda: self._with_answers(shown, lines))

    def _shown(self, lines: Sequence[Job], now_us: int) -> dict[str, object]:
        first = lines[0]
        wire, batch = _wire_of(first.wire), first.id.partition(".")[0]
        state = _state(lines, wire, now_us)
        ended_us = min(first.done_us, wire.expires_us)
        metadata: dict[str, object] = {
            "@type": _TYPE,
            "name": f"batches/{batch}",
            "model": f"models/{first.model}",
            "displayName": wire.display_name,
            "createTime": iso(first.created_us),
            "updateTime": iso(min(now_us, ended_us)),
            "batchStats": _counted(lines, state),
            "state": state,
        }
        shown: dict[str, object] = {"name": f"batches/{batch}", "metadata": metadata}
        if state in ("BATCH_STATE_PENDING", "BATCH_STATE_RUNNING"):
            return shown
        metadata["endTime"] = iso(ended_us)
        shown["done"] = True
        if state == "BATCH_STATE_SUCCEEDED":
            output = {} if wire.inline else {"responsesFile": f"files/batch-{batch}"}
            metadata["output"] = output
            shown["response"] = {"@type": _OUTPUT, **output}
        return shown

    def _with_answers(self, shown: dict[str, object], lines: Sequence[Job]) -> bytes:
        answers = [{"metadata": {"key": _wire_of(line.wire).key}, **self._said(line)} for line in lines]
        output = {"inlinedResponses": {"inlinedResponses": answers}}
        metadata = shown["metadata"]
        assert isinstance(metadata, dict)
        return msgspec.json.encode(
            shown | {"metadata": metadata | {"output": output}, "response": {"@type": _OUTPUT, **output}}
        )

    # --- results ------------------------------------------------------------------------------------------

    def download(self, name: str, account: str, now_us: int) -> Reply:
        """Answer with a result file: a line of JSON per request, in the order of the input."""
        if not name.startswith("batch-"):
            raise invalid("Only generated files may be downloaded.")
        lines = self._lines(name.removeprefix("batch-"), account)
        state = _state(lines, _wire_of(lines[0].wire), now_us)
        if state != "BATCH_STATE_SUCCEEDED" or now_us >= lines[0].done_us + LIFE_US:
            raise Refused(404, "NOT_FOUND", "Requested entity was not found.")

        def written() -> bytes:
            rows = ({"key": _wire_of(line.wire).key, **self._said(line)} for line in lines)
            return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)

        return Reply(200, {"content-type": "application/jsonl"}, b"", late=written)

    def _said(self, line: Job) -> dict[str, object]:
        problem = _wire_of(line.wire).problem
        if problem:
            return {"error": {"code": 3, "message": problem}}
        drawn = line.fate not in ("fail", "policy")
        return self._answer(line, draw(line, short_side=self._settings.small_px) if drawn else None)


# --- small things -------------------------------------------------------------------------------------------


def _state(lines: Sequence[Job], wire: _Wire, now_us: int) -> str:
    first = lines[0]
    if first.cancelled_us:
        return "BATCH_STATE_CANCELLED"
    if first.done_us > wire.expires_us:
        return "BATCH_STATE_EXPIRED" if now_us >= wire.expires_us else "BATCH_STATE_RUNNING"
    if now_us >= first.done_us:
        return "BATCH_STATE_SUCCEEDED"
    return "BATCH_STATE_PENDING" if now_us < first.started_us + 1 else "BATCH_STATE_RUNNING"


def _counted(lines: Sequence[Job], state: str) -> dict[str, str]:
    counts = {"requestCount": str(len(lines))}
    if state != "BATCH_STATE_SUCCEEDED":
        return counts | {"pendingRequestCount": str(len(lines))}
    failed = sum(line.fate == "fail" for line in lines)
    return counts | {"successfulRequestCount": str(len(lines) - failed), "failedRequestCount": str(failed)}


def _inlined(entry: object, index: int) -> _Sent:
    match entry:
        case {"request": request, "metadata": {"key": str(key)}} if _is_key(key):
            return _Sent(key, request)
        case {"request": request}:
            return _Sent(str(index), request)
        case _:
            raise invalid("A request of the batch is not specified.")


def _read_row(row: bytes, number: int) -> _Sent:
    found = json_object(row)
    if found is None or set(found) != {"key", "request"}:
        raise invalid(f"Line {number} of the input file is not a request with a key.")
    key = found["key"]
    if not isinstance(key, str) or not _is_key(key):
        raise invalid(f"Line {number} of the input file has no usable key.")
    return _Sent(key, found["request"])


def _is_key(key: str) -> bool:
    return 0 < len(key) <= 100 and key.isprintable() and "/" not in key


def _entropy(batch: bytes, index: int) -> bytes:
    return hashlib.sha256(batch + str(index).encode()).digest()
