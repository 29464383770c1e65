"""What ``--trust`` means for the accounts at hand, in words: where an assumed fact is not enough to buy again."""

from collections.abc import Iterable, Sequence

from adapters.capabilities import Capabilities
from bydawn import values
from ledger.folds import BatchState
from runtime.accounts import Account
from runtime.trust import DEFAULT, TRUSTS, Trust, answers_believed, unproven_absence


def trust(text: str) -> Trust | None:
    """Read the option; None when it was not given."""
    return values.one_of(text, TRUSTS, where="--trust") if text else None


def trust_of(text: str, before: BatchState) -> Trust:
    """What holds for a batch when the option says ``text``: as given, as last time, or the default."""
    return trust(text) or before.settings.trust or DEFAULT


def trust_lines(level: Trust, accounts: Iterable[Account]) -> Sequence[str]:
    """Say which accounts the choice touches; nothing is touched by the default."""
    records = {account.name: account.codec.capabilities for account in accounts}
    return limits(level, records.items())


def limits(level: Trust, records: Iterable[tuple[str, Capabilities]]) -> Sequence[str]:
    """The same for capability records by name."""
    records = list(records)
    absent = [name for name, record in records if unproven_absence(record, level)]
    answers = [name for name, record in records if not answers_believed(record, level)]
    lines = []
    if absent:
        lines.append(
            f"under --trust {level} nothing proves that a job was never made at {', '.join(absent)}: what a kill or a "
            "lost answer leaves open there and no job is found for is held"
        )
    if answers:
        lines.append(
            f"under --trust {level} a refusal by {', '.join(answers)} does not prove that nothing was bought: what is "
            "refused there, also for being too fast, is held unless a job is found"
        )
    return lines
