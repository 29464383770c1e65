"""What may be asked of a task.  Commands carry everything that a decision needs: time, names, verdicts."""

from typing import TypeAlias

import msgspec

from ledger.events import AdoptEvidence, Decided, PayloadRef, TaskEvent, TaskFailReason, Verdict


class Intend(msgspec.Struct, frozen=True):
    """Buy the task here.  The attempt's number, and the permission it may need, are assigned by the decision.

    ``beside`` names who allows it although an earlier attempt is in doubt (a policy of the batch): the leave and the
    intent are then one decision, so that a guard that has no room for a duplicate refuses both (MON-4).
    """

    account: str
    provider: str
    lane: str
    route: str
    ceiling_microusd: int
    body_digest: str
    deadline_us: int
    callback: bool = False
    uploads: tuple[PayloadRef, ...] = ()
    file: str = ""
    reference: str = ""
    beside: str = ""


class Find(msgspec.Struct, frozen=True):
    """Another copy of the ledger bought this task, as the provider shows: put it on record, and buy nothing by it.

    ``intend`` tells what the purchase was; its route is ignored where the task is settled.
    """

    intend: Intend
    job: str
    evidence: AdoptEvidence


class Record(msgspec.Struct, frozen=True):
    """Something happened to an attempt: record it, and what follows from it.

    ``max_attempts`` bounds the failed attempts of a task; ``retryable`` False says that trying again is useless.
    """

    fact: TaskEvent
    max_attempts: int = 3
    retryable: bool = True


class Cancel(msgspec.Struct, frozen=True):
    operator: str


class Retry(msgspec.Struct, frozen=True):
    """A settled task is wanted again."""

    operator: str


class Decide(msgspec.Struct, frozen=True):
    """A person (or a recorded policy) decides about an attempt that nothing could tell about."""

    operator: str
    decision: Decided
    attempt: int
    job: str = ""


class Share(msgspec.Struct, frozen=True):
    """The owner of the purchase completed: its image is this task's too."""

    owner: int
    version: int
    sha256: str
    size: int
    media_type: str
    width: int
    height: int
    flags: tuple[str, ...] = ()


class Fail(msgspec.Struct, frozen=True):
    """Give a task up that was never, or not successfully, bought."""

    reason: TaskFailReason
    detail: PayloadRef | None = None


class Review(msgspec.Struct, frozen=True):
    version: int
    verdict: Verdict
    operator: str
    note: PayloadRef | None = None


class Erase(msgspec.Struct, frozen=True):
    """The texts of the task go for good, with ``files`` its images too.

    ``texts`` is how many it has still: an erased task may have been given one since, a note for instance.
    """

    operator: str
    files: bool = False
    texts: int = 0


TaskCommand: TypeAlias = Intend | Find | Record | Cancel | Retry | Decide | Share | Fail | Review | Erase
