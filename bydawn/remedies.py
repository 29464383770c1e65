"""What keeps evidence from counting, a wrong clock or another key, and what to do about it.

Tasks that are held for such a cause need no decision: once it is gone, the next run looks them up.
"""

from collections import Counter

from bydawn.cli.formats import counted, duration
from ledger.reader import Reader
from runtime.accountbook import history_of

_TOLERATED_US = 60_000_000
_LOOKED_AT = 1000  # records; the newest of other lives are among them

_HELP = {
    "account_changed": "bought with another key than the account has now: set that key again, and run again; if only "
    "the key was replaced: bydawn providers confirm {account}",
    "clock_changed": "this machine's clock is wrong, or was when they were bought: set it right, and run again",
    "listing_failed": "the provider could not be asked: run again",
}


def clock_lines(reader: Reader, *, now_us: int) -> list[str]:
    """What a run says of the clock before it buys."""
    behind_us = _newest_us(reader) - now_us
    if behind_us <= _TOLERATED_US:
        return []
    return [
        f"this machine's clock is {duration(behind_us / 1e6)} behind the newest record of the ledger: it is wrong now, "
        "or was then, and not all that is in doubt can be looked up. Mend the clock if need be, and run again"
    ]


def held_lines(reader: Reader, batch: int) -> list[str]:
    """What helps those held tasks of a batch that wait for a cause to go away."""
    keys = {row.name: history_of(reader, row.n)[0] for row in reader.accounts()}
    times = Counter[tuple[str, str]]()
    for each in reader.held(batch):
        attempt = each.state.attempts[each.attempt - 1]
        if attempt.reason not in _HELP or each.state.phase != "held":
            continue
        if attempt.reason == "account_changed" and not keys[attempt.account].foreign(attempt.epoch):
            continue  # the key of then is back, and still nobody can be asked
        times[attempt.account, attempt.reason] += 1
    return [
        f"{counted(n, 'task')} at {account}: {_HELP[reason].format(account=account)}"
        for (account, reason), n in sorted(times.items())
    ]


def _newest_us(reader: Reader) -> int:
    """The latest time in the newest records of earlier lives; 0 = there are none."""
    head, epoch = reader.head().seq, reader.runtime().epoch
    rows = reader.events(after=max(0, head - _LOOKED_AT), limit=_LOOKED_AT)
    return max((row.at_us for row in rows if row.epoch < epoch), default=0)
