"""``bydawn providers confirm``: the user says that a new key is of the account that bought with the old one (REC-9).

A run finds that out by itself where a job made with the old key is readable with the new one.  Where there are no such
jobs (the provider answers with the image, or they expired), only a person can know.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from bydawn.config import load_config
from bydawn.errors import UserError
from bydawn.keys import chosen_accounts
from bydawn.opening import Opened, held_error, opened_for_writing, operator
from ledger.decisions import Append, Decision
from ledger.errors import LedgerHeld
from ledger.events import AccountKeyChanged
from ledger.reader import AccountRow, Reader
from ledger.streams import account_stream
from runtime.accountbook import history_of, place_of
from runtime.accountkeys import AccountKeys
from runtime.accounts import Account


class Confirmed(msgspec.Struct, frozen=True):
    """How many other keys of an account are to be taken for the same account's, and what was bought with them and is
    still open or held, by ceilings."""

    account: str
    keys: int
    purchases: int
    purchases_microusd: int


def confirm(ledger: Path, name: str, leave: Callable[[Confirmed], None]) -> Confirmed:
    """Record that the key which an account has now is of the same account as those before.

    ``leave`` is asked before anything is recorded, and raises UserError when it is not given.

    Raises:
        UserError: there is nothing that could be confirmed, or a run holds the ledger.
    """
    account = _one_account(name)
    try:
        with opened_for_writing(ledger, create=False) as opened:
            return _confirm(opened, account, leave)
    except LedgerHeld as exc:
        raise held_error(ledger, exc) from exc


def _one_account(name: str) -> Account:
    accounts = chosen_accounts(load_config(Path.cwd(), os.environ), [name])
    if len(accounts) > 1:
        names = ", ".join(each.name for each in accounts)
        raise UserError("BD-020", f"{name} has several accounts", where="confirm", fix=f"name one of: {names}")
    return accounts[0]


def _confirm(opened: Opened, account: Account, leave: Callable[[Confirmed], None]) -> Confirmed:
    with opened.ledger.reader() as reader:
        row = next((row for row in reader.accounts() if row.name == account.name), None)
        if row is None:
            raise UserError(
                "BD-119",
                f"nothing was ever bought from {account.name} with this ledger",
                where=str(opened.ledger.path),
                fix="bydawn log tells what this ledger knows; --ledger FILE names another one",
            )
        fingerprint, place = opened.keyed(account.identity), place_of(account, opened.keyed)
        keys, _ = history_of(reader, row.n)
        if keys.current.fingerprint != fingerprint:
            keys = keys.changed(opened.ledger.epoch, fingerprint, place)
        asked = _asked(reader, row, keys)
        leave(asked)
        event = AccountKeyChanged(
            fingerprint=fingerprint, confirmed_by=operator(), same_as=tuple(sorted(keys.confirmable)), place=place
        )
        stream = account_stream(row.n)
        append = Append(stream, reader.version(stream), (event,))
    opened.ledger.commit([Decision(appends=(append,), at_us=time.time_ns() // 1000)])
    return asked


def _asked(reader: Reader, row: AccountRow, keys: AccountKeys) -> Confirmed:
    """What would be confirmed.  Raises UserError when nothing can be."""
    others = keys.confirmable
    if not others:
        elsewhere = any(keys.foreign(span.since) for span in keys.spans)
        raise UserError(
            "BD-119",
            f"there is no other key of {row.name} to be confirmed",
            why="what was bought before was bought at another base URL: that is another server's account"
            if elsewhere
            else "everything was bought with this key, or with one that is known to be of the same account",
            fix="set the base URL back to collect what was bought there" if elsewhere else "",
        )
    attempts = [*reader.live(row.name)]
    for batch in reader.batches():
        attempts += reader.held(batch.batch, account=row.name)
    ceilings = [
        each.state.attempts[each.attempt - 1].ceiling_microusd
        for each in attempts
        if keys.span_of(each.epoch).fingerprint in others
    ]
    return Confirmed(row.name, len(others), len(ceilings), sum(ceilings))
