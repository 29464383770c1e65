"""Makes the configured accounts known to the ledger, and says whether each is still who it was (REC-9)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from ledger.decisions import Append, Committed, Decision
from ledger.events import AccountEvent, AccountKeyChanged, AccountOpened, AccountResumed, ReferenceUploaded
from ledger.reader import Reader
from ledger.streams import account_stream
from runtime.accountkeys import AccountKeys, keys_after
from runtime.accountlog import AccountLog
from runtime.accounts import Account
from runtime.ports import Clock
from runtime.work import StreamConflict
from runtime.writer import Journal

_PAGE = 1000


async def open_accounts(
    accounts: Sequence[Account],
    reader: Reader,
    journal: Journal,
    clock: Clock,
    keyed: Callable[[str], str],
) -> dict[str, AccountLog]:
    """Return each account's log; opens new ones in the ledger, resumes parked ones.

    ``keyed`` digests a text with the ledger's own secret, so that a key can be recognised but not guessed.
    A key that differs from the recorded one is noted; attempts made with the other key are then judged by
    nobody (see :class:`runtime.doubts.Doubts`) until it is known to be of the same account (:mod:`runtime.keycheck`).
    """
    known = {row.name: row for row in reader.accounts()}
    number = max((row.n for row in known.values()), default=0)
    logs: dict[str, AccountLog] = {}
    for account in accounts:
        fingerprint, place = keyed(account.identity), place_of(account, keyed)
        row = known.get(account.name)
        if row is None:
            number += 1
            opened = AccountOpened(name=account.name, provider=account.provider, fingerprint=fingerprint, place=place)
            outcome = await journal.append(
                Decision(
                    appends=(Append(account_stream(number), 0, (opened,)),),
                    at_us=clock.now_us(),
                )
            )
            if not isinstance(outcome, Committed):
                raise StreamConflict(f"account {account.name}: {outcome}")
            logs[account.name] = AccountLog(journal, clock, number=number, version=1)
            continue
        keys, uploads = history_of(reader, row.n)
        changed = keys.current.fingerprint != fingerprint
        if changed:
            keys = keys.changed(journal.epoch, fingerprint, place)
        log = logs[account.name] = AccountLog(
            journal,
            clock,
            number=row.n,
            version=reader.version(account_stream(row.n)),
            keys=keys,
            uploads={each.event.sha256: each.event for each in uploads if keys.is_ours(each.fingerprint)},
        )
        if changed:
            await log.append(AccountKeyChanged(fingerprint=fingerprint, confirmed_by="", place=place))
        if row.parked:
            await log.append(AccountResumed(operator="run"))
    return logs


def place_of(account: Account, keyed: Callable[[str], str]) -> str:
    """The digest of the account's place; empty for the provider's own."""
    return keyed(f"place {account.place}") if account.place else ""


class _Upload(NamedTuple):
    """A reference file that was uploaded, and with which key."""

    fingerprint: str
    event: ReferenceUploaded


def history_of(reader: Reader, number: int) -> tuple[AccountKeys, list[_Upload]]:
    """The keys that an account had, and the reference files that were uploaded with them, oldest first."""
    keys: AccountKeys | None = None
    uploads: list[_Upload] = []
    after = 0
    while page := reader.events(stream=account_stream(number), after=after, limit=_PAGE):
        after = page[-1].version
        for row in page:
            if isinstance(row.event, ReferenceUploaded) and keys is not None:
                uploads.append(_Upload(keys.current.fingerprint, row.event))
            else:
                keys = keys_after(keys, cast(AccountEvent, row.event), row.epoch)
    assert keys is not None, f"account {number} was never opened"
    return keys, uploads
