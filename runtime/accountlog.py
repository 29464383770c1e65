"""The one way to add to an account's stream, kept by the account actor."""

from collections.abc import Mapping, Sequence

import trio

from ledger.decisions import Append, Committed, Decision, NewPayload, Repeated
from ledger.events import AccountEvent, AccountKeyChanged, PayloadRef, ReferenceUploaded
from ledger.streams import account_stream
from runtime.accountkeys import AccountKeys, KeySpan
from runtime.ports import Clock
from runtime.work import StreamConflict
from runtime.writer import Journal


class AccountLog:
    """Appends in order; callers may come from several tasks of the actor."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        *,
        number: int,
        version: int,
        keys: AccountKeys | None = None,
        uploads: Mapping[str, ReferenceUploaded] | None = None,
    ) -> None:
        """``keys``: those that the account had, None = it never had another one.  ``uploads``: the newest one of each
        reference file that was made from this account, by digest."""
        self.keys = keys or AccountKeys((KeySpan(0, ""),))
        self.uploads = uploads or {}
        self._journal = journal
        self._clock = clock
        self._stream = account_stream(number)
        self._version = version
        self._turn = trio.Lock()

    def text(self, text: str) -> tuple[PayloadRef, NewPayload]:
        """Prepare an erasable text for an event; hand the second part to :meth:`append`."""
        return self._journal.payload(text)

    def foreign(self, epoch: int) -> bool:
        """Whether purchases of an epoch may have been made from another account of this name (REC-9)."""
        return self.keys.foreign(epoch)

    async def confirm(self, *, by: str, others: tuple[str, ...]) -> None:
        """Record that the key is of the account that had these others."""
        key = self.keys.current
        await self.append(
            AccountKeyChanged(fingerprint=key.fingerprint, confirmed_by=by, same_as=others, place=key.place)
        )
        self.keys = self.keys.confirmed(others)

    async def append(self, event: AccountEvent, *, payloads: Sequence[NewPayload] = ()) -> None:
        """Return when the event is durable.  Raises StreamConflict, LedgerError."""
        async with self._turn:
            outcome = await self._journal.append(
                Decision(
                    appends=(Append(self._stream, self._version, (event,)),),
                    at_us=self._clock.now_us(),
                    payloads=tuple(payloads),
                )
            )
            if not isinstance(outcome, Committed | Repeated):
                raise StreamConflict(f"account stream: {outcome}")
            self._version += 1
