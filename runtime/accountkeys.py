"""Which keys an account name had, and which of them are known to be of one account at the provider (REC-9).  Pure.

A key that differs from the one before may be another account's, and then nothing that it is shown proves anything
about purchases made with the other.  It is the same account once a job made with the other key was readable with it,
or the user said so; that is an :class:`~ledger.events.AccountKeyChanged` with ``confirmed_by``.
"""

from collections.abc import Iterable

import msgspec

from ledger.events import AccountEvent, AccountKeyChanged, AccountOpened


class KeySpan(msgspec.Struct, frozen=True):
    """From this epoch on the account had this key, by its fingerprint, at this place (empty = the provider's own)."""

    since: int
    fingerprint: str
    place: str = ""


class AccountKeys(msgspec.Struct, frozen=True):
    """The keys of one account name in the order of their use; ``same`` are sets of those known to be of one account."""

    spans: tuple[KeySpan, ...]
    same: tuple[frozenset[str], ...] = ()

    @property
    def current(self) -> KeySpan:
        return self.spans[-1]

    def span_of(self, epoch: int) -> KeySpan:
        """The key that purchases of an epoch were made with."""
        return next((span for span in reversed(self.spans) if span.since <= epoch), self.spans[0])

    def foreign(self, epoch: int) -> bool:
        """Whether purchases of an epoch may have been made from another account than the one that has the key now."""
        return not self.is_ours(self.span_of(epoch).fingerprint)

    def is_ours(self, fingerprint: str) -> bool:
        """Whether a key is known to be of the account that has the key now."""
        current = self.current.fingerprint
        return fingerprint == current or any({fingerprint, current} <= group for group in self.same)

    @property
    def confirmable(self) -> frozenset[str]:
        """Keys that may turn out to be of the same account: not known to be, and used at the same place.

        Behind another base URL there may be another provider's books, whatever the key.
        """
        return frozenset(
            span.fingerprint for span in self.spans if self.foreign(span.since) and span.place == self.current.place
        )

    def changed(self, since: int, fingerprint: str, place: str) -> "AccountKeys":
        """With another key from an epoch on."""
        return msgspec.structs.replace(self, spans=(*self.spans, KeySpan(since, fingerprint, place)))

    def confirmed(self, others: Iterable[str]) -> "AccountKeys":
        """With these keys known to be of the account that has the key now."""
        group = {self.current.fingerprint, *others}
        apart = []
        for known in self.same:
            if known & group:
                group |= known
            else:
                apart.append(known)
        return msgspec.structs.replace(self, same=(*apart, frozenset(group)))


def keys_after(keys: AccountKeys | None, event: AccountEvent, epoch: int) -> AccountKeys | None:
    """Apply one fact of an account's stream; None until the account was opened."""
    match event:
        case AccountOpened():
            return AccountKeys((KeySpan(0, event.fingerprint, event.place),))
        case AccountKeyChanged() if keys is not None:
            if event.fingerprint != keys.current.fingerprint:
                keys = keys.changed(epoch, event.fingerprint, event.place)
            if event.confirmed_by:
                keys = keys.confirmed(event.same_as or [span.fingerprint for span in keys.spans])
    return keys
