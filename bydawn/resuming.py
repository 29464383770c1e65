"""What going on with a batch means, before it goes on: what is reused, fetched, adopted, looked up, bought new, held,
and what may be bought again, each with its dollars.

From the views alone: no image is looked at, nobody is asked, and a million tasks cost about a second.
"""

from collections import Counter

import msgspec

from adapters import registry
from bydawn.cli.formats import count, counted, dollars
from bydawn.onunknown import allowance, at_risk_of
from bydawn.takeover import waiting_through
from ledger.folds import BatchState
from ledger.money import (
    Balance,
    batch_money,
    duplicates_money,
    failed_money,
    lost_money,
    risk_money,
    surplus_money,
)
from ledger.openwork import LiveAttempt
from ledger.reader import Reader
from ledger.twice import bought_before
from runtime.candidates import how_asked

ASK_ABOVE_PERCENT = 1


class Part(msgspec.Struct, frozen=True):
    """So many tasks, and their dollars."""

    n: int = 0
    microusd: int = 0


class Resumed(msgspec.Struct, frozen=True):
    """A batch as a run finds it.

    ``reused``: images that are there.  ``fetched``: known jobs, by their ceilings; ``adopted``: those among them that
    were in doubt before.  ``doubtful``: in doubt, looked up first, by their ceilings.  ``new``: to be bought for the
    first time, by the price that was agreed for one image.  ``held``: nothing could tell, by their ceilings.
    ``again``: may be bought a second time, by what the first purchase may have cost.
    """

    reused: Part
    fetched: Part
    adopted: Part
    doubtful: Part
    new: Part
    failed: int
    held: Part
    again: Part
    bought_microusd: int  # what the batch has bought so far
    at_risk_microusd: int
    unasked: Part = Part()
    waiting: Part = Part()

    @property
    def asks(self) -> bool:
        """Whether so much would be bought again that it needs its own consent."""
        return self.again.microusd * 100 > self.bought_microusd * ASK_ABOVE_PERCENT

    def data(self) -> dict[str, int]:
        """The fields for scripts; amounts in micro-dollars."""
        parts = {name: getattr(self, name) for name in self.__struct_fields__}
        told: dict[str, int] = {}
        for name, part in parts.items():
            told |= {name: part.n, f"{name}_microusd": part.microusd} if isinstance(part, Part) else {name: part}
        return told


def resumed(reader: Reader, batch: int, state: BatchState) -> Resumed:
    """Read what the next run of the batch finds, under the settings of ``state``."""
    counts = Counter[str]()
    for row in reader.counts(batch):
        counts[row.state] += row.n
    money = reader.money()

    def book(name: str) -> Balance:
        return money.get(name, Balance())

    spent = book(batch_money(batch)).captured
    apart = sum(book(name(batch)).captured for name in (failed_money, lost_money, surplus_money))
    live = [each for each in reader.live() if each.batch == batch]
    known = [each for each in live if each.phase in ("accepted", "ready")]
    in_doubt = [each for each in live if each.phase in ("intended", "ambiguous")]
    doubtful = _part(in_doubt)
    held = _part(reader.held(batch))
    through = waiting_through(reader, batch)
    waiting = reader.queued_through(batch, through)
    before = [each for each in bought_before(reader, batch) if each.n > through]
    again = Part(len(before), sum(each.microusd for each in before))
    if state.settings.on_unknown == "resubmit":
        left = max(0, allowance(state) - book(duplicates_money(batch)).total)
        if left:
            doubts = held.microusd + doubtful.microusd
            again = Part(again.n + held.n + doubtful.n, again.microusd + min(left, doubts))
    fresh = max(0, counts["queued"] - waiting - len(before))
    fetched = _part(known)
    return Resumed(
        reused=Part(counts["succeeded"], spent - apart),
        fetched=fetched,
        adopted=_part([each for each in known if each.state.attempts[each.attempt - 1].adopted_by]),
        doubtful=doubtful,
        new=Part(fresh, _expected(fresh, state)),
        failed=counts["failed"],
        held=held,
        again=again,
        bought_microusd=spent + fetched.microusd,
        at_risk_microusd=book(risk_money(batch)).reserved,
        unasked=_part([each for each in in_doubt if not _can_be_asked(each)]),
        waiting=Part(waiting, _expected(waiting, state)),
    )


def resume_lines(found: Resumed, state: BatchState) -> list[str]:
    """Say it in one line, and one more each where something may be bought a second time, and where held tasks leave
    little room for new purchases."""
    practice = " --sandbox" if state.sandbox else ""
    parts = [f"{counted(found.reused.n, 'image')} reused ({dollars(found.reused.microusd)})"]
    if found.fetched.n:
        parts.append(f"{counted(found.fetched.n, 'job')} fetched ({_at_most(found.fetched)})")
    if found.adopted.n:
        parts.append(f"{count(found.adopted.n)} of them adopted ({_at_most(found.adopted)})")
    asked = Part(found.doubtful.n - found.unasked.n, found.doubtful.microusd - found.unasked.microusd)
    if asked.n:
        parts.append(f"{count(asked.n)} in doubt are looked up ({_at_most(asked)}) and adopted where found")
    if found.unasked.n:
        parts.append(f"{count(found.unasked.n)} in doubt that nobody can be asked about ({_at_most(found.unasked)})")
    if found.new.n:
        price = f" (about {dollars(found.new.microusd)})" if found.new.microusd else ""
        part = state.settings.limit or state.settings.sample or state.settings.sample_ppm
        what = "not bought yet, of which this run buys a part" if part else f"bought new{price}"
        parts.append(f"{count(found.new.n)} {what}")
    if found.waiting.n:
        parts.append(f"{count(found.waiting.n)} not bought before: bydawn ledger takeover --buy-queued{practice}")
    if found.failed:
        parts.append(f"{count(found.failed)} failed stay")
    if found.held.n:
        parts.append(f"{count(found.held.n)} held ({_at_most(found.held)} may have been paid)")
    lines = ["goes on: " + ", ".join(parts)]
    if found.again.n:
        consent = "; that needs your consent" if found.asks and not state.sandbox else ""
        lines.append(f"  may be bought again: {again_words(found)}{consent}")
    if state.settings.on_unknown == "resubmit":
        lines.append(f"  what is in doubt may be bought again, for at most {dollars(allowance(state))} in this batch")
    if found.held.n and found.new.n and found.at_risk_microusd > (most := at_risk_of(state)) // 2:
        left = most - found.at_risk_microusd
        room = f"leave {dollars(left)}" if left > 0 else "take up all"
        what = "little is bought at one time" if left > 0 else "nothing is bought"
        decide = f"bydawn resolve {state.name}{practice}"
        lines.append(f"  held tasks {room} of the money at risk, so {what}: {decide}, or --max-at-risk")
    return lines


def again_words(found: Resumed) -> str:
    """What may be bought a second time, measured against what was bought so far."""
    share = f", {100 * found.again.microusd / found.bought_microusd:.1f} %" if found.bought_microusd else ""
    return (
        f"{counted(found.again.n, 'task')} that may have been paid already ({_at_most(found.again)}{share} of the "
        f"{dollars(found.bought_microusd)} bought so far)"
    )


def _part(attempts: list[LiveAttempt]) -> Part:
    return Part(len(attempts), sum(each.state.attempts[each.attempt - 1].ceiling_microusd for each in attempts))


def _can_be_asked(attempt: LiveAttempt) -> bool:
    codec = registry.find(attempt.state.attempts[attempt.attempt - 1].provider)
    return codec is not None and how_asked(codec) != "nothing"


def _at_most(part: Part) -> str:
    return f"at most {dollars(part.microusd)}"


def _expected(images: int, state: BatchState) -> int:
    agreed = state.agreed
    return agreed.expected_microusd * images // agreed.images if agreed is not None and agreed.images else 0
