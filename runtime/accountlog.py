"""The one way to add to an account's stream, kept by the account actor."""

import trio

from ledger.decisions import Append, Committed, Decision, Repeated
from ledger.events import AccountEvent
from ledger.streams import account_stream
from runtime.ports import Clock
from runtime.work import StreamConflict
from runtime.writer import Journal


class AccountLog:
    """Appends in order; callers may come from several tasks of the actor."""

    def __init__(self, journal: Journal, clock: Clock, *, number: int, version: int, key_epoch: int = 0) -> None:
        """``key_epoch``: the epoch since which the account has its key; 0 = it never had another one."""
        self.key_epoch = key_epoch
        self._journal = journal
        self._clock = clock
        self._stream = account_stream(number)
        self._version = version
        self._turn = trio.Lock()

    async def append(self, event: AccountEvent) -> None:
        """Return when the event is durable.  Raises StreamConflict, LedgerError."""
        async with self._turn:
            outcome = await self._journal.append(
                Decision(
                    appends=(Append(self._stream, self._version, (event,)),),
                    at_us=self._clock.now_us(),
                )
            )
            if not isinstance(outcome, Committed | Repeated):
                raise StreamConflict(f"account stream: {outcome}")
            self._version += 1
