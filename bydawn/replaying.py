"""Which moment of a ledger is meant, and what was so then as scripts read it.

A moment is a number of an event, or a time.  Nothing here asks the clock: ``03:00`` is counted back from the newest
event, so the same words name the same event for as long as the ledger does not grow (REC-1).
"""

import re
from collections import Counter
from datetime import datetime, time, timedelta, tzinfo

import msgspec

from bydawn.errors import UserError
from bydawn.moneylines import lines_data, lines_of
from bydawn.overview import IN_FLIGHT, PHASES, SETTLED
from ledger.engine import Store
from ledger.events import PayloadRef, Recorded
from ledger.folds import BatchSettings
from ledger.moments import Difference, Moment, last_seq, seq_at, time_of
from ledger.projection import TALLIES
from ledger.streams import stream_label

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)
_NUMBER = re.compile(r"\d{1,15}", re.ASCII)

ATTEMPT_WORDS = {
    "task.attempt_intended.v1": "intended",
    "task.attempt_resent.v1": "resent",
    "task.attempt_not_sent.v1": "not sent",
    "task.attempt_rejected.v1": "rejected",
    "task.attempt_accepted.v1": "accepted",
    "task.attempt_ambiguous.v1": "ambiguous",
    "task.attempt_adopted.v1": "adopted",
    "task.attempt_absent.v1": "absent",
    "task.attempt_unknown.v1": "held",
    "task.result_ready.v1": "ready",
    "task.attempt_failed.v1": "failed",
    "task.attempt_lost.v1": "lost",
    "task.completed.v1": "done",
    "task.result_spared.v1": "surplus",
}
"""What happened to attempts, by the tag of the event; ``held`` as people know it, for unknown."""


def numbered(store: Store, seq: int, *, where: str) -> int:
    """Check that the ledger goes as far as event ``seq``."""
    end = last_seq(store)
    if seq > end:
        raise UserError("BD-020", f"there is no event {seq}", where=where, why=f"the newest is event {end}")
    return seq


def timed(store: Store, text: str, *, where: str, zone: tzinfo | None = None) -> int:
    """Return the newest event at a time or before: an ISO date and time, or ``03:00``, the last time that it was three.

    Without an offset it is meant in ``zone``, else in that of this machine.
    """
    newest_us = time_of(store, last_seq(store))
    if match := _CLOCK.fullmatch(text.strip()):
        newest = _in_zone(newest_us, zone)
        wanted = datetime.combine(newest.date(), time(int(match[1]), int(match[2])))
        at_us = _utc_us(wanted, zone)
        return seq_at(store, at_us if at_us <= newest_us else _utc_us(wanted - timedelta(days=1), zone))
    try:
        wanted = datetime.fromisoformat(text.strip())
        return seq_at(store, _utc_us(wanted, zone))
    except (ValueError, OverflowError, OSError) as exc:
        raise UserError(
            "BD-020",
            f"{text!r} cannot be read",
            where=where,
            fix="write 2026-11-23T03:00, with an offset or not, or 03:00",
        ) from exc


def placed(store: Store, text: str, *, where: str) -> int:
    """Return the event that a number or a time stands for."""
    if _NUMBER.fullmatch(text.strip()):
        return numbered(store, int(text), where=where)
    return timed(store, text, where=where)


def _in_zone(at_us: int, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(at_us // 1_000_000, zone)


def _utc_us(moment: datetime, zone: tzinfo | None) -> int:
    if moment.tzinfo is None and zone is not None:
        moment = moment.replace(tzinfo=zone)
    whole = moment.replace(microsecond=0)
    return int(whole.timestamp()) * 1_000_000 + moment.microsecond


# --- for scripts ------------------------------------------------------------------------------------------


def by_state(moment: Moment) -> Counter[str]:
    """How many tasks are in each state; those of an import that was under way are not among the queued."""
    states: Counter[str] = Counter()
    for entry in moment.counts:
        states[entry.state] += entry.n
    states["queued"] -= moment.unsealed
    return states


def by_provider(moment: Moment) -> dict[str, dict[str, int]]:
    """For each provider: its tasks by state, then what was captured and reserved there for this batch."""
    found: dict[str, Counter[str]] = {}
    for entry in moment.counts:
        if entry.provider:
            found.setdefault(entry.provider, Counter())[entry.state] += entry.n
    providers = {account.name: account.provider for account in moment.accounts}
    for name, held in moment.books.items():
        kind, _, account = name.partition("/")
        if kind == "account":
            spent = found.setdefault(providers.get(account, account), Counter())
            spent["cost_microusd"] += held.captured
            spent["reserved_microusd"] += held.reserved
    return {name: dict(counts) for name, counts in sorted(found.items())}


def money_of(moment: Moment) -> dict[str, int]:
    """The lines of the books that every report has, never merged (MON-10)."""
    return lines_data(lines_of(moment.book, moment.batch))


def moment_data(moment: Moment, name: str) -> dict[str, object]:
    states = by_state(moment)
    tallies: Counter[str] = Counter()
    for entry in moment.tallies:
        tallies[entry.state] += entry.n
    given = msgspec.to_builtins(moment.state.settings)
    return {
        "batch": name,
        "seq": moment.seq,
        "at_us": moment.at_us,
        "opened": bool(moment.state.version),
        "tasks": sum(states.values()),
        "settled": sum(states[state] for state in SETTLED),
        **{state: states[state] for state in PHASES},
        **{tally: tallies[tally] for tally in TALLIES},
        "unsealed": moment.unsealed,
        **money_of(moment),
        "settings": {field: given[field] for field in BatchSettings.__struct_fields__ if given[field] is not None},
        "providers": by_provider(moment),
        "accounts": [msgspec.to_builtins(account) for account in moment.accounts],
        "runs": [msgspec.to_builtins(line) for line in moment.epochs if line.events],
        "digest": moment.digest(),
    }


def difference_data(step: Difference, name: str) -> dict[str, object]:
    before, after = money_of(step.before), money_of(step.after)
    return {
        "batch": name,
        "from_seq": step.before.seq,
        "from_at_us": step.before.at_us,
        "to_seq": step.after.seq,
        "to_at_us": step.after.at_us,
        "transitions": [{"from": old, "to": new, "tasks": n} for (old, new), n in sorted(step.transitions.items())],
        "attempts": attempts_of(step),
        **{line: after[line] - before[line] for line in after},
        "events": step.events,
        "from_digest": step.before.digest(),
        "to_digest": step.after.digest(),
    }


def attempts_of(step: Difference) -> dict[str, int]:
    """How many attempts were intended, accepted, failed, ... between the two moments."""
    return {word: step.events[tag] for tag, word in ATTEMPT_WORDS.items() if tag in step.events}


def notable_data(recorded: Recorded) -> dict[str, object]:
    fields = {
        field: msgspec.to_builtins(value)
        for field in recorded.event.__struct_fields__
        if not isinstance(value := getattr(recorded.event, field), PayloadRef)
    }
    return {
        "seq": recorded.seq,
        "at_us": recorded.at_us,
        "epoch": recorded.epoch,
        "stream": stream_label(recorded.stream),
        "event": recorded.event.TYPE,
        "fields": fields,
    }


def in_flight(states: Counter[str]) -> int:
    return sum(states[state] for state in IN_FLIGHT)
