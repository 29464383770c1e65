"""The hints that callbacks left: each is led to whoever can look at the job, and believed by nobody (REC-7).

    accepted, with that job       its account polls it now
    ambiguous                     its account looks whether the job is there, and binds it
    unknown                       looked at here, and bound: its task goes on although it was held; of one that was
                                  settled otherwise the image is kept as spare, for it is paid (MON-9)
    intended just now             the answer is on its way: looked at again then
    anything else                 there is no news in it

A hint's file is removed after what it led to is on record.  Killed in between, the same hint leads to the same end
once more.  That there was a hint is no event.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from ledger.commands import Record
from ledger.errors import CommandRejected
from ledger.events import AttemptAdopted
from ledger.reader import Reader
from ledger.streams import task_stream
from runtime import inbox
from runtime.account import AccountActor
from runtime.inbox import Hint
from runtime.ports import Clock
from runtime.work import StreamConflict, TaskLog, Work, WorkKey, load_work

_log = logging.getLogger(__name__)

_LOOK_S = 0.5
_ASK_AGAIN_S = 5.0
_ASKED_LONG_ENOUGH_S = 120.0  # so long a night goes on for the sake of a hint alone


class Desk(msgspec.Struct, frozen=True):
    """Who owns tasks in this night, and who is told."""

    owned: Callable[[WorkKey], Work | None]
    follow: Callable[[Sequence[Work]], None]  # the night does not end before this task is settled or left
    left: Callable[[Work], None]  # nobody follows it any more
    adopted: Callable[[Work], None]  # its account follows it from now on


class _Held:
    """A task that waits for nobody, of whose unknown attempt a callback named the job."""

    def __init__(self, path: Path, hint: Hint, work: Work, since: float) -> None:
        self.path = path
        self.hint = hint
        self.work = work
        self.since = since
        self.ask_at = since


class Hints:
    def __init__(
        self,
        directory: Path,
        *,
        actors: Sequence[AccountActor],
        reader: Reader,
        log: TaskLog,
        clock: Clock,
        desk: Desk,
    ) -> None:
        """``directory`` is the ledger's inbox."""
        self._directory = directory
        self._actors: Mapping[str, AccountActor] = {actor.account.name: actor for actor in actors}
        self._reader = reader
        self._log = log
        self._clock = clock
        self._desk = desk
        self._in_hand: set[str] = set()  # files whose hint somebody looks at
        self._not_tonight: set[str] = set()
        self._held: dict[str, _Held] = {}

    def __repr__(self) -> str:
        return f"<Hints in_hand={len(self._in_hand)} held={len(self._held)} not_tonight={len(self._not_tonight)}>"

    async def run(self) -> None:
        """Take hints until cancelled.  Safe to call again after a failure."""
        while True:
            self.take()
            await self._look_at_held()
            await self._clock.sleep_until(self._clock.monotonic() + _LOOK_S)

    def give_up(self, reason: str) -> None:
        """Look at nothing more: what waits stays for the next run."""
        _log.error("callbacks are not looked at any more: %s", reason)
        for held in list(self._held.values()):
            self._put_off(held)

    def take(self) -> None:
        """Lead every hint that waits to whoever can look."""
        for path, hint in inbox.hints(self._directory, but=self._in_hand | self._not_tonight):
            if hint is None:
                _log.error("the hint %s cannot be read and was put aside", path.name)
                path.rename(path.with_suffix(".bad"))
            elif hint.account not in self._actors:
                self._not_tonight.add(path.name)  # for a run that uses this account
            else:
                self._lead(path, hint, self._actors[hint.account])

    def _lead(self, path: Path, hint: Hint, actor: AccountActor) -> None:
        key = WorkKey(hint.batch, hint.n)
        work = self._desk.owned(key)
        state = work.state if work is not None else self._reader.state(task_stream(hint.batch, hint.n))
        attempt = state.attempt(hint.attempt)
        if attempt is None or attempt.account != hint.account:
            _log.warning("a callback speaks of %s, which was never bought there", path.stem)
            path.unlink(missing_ok=True)
            return
        match attempt.phase:
            case "accepted" if work is not None and attempt.job == hint.job:
                actor.hinted(work)
                path.unlink(missing_ok=True)
            case "intended" if attempt.epoch == self._log.epoch:
                return  # the answer is on its way, and says whether this is the job
            case "intended" | "ambiguous":
                if work is not None:  # else its account was let go of, and the next run asks
                    self._in_hand.add(path.name)
                    actor.claim(work, hint.job, partial(self._claimed, path))
            case "unknown" if work is None and not state.erased:  # also of a settled task: what is paid is kept (MON-9)
                work = load_work(self._reader, hint.batch, hint.n)
                self._desk.follow([work])
                self._in_hand.add(path.name)
                self._held[path.name] = _Held(path, hint, work, self._clock.monotonic())
            case "unknown" if work is not None:
                return  # bought again just now, or looked at already: what comes of that decides
            case "unknown":
                _log.warning("%s was erased: job %s at %s is not looked at", path.stem, hint.job, hint.account)
                path.unlink(missing_ok=True)
            case _:
                path.unlink(missing_ok=True)

    def _claimed(self, path: Path, handled: bool) -> None:
        """Its account has judged the claim, or (not ``handled``) the doubt ended otherwise: then look again."""
        self._in_hand.discard(path.name)
        if handled:
            path.unlink(missing_ok=True)

    # --- held tasks ---------------------------------------------------------------------------------------

    async def _look_at_held(self) -> None:
        now = self._clock.monotonic()
        due = [held for held in self._held.values() if held.ask_at <= now]
        for name, actor in self._actors.items():
            mine = [held for held in due if held.hint.account == name]
            verdicts = await actor.claims.judge({held.hint.job for held in mine}) if mine else {}
            for held in mine:
                await self._judged(held, verdicts[held.hint.job])

    async def _judged(self, held: _Held, verdict: str) -> None:
        work, hint = held.work, held.hint
        actor, attempt = self._actors[hint.account], work.state.attempt(hint.attempt)
        # What another key of this account's name cannot see may be there all the same (REC-9).
        strange_key = attempt is not None and actor.foreign(attempt.epoch)
        if verdict == "later" or (verdict == "refused" and strange_key):
            held.ask_at = self._clock.monotonic() + _ASK_AGAIN_S
            if strange_key or held.ask_at > held.since + _ASKED_LONG_ENOUGH_S:
                self._not_tonight.add(held.path.name)
                self._put_off(held)
            return
        adopted = False
        if verdict == "there" and actor.claims.take(hint.job):
            fact = AttemptAdopted(attempt=hint.attempt, job=hint.job, evidence="callback")
            try:
                await self._log.record(work, Record(fact))
            except (StreamConflict, CommandRejected):
                # An operator was faster: looked at again as the task is now, for the image is paid (MON-9).
                actor.claims.give_back(hint.job)
                self._put_off(held)
                return
            adopted = work.phase == "accepted"
        else:
            _log.warning("a callback named a job for %s that is not its own", held.path.stem)
        held.path.unlink(missing_ok=True)
        self._forget(held)
        if adopted:
            self._desk.adopted(work)
        else:
            self._desk.left(work)

    def _put_off(self, held: _Held) -> None:
        self._forget(held)
        self._desk.left(held.work)

    def _forget(self, held: _Held) -> None:
        self._held.pop(held.path.name, None)
        self._in_hand.discard(held.path.name)
