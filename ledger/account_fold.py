"""What the events of an account, and of the runtime as a whole, say.  Total like every fold.

An account is one set of credentials at a provider: its key's fingerprint, whether it is parked, and what its
lanes have learned.  The runtime stream tells the epochs: which process may write, and where it ran.
"""

from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from ledger.events import (
    AccountEvent,
    AccountKeyChanged,
    AccountOpened,
    AccountParked,
    AccountResumed,
    BreakerChanged,
    ControlTaken,
    EpochEnded,
    EpochStarted,
    LedgerTakenOver,
    LimiterSaved,
    Overcharged,
    ReferenceUploaded,
    RuntimeEvent,
    WaitingTasks,
)

BreakerState = Literal["open", "half_open", "closed"]


class LaneState(msgspec.Struct, frozen=True):
    """``concurrency`` 0 means that nothing was learned yet."""

    lane: str
    concurrency: int = 0
    breaker: BreakerState = "closed"
    reason: str = ""


class AccountState(msgspec.Struct, frozen=True):
    """``parked`` is the reason, empty while the account may buy."""

    version: int = 0
    name: str = ""
    provider: str = ""
    fingerprint: str = ""
    parked: str = ""
    lanes: tuple[LaneState, ...] = ()
    overcharges: int = 0
    overcharged_microusd: int = 0

    def lane(self, name: str) -> LaneState:
        """Return the lane, as new when it was never recorded."""
        return next((lane for lane in self.lanes if lane.lane == name), LaneState(name))


EMPTY_ACCOUNT = AccountState()


def evolve_account(state: AccountState, event: AccountEvent) -> AccountState:
    """Apply one fact.  Total."""
    state = replace(state, version=state.version + 1)
    match event:
        case AccountOpened():
            return replace(state, name=event.name, provider=event.provider, fingerprint=event.fingerprint)
        case AccountKeyChanged():
            return replace(state, fingerprint=event.fingerprint)
        case AccountParked():
            return replace(state, parked=event.reason)
        case AccountResumed():
            return replace(state, parked="")
        case LimiterSaved():
            return _with_lane(state, replace(state.lane(event.lane), concurrency=event.concurrency))
        case BreakerChanged():
            lane = replace(state.lane(event.lane), breaker=event.state, reason=event.reason)
            return _with_lane(state, lane)
        case Overcharged():
            return replace(
                state,
                overcharges=state.overcharges + 1,
                overcharged_microusd=state.overcharged_microusd
                + max(0, event.charged_microusd - event.ceiling_microusd),
            )
        case ReferenceUploaded():
            # A night may upload a file per task: a state that grew with each would make the fold quadratic.  Who
            # needs them reads the stream (runtime.accountbook).
            return state
        case _:
            assert_never(event)


def _with_lane(state: AccountState, lane: LaneState) -> AccountState:
    others = (other for other in state.lanes if other.lane != lane.lane)
    return replace(state, lanes=tuple(sorted((*others, lane), key=lambda entry: entry.lane)))


class Place(msgspec.Struct, frozen=True):
    """Where a ledger lives: the machine (keyed digest) and the file on it."""

    machine: str
    device: int
    inode: int


class RuntimeState(msgspec.Struct, frozen=True):
    """The latest epoch: which process may write, since when, and how it ended (``stopped_by`` empty = it did
    not, or was killed).

    ``home`` is where the ledger began, or was last taken over: an epoch elsewhere does not move it (REC-10).
    ``waiting``: tasks that are not bought, since another copy of the ledger may have bought them.  ``taken_over``: the
    epoch in which that was last asked and answered; 0 = never.
    """

    version: int = 0
    epoch: int = 0
    started_at_us: int = 0
    started: EpochStarted | None = None
    stopped_by: str = ""
    exit_code: int = 0
    controls: int = 0
    home: Place | None = None
    waiting: tuple[WaitingTasks, ...] = ()
    taken_over: int = 0


EMPTY_RUNTIME = RuntimeState()


def evolve_runtime(state: RuntimeState, event: RuntimeEvent, *, epoch: int, at_us: int) -> RuntimeState:
    """Apply one fact.  Total."""
    version = state.version + 1
    match event:
        case EpochStarted():
            home = state.home or Place(event.machine, event.device, event.inode)
            return RuntimeState(
                version,
                epoch,
                at_us,
                event,
                controls=state.controls,
                home=home,
                waiting=state.waiting,
                taken_over=state.taken_over,
            )
        case LedgerTakenOver():
            home = Place(event.machine, event.device, event.inode)
            return replace(state, version=version, home=home, waiting=event.waiting, taken_over=epoch)
        case EpochEnded():
            return replace(state, version=version, stopped_by=event.stopped_by, exit_code=event.exit_code)
        case ControlTaken():
            return replace(state, version=version, controls=state.controls + 1)
        case _:
            assert_never(event)
