"""Every fact that bydawn records.  This file is a file format.

Rules for this file:

* Tags (``TYPE``) are written by hand, carry a version, and are never reused for another meaning.  A new
  field has a default; a changed meaning is a new tag and an upcaster from the old one.
* Events hold digests and references, never prompts, URLs or replies: those live in the erasable payload
  table, and an event names them by :class:`PayloadRef`.
* Money is integer micro-dollars, time is UTC microseconds; both carry the unit in the name.
* The tag stands in the ``type`` column, so the JSON in ``data`` does not repeat it.

The time (``at_us``) and the epoch of an event are columns of its row, see :class:`Recorded`.

It is long and stays whole: what may stand in a ledger, and what a change adds to that, is to be seen in one place.
What the facts of each kind of stream add up to is in files of their own (:mod:`ledger.folds`,
:mod:`ledger.batch_fold`, :mod:`ledger.account_fold`).
"""

from typing import Annotated, ClassVar, Literal, TypeAlias, final

import msgspec

Money = Annotated[int, msgspec.Meta(ge=0)]

RejectReason = Literal[
    "throttled",  # rate limit; not counted against the attempts of a task
    "invalid",  # the provider says the request itself is bad
    "policy",  # content policy
    "unauthorized",
    "no_credit",
    "forbidden",  # model or feature not enabled for this account
    "unavailable",  # maintenance, model retired
]
FailReason = Literal[
    "policy",
    "provider",  # the job ran and failed there
    "cancelled",  # we, or the user at the provider, cancelled it
    "expired",  # the provider gave the job up
    "bad_image",  # what came back is not an acceptable image
    "contract",  # the provider delivered something else than was asked
]
AmbiguousReason = Literal[
    "crash",  # intent of an older epoch without an outcome
    "no_reply",  # sent, then silence or a broken connection
    "unclear_reply",  # an answer that proves neither a job nor its absence
    "no_job_id",  # a success without a readable job id: likely paid
    "answer_assumed",  # that the answer proves "no job" is only assumed, and the batch trusts what is documented
]
UnknownReason = Literal[
    "no_evidence",
    "listing_failed",
    "several_fit",
    "account_changed",
    "taken_over",
    "clock_changed",
    # Under --trust documented: the fact that would prove that there is no job is only assumed.
    "listing_assumed",
    "lookup_assumed",
    "answer_assumed",
]
AbsentEvidence = Literal["same_key", "not_found", "listing"]
AdoptEvidence = Literal["listing", "lookup", "callback", "operator"]
TaskFailReason = Literal[
    "attempts_exhausted",
    "failed_for_good",  # the job failed, and the provider says that another one would fail as well
    "rejected",  # by the provider, for good
    "policy",
    "given_up",  # an operator decided so
    "owner_failed",  # shares the purchase of a task that failed
    "input_changed",  # a reference file changed after import
    "lost",
    "no_provider",
]
Decided = Literal["buy_again", "give_up", "adopt"]
Verdict = Literal["accepted", "rejected"]


class PayloadRef(msgspec.Struct, frozen=True, gc=False):
    """Points at erasable text.  ``digest`` is hex of ``SHA-256(salt || text)``, cut to 16 bytes; the salt
    stands in the payload row, so an erased text cannot be guessed back from the event (SEC-8)."""

    row: int
    digest: str


class Fact(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Base of all events; does no work."""

    TYPE: ClassVar[str] = ""


# --- runtime stream ---------------------------------------------------------------------------------------


class EpochStarted(Fact, frozen=True):
    """One process start that may write.  Machine and file identity make copies visible (REC-10)."""

    TYPE: ClassVar[str] = "runtime.epoch_started.v1"
    ledger_id: str
    machine: str  # keyed digest of the host identity
    device: int
    inode: int
    pid: int
    app_version: str
    sqlite_version: str
    operator: str
    command: str


class WaitingTasks(msgspec.Struct, frozen=True):
    """Tasks of a batch, up to number ``through``, that may have been bought with another copy of the ledger."""

    batch: int
    through: int


class LedgerTakenOver(Fact, frozen=True):
    """The operator says that this file, here, is the ledger that goes on from now (REC-10).

    ``waiting``: what stays unbought until the operator says that it may be bought; nothing once that was said.
    """

    TYPE: ClassVar[str] = "runtime.ledger_taken_over.v1"
    operator: str
    machine: str  # where it goes on, as in EpochStarted
    device: int
    inode: int
    reasons: tuple[str, ...] = ()  # why it could not go on by itself
    waiting: tuple[WaitingTasks, ...] = ()


class EpochEnded(Fact, frozen=True):
    TYPE: ClassVar[str] = "runtime.epoch_ended.v1"
    stopped_by: str
    exit_code: int
    batch: int = 0
    succeeded: int = 0  # how many tasks of the batch were so in the end; what the run did stands below
    failed: int = 0
    held: int = 0
    run_cost_microusd: int = 0
    run_succeeded: int = 0
    run_failed: int = 0
    run_held: int = 0


class ControlTaken(Fact, frozen=True):
    """A control message from the inbox was taken; its effects are events of their own."""

    TYPE: ClassVar[str] = "runtime.control_taken.v1"
    kind: str
    operator: str
    result: str


# --- account streams --------------------------------------------------------------------------------------


class AccountOpened(Fact, frozen=True):
    TYPE: ClassVar[str] = "account.opened.v1"
    name: str
    provider: str
    fingerprint: str  # keyed digest of the API key, never the key
    place: str = ""  # keyed digest of another base URL than the provider's own


class AccountKeyChanged(Fact, frozen=True):
    """The account has this key from now on; or, with ``confirmed_by``, it is known to be of the account that had
    another one: a job made with that one was readable with it, or a person said so (REC-9)."""

    TYPE: ClassVar[str] = "account.key_changed.v1"
    fingerprint: str
    confirmed_by: str
    same_as: tuple[str, ...] = ()  # fingerprints that are of the same account; () = all before
    place: str = ""  # as in AccountOpened


class AccountParked(Fact, frozen=True):
    """No new purchases here; attempts stay tracked (LIVE-4)."""

    TYPE: ClassVar[str] = "account.parked.v1"
    reason: str


class AccountResumed(Fact, frozen=True):
    TYPE: ClassVar[str] = "account.resumed.v1"
    operator: str


class LimiterSaved(Fact, frozen=True):
    """Learned limits of a lane, at most one every 30 s, so that a restart does not learn them again."""

    TYPE: ClassVar[str] = "account.limiter_saved.v1"
    lane: str
    concurrency: int


class BreakerChanged(Fact, frozen=True):
    TYPE: ClassVar[str] = "account.breaker_changed.v1"
    lane: str
    state: Literal["open", "half_open", "closed"]
    reason: str = ""


class Overcharged(Fact, frozen=True):
    """The provider charged more than the ceiling of the intent (MON-8)."""

    TYPE: ClassVar[str] = "account.overcharged.v1"
    batch: int
    task: int
    attempt: int
    ceiling_microusd: Money
    charged_microusd: Money


class ReferenceUploaded(Fact, frozen=True):
    """A local reference file lies at the provider, for all tasks of this account until it expires."""

    TYPE: ClassVar[str] = "account.reference_uploaded.v1"
    sha256: str
    url: PayloadRef
    expires_at_us: int = 0  # 0 = not known


# --- batch streams ----------------------------------------------------------------------------------------


class BatchOpened(Fact, frozen=True):
    TYPE: ClassVar[str] = "batch.opened.v1"
    name: str
    folder: str
    sandbox: bool
    operator: str
    rerun_of: int = 0  # the batch of this ledger of which it wants everything again; 0 = of none


class BatchConfigured(Fact, frozen=True):
    """How the batch is run from here on.  Only what the user gave is set; None keeps the last value."""

    TYPE: ClassVar[str] = "batch.configured.v1"
    operator: str
    providers: tuple[str, ...] | None = None
    budget_microusd: int | None = None
    max_at_risk_microusd: int | None = None
    max_duplicate_usd_micro: int | None = None
    attempts: int | None = None
    on_unknown: Literal["hold", "resubmit", "ask"] | None = None
    trust: Literal["documented", "assumed"] | None = None
    on_refused: Literal["fail", "reroute"] | None = None
    deadline_us: int | None = None
    limit: int | None = None  # 0 = no limit
    sample: int | None = None  # 0 = no sample
    strategy: str | None = None
    name_template: str | None = None
    webhook_url: str | None = None  # "off" = none
    webhook_listen: str | None = None
    sample_ppm: int | None = None  # a sample given as a share of the tasks, in millionths; 0 = none


class SpendAgreed(Fact, frozen=True):
    """Consent: what the user was shown and agreed to before money was spent."""

    TYPE: ClassVar[str] = "batch.spend_agreed.v1"
    images: int
    expected_microusd: Money
    worst_microusd: Money
    by: Literal["prompt", "yes", "budget", "approved", "sandbox"]
    operator: str
    again_microusd: Money = 0  # for how much tasks that may have been paid already may be bought a second time


class ImportOpened(Fact, frozen=True):
    """Tasks ``first``.. that follow belong to this import until it is sealed or dropped (LED-11)."""

    TYPE: ClassVar[str] = "batch.import_opened.v1"
    number: int
    first: int
    source: str
    input_digest: str
    mapping: dict[str, str] = {}


class BatchSealed(Fact, frozen=True):
    TYPE: ClassVar[str] = "batch.sealed.v1"
    number: int
    tasks: int  # highest task number of the batch from now on
    rows: int
    input_digest: str


class ImportDropped(Fact, frozen=True):
    """A killed import whose input is no longer there: its tasks never count."""

    TYPE: ClassVar[str] = "batch.import_dropped.v1"
    number: int
    first: int
    last: int


class BatchMoved(Fact, frozen=True):
    """Its results lie in another folder from here on: somebody moved it, and its marker was found there."""

    TYPE: ClassVar[str] = "batch.moved.v1"
    folder: str
    operator: str


class BatchCancelled(Fact, frozen=True):
    TYPE: ClassVar[str] = "batch.cancelled.v1"
    operator: str


# --- task streams -----------------------------------------------------------------------------------------


@final
class TaskQueued(Fact, frozen=True):
    """One wanted image.  ``request`` is JSON text with prompt, references, options and carried columns."""

    TYPE: ClassVar[str] = "task.queued.v1"
    id: str
    request: PayloadRef
    model: str
    aspect: str
    resolution: str
    line: int  # row of the input, 1 = first row after the header
    number: int  # of the import
    variant: int = 1
    references: int = 0  # how many
    owner: int = 0  # task whose purchase this one shares; 0 = buys itself
    group: str = ""


@final
class AttemptIntended(Fact, frozen=True):
    """Money may be spent from here on: durable before the first byte leaves (MON-1)."""

    TYPE: ClassVar[str] = "task.attempt_intended.v1"
    attempt: int
    account: str
    provider: str
    lane: str
    route: str  # why here: "cheapest", "spill", "only", ...
    ceiling_microusd: Money
    body_digest: str  # hex SHA-256(salt of the request payload || body), cut to 16 bytes
    deadline_us: int  # when the answer to the submit is overdue
    permission: int = 0  # which permission allows it beside a doubtful attempt (MON-2); 0 = none needed
    callback: bool = False  # the provider was told where to call back
    uploads: tuple[PayloadRef, ...] = ()  # where its local references were uploaded to, in order
    file: str = ""  # the display name of the batch file that carries it; "" = it has a request of its own
    reference: str = ""  # ours, where a lookup goes by one; "" also: made by a version that did not record it


class AttemptResent(Fact, frozen=True):
    """The same key and bytes once more, inside the key's retention (MON-5)."""

    TYPE: ClassVar[str] = "task.attempt_resent.v1"
    attempt: int


class AttemptNotSent(Fact, frozen=True):
    """Proof that no byte left: the connection failed first."""

    TYPE: ClassVar[str] = "task.attempt_not_sent.v1"
    attempt: int
    reason: str


class AttemptRejected(Fact, frozen=True):
    """The provider's answer proves: no job, no charge."""

    TYPE: ClassVar[str] = "task.attempt_rejected.v1"
    attempt: int
    reason: RejectReason
    detail: PayloadRef | None = None


@final
class AttemptAccepted(Fact, frozen=True):
    TYPE: ClassVar[str] = "task.attempt_accepted.v1"
    attempt: int
    job: str


class AttemptAmbiguous(Fact, frozen=True):
    TYPE: ClassVar[str] = "task.attempt_ambiguous.v1"
    attempt: int
    reason: AmbiguousReason
    detail: PayloadRef | None = None


class AttemptAdopted(Fact, frozen=True):
    """A doubtful attempt turned out to be this job of the provider."""

    TYPE: ClassVar[str] = "task.attempt_adopted.v1"
    attempt: int
    job: str
    evidence: AdoptEvidence


class AttemptAbsent(Fact, frozen=True):
    """Proof that the provider never had it (REC-4)."""

    TYPE: ClassVar[str] = "task.attempt_absent.v1"
    attempt: int
    evidence: AbsentEvidence


class AttemptUnknown(Fact, frozen=True):
    """Quarantine is over and nothing could tell.  The task is held, its ceiling stays reserved."""

    TYPE: ClassVar[str] = "task.attempt_unknown.v1"
    attempt: int
    reason: UnknownReason


@final
class ResultReady(Fact, frozen=True):
    TYPE: ClassVar[str] = "task.result_ready.v1"
    attempt: int
    url: PayloadRef | None = None  # None: the bytes came with the reply
    cost_microusd: int | None = None  # as the provider states it
    expires_at_us: int = 0  # 0 = not known
    model_version: str = ""


class AttemptFailed(Fact, frozen=True):
    """The provider says the job failed, or what it delivered is not acceptable."""

    TYPE: ClassVar[str] = "task.attempt_failed.v1"
    attempt: int
    reason: FailReason
    cost_microusd: Money = 0  # what it charged all the same
    detail: PayloadRef | None = None


class AttemptLost(Fact, frozen=True):
    """Paid, and the result is gone (RES-6)."""

    TYPE: ClassVar[str] = "task.attempt_lost.v1"
    attempt: int
    reason: str
    cost_microusd: Money


@final
class TaskCompleted(Fact, frozen=True):
    """The image lies on disk, durable, and hashes to ``sha256`` (RES-1)."""

    TYPE: ClassVar[str] = "task.completed.v1"
    attempt: int
    version: int
    sha256: str
    size: int
    media_type: str
    width: int
    height: int
    cost_microusd: Money
    flags: tuple[str, ...] = ()
    model_version: str = ""


class ResultSpared(Fact, frozen=True):
    """Paid and not needed: kept as a spare (MON-9)."""

    TYPE: ClassVar[str] = "task.result_spared.v1"
    attempt: int
    sha256: str
    size: int
    media_type: str
    cost_microusd: Money


class TaskShared(Fact, frozen=True):
    """This task follows the purchase of ``owner``, which completed."""

    TYPE: ClassVar[str] = "task.shared.v1"
    owner: int
    version: int
    sha256: str
    size: int
    media_type: str
    width: int
    height: int
    flags: tuple[str, ...] = ()


class TaskFailed(Fact, frozen=True):
    TYPE: ClassVar[str] = "task.failed.v1"
    reason: TaskFailReason
    detail: PayloadRef | None = None


class TaskCancelled(Fact, frozen=True):
    TYPE: ClassVar[str] = "task.cancelled.v1"
    operator: str


class CancelAsked(Fact, frozen=True):
    """The operator wants it stopped; the provider may still finish and charge it."""

    TYPE: ClassVar[str] = "task.cancel_asked.v1"
    operator: str


class TaskRetried(Fact, frozen=True):
    """A settled task is wanted again (failed, cancelled, or its image was rejected)."""

    TYPE: ClassVar[str] = "task.retried.v1"
    operator: str
    version: int  # of the result that the next purchase fills


class OperatorDecided(Fact, frozen=True):
    """Leave given by a person (or by a recorded policy) about a doubtful attempt (MON-2)."""

    TYPE: ClassVar[str] = "task.operator_decided.v1"
    attempt: int
    decision: Decided
    operator: str
    job: str = ""


class ResultReviewed(Fact, frozen=True):
    TYPE: ClassVar[str] = "task.result_reviewed.v1"
    version: int
    verdict: Verdict
    operator: str
    note: PayloadRef | None = None


class TaskErased(Fact, frozen=True):
    """The texts of the task are gone for good, in the commit of this event (SEC-8).  Nothing is bought for it again."""

    TYPE: ClassVar[str] = "task.erased.v1"
    operator: str
    files: bool = False  # its images are given up too: they are removed, and nobody misses them


RuntimeEvent: TypeAlias = EpochStarted | LedgerTakenOver | EpochEnded | ControlTaken
AccountEvent: TypeAlias = (
    AccountOpened
    | AccountKeyChanged
    | AccountParked
    | AccountResumed
    | LimiterSaved
    | BreakerChanged
    | Overcharged
    | ReferenceUploaded
)
BatchEvent: TypeAlias = (
    BatchOpened
    | BatchConfigured
    | SpendAgreed
    | ImportOpened
    | BatchSealed
    | ImportDropped
    | BatchMoved
    | BatchCancelled
)
TaskEvent: TypeAlias = (
    TaskQueued
    | AttemptIntended
    | AttemptResent
    | AttemptNotSent
    | AttemptRejected
    | AttemptAccepted
    | AttemptAmbiguous
    | AttemptAdopted
    | AttemptAbsent
    | AttemptUnknown
    | ResultReady
    | AttemptFailed
    | AttemptLost
    | TaskCompleted
    | ResultSpared
    | TaskShared
    | TaskFailed
    | TaskCancelled
    | CancelAsked
    | TaskRetried
    | OperatorDecided
    | ResultReviewed
    | TaskErased
)
Event: TypeAlias = RuntimeEvent | AccountEvent | BatchEvent | TaskEvent


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """An event with the columns of its row."""

    seq: int
    stream: int
    version: int
    epoch: int
    at_us: int
    event: Event
