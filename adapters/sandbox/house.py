"""All emulators under one roof: routing by prefix, result files, the bill, due callbacks.

This is the whole sandbox without a socket.  The server is a skin over it, and so is the simulator's wire.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import msgspec

from adapters.registry import PROVIDERS, Entry, entries, load
from adapters.sandbox.base import Call, CallsBack, Embeds, Emulator, Job, JobState, Reply, Webhook
from adapters.sandbox.faults import Chaos, Dice, RequestFault, forgeries, hook_fate
from adapters.sandbox.picture import draw, request_digest
from adapters.sandbox.wirefmt import EmulatorSettings, json_reply

_PAGE = 500
_WEBHOOK_TRIES = 3
_WEBHOOK_PAUSE_US = 2_000_000
_MEDIA = {"jpg": "image/jpeg", "png": "image/png"}


class BillLine(msgspec.Struct, frozen=True):
    """One accepted job as the provider would bill it; ``digest`` is that of the request, as in the picture.

    ``called``: its callback was sent, and taken.
    """

    n: int
    job: str
    provider: str
    account: str
    digest: str
    prompt: str
    aspect: str
    resolution: str
    charged_microusd: int
    state: JobState
    created_us: int
    called: bool = False


class Drawing(msgspec.Struct, frozen=True):
    """A result that was found and is still to be drawn, and what happens to it on its way: a file, or (``reply``) a
    picture inside an answer, or (without ``job``) an answer that is made of many."""

    job: Job | None
    fault: RequestFault | None = None
    reply: Reply | None = None


class House:
    """The emulators of one sandbox, each with its faults around it."""

    def __init__(self, settings: EmulatorSettings, providers: Sequence[str] = ()) -> None:
        """Without names every provider is played, but those of packages whose emulator cannot be had (``left_out``).

        Raises:
            ValueError: one that is named cannot be played.
        """
        self._settings = settings
        self._emulators: dict[str, Emulator] = {}
        self._callers: dict[str, CallsBack] = {}
        self.left_out: dict[str, str] = {}
        known = entries()
        for name in providers or known:
            if name not in known:
                raise ValueError(f"no provider {name!r}; there are {', '.join(known)}")
            try:
                emulator = _emulator(known[name], settings)
            except Exception as exc:  # whatever the code of strangers does
                if name in PROVIDERS:
                    raise
                if name in providers:
                    raise ValueError(f"the emulator of {name} cannot be used: {exc}") from exc
                self.left_out[name] = f"{type(exc).__name__}: {exc}"
            else:
                self._emulators[name] = Chaos(emulator, jobs=settings.jobs, profile=settings.chaos, seed=settings.seed)
                if isinstance(emulator, CallsBack):  # bare: what goes wrong with a callback is drawn in _hooks
                    self._callers[name] = emulator
        start = settings.jobs.count()
        self._dice = Dice("files", profile=settings.chaos, seed=settings.seed, start=start)

    @property
    def providers(self) -> tuple[str, ...]:
        return tuple(self._emulators)

    def handle(self, call: Call, now_us: int) -> Reply:
        """Answer a call whose path still has its prefix (``/kie/...``, ``/files/...``) and whose origin has none."""
        found = self.find(call, now_us)
        return found if isinstance(found, Reply) else self.picture(found)

    def find(self, call: Call, now_us: int) -> Reply | Drawing:
        """Answer all but the drawing: :meth:`picture` of it is then the answer.  Drawing is the one slow part and
        needs no job table, so a server does it in a thread."""
        prefix, slash, rest = call.path.removeprefix("/").partition("/")
        if prefix == "files":
            return self._file(call.method, rest, now_us)
        emulator = self._emulators.get(prefix)
        if emulator is None:
            return json_reply(404, {"error": f"no such provider here; there are {', '.join(self._emulators)}"})
        inner = msgspec.structs.replace(call, path=slash + rest, origin=f"{call.origin}/{prefix}")
        reply = emulator.handle(inner, now_us)
        if reply.late is not None:
            return Drawing(None, reply=reply)
        job = self._settings.jobs.get(prefix, reply.draws) if reply.draws else None
        return reply if job is None else Drawing(job, reply=reply)

    def picture(self, drawing: Drawing) -> Reply:
        """Draw a result."""
        job, reply = drawing.job, drawing.reply
        if reply is not None and reply.late is not None:
            return msgspec.structs.replace(reply, body=reply.late(), late=None)
        assert job is not None
        data = draw(job, short_side=self._settings.small_px)
        emulator = self._emulators[job.provider]
        if reply is not None and isinstance(emulator, Embeds):
            return emulator.embed(reply, data)
        return self._dice.spoil(Reply(200, {"content-type": _MEDIA[job.output_format]}, data), drawing.fault)

    def bill(self, after: int, now_us: int) -> Iterator[BillLine]:
        """List what was accepted behind line ``after``, in order, with what is charged by now."""
        while page := self._settings.jobs.since(after, _PAGE):
            after = page[-1][0]
            for number, job in page:
                emulator = self._emulators.get(job.provider)
                if emulator is not None:  # else accepted in an earlier life with more providers
                    called = self._settings.jobs.kept(job.provider, _taken_call(job.id)) is not None
                    yield _bill_line(number, job, emulator, now_us, called=called)

    def due_webhooks(self, now_us: int, limit: int = 100) -> list[Webhook]:
        """Callbacks to be sent now, in any order; each that is no extra one stays due until :meth:`webhook_sent`."""
        return [
            hook
            for name, caller in self._callers.items()
            for job in self._settings.jobs.due_callbacks(name, now_us, limit)
            for hook in self._hooks(caller, job, now_us)
        ]

    def _hooks(self, caller: CallsBack, job: Job, now_us: int) -> Sequence[Webhook]:
        """What is sent about a job: as the chaos profile says."""
        jobs, chaos = self._settings.jobs, self._settings.chaos
        hook = caller.webhook(job, now_us)
        match hook_fate(chaos, job):
            case "hook_lost":
                jobs.called_back(job.provider, job.id, retry_at_us=None)
                return ()
            case "hook_late" if now_us < (later_us := job.done_us + round(chaos.late_s * 1_000_000)):
                jobs.called_back(job.provider, job.id, retry_at_us=later_us)
                return ()
            case "hook_twice":
                return (hook, msgspec.structs.replace(hook, extra=True))
            case "hook_forged":
                return (*forgeries(hook), hook)
            case _:
                return (hook,)

    def webhook_sent(self, hook: Webhook, now_us: int, *, taken: bool) -> None:
        """Note a delivery (of no extra one); a refused one is tried again after a pause, three times in all."""
        jobs = self._settings.jobs
        if taken:
            jobs.keep(hook.provider, _taken_call(hook.job), b"")
        retry_at_us = None if taken else now_us + _WEBHOOK_PAUSE_US
        if jobs.called_back(hook.provider, hook.job, retry_at_us=retry_at_us) >= _WEBHOOK_TRIES:
            jobs.called_back(hook.provider, hook.job, retry_at_us=None)

    def _file(self, method: str, rest: str, now_us: int) -> Reply | Drawing:
        """Find a result file.  Nobody needs a key, as at the providers: the name is the secret.

        The faults of a file pass: unlike a spoiled result, another try may get it whole.
        """
        provider, _, name = rest.partition("/")
        job_id, _, extension = name.rpartition(".")
        emulator = self._emulators.get(provider)
        job = self._settings.jobs.get(provider, job_id)
        if method != "GET" or emulator is None or job is None or job.output_format != extension:
            return _no_file(404, "no such file")
        if emulator.state(job, now_us) != "succeeded":
            return _no_file(404, "no such file yet")
        if now_us >= job.done_us + round(emulator.result_life_s * 1_000_000):
            return _no_file(404, "this file has expired")
        fault = self._dice.draw()
        if fault in ("throttle", "error_before", "error_after"):
            return _no_file(503, "busy")
        return Drawing(job, fault)


def _emulator(entry: Entry, settings: EmulatorSettings) -> Emulator:
    build = cast(Callable[[EmulatorSettings], Emulator], load(entry.emulator))
    return build(settings)


def _no_file(status: int, text: str) -> Reply:
    return Reply(status, {"content-type": "text/plain"}, text.encode())


def _taken_call(job: str) -> str:
    """The name under which it is kept that a job's callback was taken."""
    return f"called/{job}"


def _bill_line(number: int, job: Job, emulator: Emulator, now_us: int, *, called: bool) -> BillLine:
    return BillLine(
        n=number,
        job=job.id,
        provider=job.provider,
        account=job.account,
        digest=request_digest(job.prompt, job.references, job.aspect, job.resolution).hex(),
        prompt=job.prompt,
        aspect=job.aspect,
        resolution=job.resolution,
        charged_microusd=emulator.charged(job, now_us),
        state=emulator.state(job, now_us),
        created_us=job.created_us,
        called=called,
    )
