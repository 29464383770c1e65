"""Makes the configured accounts known to the ledger, and says whether each is still who it was (REC-9)."""

from collections.abc import Callable, Sequence

from ledger.decisions import Append, Committed, Decision
from ledger.events import AccountKeyChanged, AccountOpened, AccountResumed, ReferenceUploaded
from ledger.reader import Reader
from ledger.streams import account_stream
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
    nobody (see :class:`runtime.doubts.Doubts`), in this run and in every later one.
    """
    known = {row.name: row for row in reader.accounts()}
    number = max((row.n for row in known.values()), default=0)
    logs: dict[str, AccountLog] = {}
    for account in accounts:
        fingerprint = keyed(account.identity)
        row = known.get(account.name)
        if row is None:
            number += 1
            opened = AccountOpened(name=account.name, provider=account.provider, fingerprint=fingerprint)
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
        changed = row.fingerprint != fingerprint
        key_epoch, uploads = (journal.epoch, {}) if changed else _since_key(reader, row.n)
        log = logs[account.name] = AccountLog(
            journal,
            clock,
            number=row.n,
            version=reader.version(account_stream(row.n)),
            key_epoch=key_epoch,
            uploads=uploads,
        )
        if changed:
            await log.append(AccountKeyChanged(fingerprint=fingerprint, confirmed_by=""))
        if row.parked:
            await log.append(AccountResumed(operator="run"))
    return logs


def _since_key(reader: Reader, number: int) -> tuple[int, dict[str, ReferenceUploaded]]:
    """The epoch in which the account's key changed last, without anybody's word that it is still the same account, and
    the reference files that were uploaded since: another account's uploads may not be there for this one."""
    newest, after = 0, 0
    uploads: dict[str, ReferenceUploaded] = {}
    while page := reader.events(stream=account_stream(number), after=after, limit=_PAGE):
        after = page[-1].version
        for row in page:
            if isinstance(row.event, AccountKeyChanged):
                newest = 0 if row.event.confirmed_by else row.epoch
                uploads = {} if newest else uploads
            elif isinstance(row.event, ReferenceUploaded):
                uploads[row.event.sha256] = row.event
    return newest, uploads
