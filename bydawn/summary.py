"""The end of a run in figures: the last JSON line, and what the person is told."""

import msgspec

from bydawn.buying import Ended
from ledger.money import Balance, batch_money, duplicates_money, lost_money, risk_money, surplus_money
from ledger.reader import Reader


class Summary(msgspec.Struct, frozen=True):
    """Additive fields only; amounts in micro-dollars.  ``cost_microusd`` is what the batch has captured in all."""

    batch: str
    tasks: int
    succeeded: int
    failed: int
    held: int
    cancelled: int
    rejected: int
    flagged: int
    shared: int
    reused: int
    cost_microusd: int
    run_cost_microusd: int
    at_risk_microusd: int
    duplicates_paid: int
    surplus: int
    surplus_microusd: int
    lost: int
    lost_microusd: int
    stopped_by: str
    seconds: float


def summarise(reader: Reader, batch: int, ended: Ended) -> Summary:
    states: dict[str, int] = {}
    for row in reader.counts(batch):
        states[row.state] = states.get(row.state, 0) + row.n
    tallies = reader.tallies(batch)
    money = reader.money()
    lost = money.get(lost_money(batch), Balance())
    surplus = money.get(surplus_money(batch), Balance())
    state = reader.batch(batch)
    return Summary(
        batch=state.name,
        tasks=state.sealed_through,
        succeeded=states.get("succeeded", 0),
        failed=states.get("failed", 0),
        held=states.get("held", 0),
        cancelled=states.get("cancelled", 0),
        rejected=tallies.get("rejected", 0),
        flagged=tallies.get("flagged", 0),
        shared=tallies.get("shared", 0),
        reused=0,
        cost_microusd=money.get(batch_money(batch), Balance()).captured,
        run_cost_microusd=ended.run_cost_microusd,
        at_risk_microusd=money.get(risk_money(batch), Balance()).reserved,
        duplicates_paid=money.get(duplicates_money(batch), Balance()).open,
        surplus=surplus.open,
        surplus_microusd=surplus.captured,
        lost=lost.open,
        lost_microusd=lost.captured,
        stopped_by=ended.stopped_by,
        seconds=round(ended.seconds, 3),
    )
