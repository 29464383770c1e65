"""What going on with a batch means, before it goes on: what stays, what is fetched, looked up, bought and held.

From the counts of the views alone, so that it costs nothing at a million tasks; what is left to buy is estimated by the
price that was agreed for one image.
"""

from collections import Counter

from bydawn.cli.formats import count, counted, dollars
from ledger.folds import BatchState
from ledger.money import Balance, batch_money, risk_money
from ledger.reader import Reader


def resume_lines(
    reader: Reader, batch: int, state: BatchState, *, allowed_microusd: int | None, max_at_risk_microusd: int
) -> list[str]:
    """Say it in one line, and one more each where something may be bought a second time, and where held tasks leave
    little room for new purchases."""
    counts = Counter[str]()
    for row in reader.counts(batch):
        counts[row.state] += row.n
    money = reader.money()
    spent, at_risk = (money.get(name(batch), Balance()) for name in (batch_money, risk_money))
    fetched = counts["accepted"] + counts["ready"]
    doubtful = counts["intended"] + counts["ambiguous"]
    parts = [f"{counted(counts['succeeded'], 'image')} stay ({dollars(spent.captured)})"]
    if fetched:
        parts.append(f"{counted(fetched, 'job')} are fetched")
    if doubtful:
        parts.append(f"{count(doubtful)} in doubt are looked up ({dollars(at_risk.reserved)})")
    if counts["queued"]:
        part = state.settings.limit or state.settings.sample
        what = "wait, of which this run buys a part" if part else f"are to be bought{_about(counts['queued'], state)}"
        parts.append(f"{count(counts['queued'])} {what}")
    if counts["failed"]:
        parts.append(f"{count(counts['failed'])} failed stay")
    if counts["held"]:
        parts.append(f"{count(counts['held'])} held{' stay' if allowed_microusd is None else ''}")
    lines = ["goes on: " + ", ".join(parts)]
    if allowed_microusd is not None:
        lines.append(f"  what is in doubt may be bought again, for at most {dollars(allowed_microusd)} in this batch")
    if counts["held"] and counts["queued"] and at_risk.reserved > max_at_risk_microusd // 2:
        left = dollars(max(0, max_at_risk_microusd - at_risk.reserved))
        lines.append(
            f"  held tasks leave {left} of the money at risk, so little is bought at one time: bydawn resolve "
            f"{state.name}, or --max-at-risk"
        )
    return lines


def _about(images: int, state: BatchState) -> str:
    agreed = state.agreed
    if agreed is None or not agreed.images:
        return ""
    return f" (about {dollars(agreed.expected_microusd * images // agreed.images)})"
