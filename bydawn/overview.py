"""How far a batch is: counts, money and the time it will still take, as one value that people and scripts share.

Read from the views only, so that a batch of a million tasks answers as fast as one of ten.
"""

from collections import Counter
from typing import NamedTuple

from bydawn.moneylines import Lines, stored_lines
from ledger.money import Balance, account_money
from ledger.reader import BatchRow, Reader

IN_FLIGHT = ("intended", "ambiguous", "accepted", "ready")
SETTLED = ("succeeded", "failed", "held", "cancelled")
PHASES = ("queued", *IN_FLIGHT, *SETTLED)

WINDOW_EVENTS = 5_000
"""How far back the rate is measured.  Bounded in events too, as it is measured anew at every refresh."""
WINDOW_US = 10 * 60 * 1_000_000


class Overview(NamedTuple):
    """One batch at one moment.  ``eta_s`` is None when nothing moves or nothing is left.

    ``counts`` is by state, ``providers`` by provider and state; the provider of a task never sent is ``""``.
    """

    name: str
    sandbox: bool
    cancelled: bool
    counts: dict[str, int]
    tallies: dict[str, int]
    providers: dict[str, dict[str, int]]
    lines: Lines
    budget_microusd: int | None
    rate_per_s: float
    eta_s: float | None

    @property
    def tasks(self) -> int:
        return sum(self.counts.values())

    @property
    def settled(self) -> int:
        return sum(self.counts.get(state, 0) for state in SETTLED)

    @property
    def in_flight(self) -> int:
        return sum(self.counts.get(state, 0) for state in IN_FLIGHT)

    @property
    def is_open(self) -> bool:
        """A run has something left to do, or a person has something to decide."""
        return self.settled < self.tasks or self.counts.get("held", 0) > 0

    @property
    def is_clean(self) -> bool:
        """Every task succeeded or was cancelled."""
        return self.settled == self.tasks and not self.counts.get("failed") and not self.counts.get("held")


class AccountLine(NamedTuple):
    """One account over all batches, in micro-dollars; ``trouble`` is why it does not buy, empty when it does.

    ``overcharges`` is how many images it charged above their ceilings, ``overcharged`` by how much.
    """

    name: str
    provider: str
    spent: int
    reserved: int
    trouble: str
    overcharges: int = 0
    overcharged: int = 0


def account_lines(reader: Reader) -> list[AccountLine]:
    """Gather what each account has spent, and why one does not buy."""
    money = reader.money("account/")
    shut: dict[str, list[str]] = {}
    for lane in reader.lanes():
        if lane.breaker != "closed":
            shut.setdefault(lane.account, []).append(f"{lane.lane} {lane.breaker.replace('_', ' ')}: {lane.reason}")
    found = []
    for account in reader.accounts():
        balance = money.get(account_money(account.name), Balance())
        trouble = f"parked: {account.parked}" if account.parked else "; ".join(shut.get(account.name, ()))
        found.append(
            AccountLine(
                account.name,
                account.provider,
                balance.captured,
                balance.reserved,
                trouble,
                account.overcharges,
                account.overcharged_microusd,
            )
        )
    return found


def overview(reader: Reader, batch: BatchRow, *, now_us: int) -> Overview:
    """Gather what the views know of the batch."""
    counts: Counter[str] = Counter()
    providers: dict[str, Counter[str]] = {}
    for row in reader.counts(batch.batch):
        counts[row.state] += row.n
        providers.setdefault(row.provider, Counter())[row.state] += row.n
    rate = completion_rate(reader, batch.batch, now_us=now_us)
    left = sum(counts[state] for state in ("queued", *IN_FLIGHT))
    return Overview(
        name=batch.name,
        sandbox=batch.sandbox,
        cancelled=batch.cancelled,
        counts={state: counts[state] for state in PHASES if counts[state]},
        tallies={name: n for name, n in reader.tallies(batch.batch).items() if n},
        providers={name: dict(by_state) for name, by_state in sorted(providers.items())},
        lines=stored_lines(reader.money(), batch.batch),
        budget_microusd=reader.batch(batch.batch).settings.budget_microusd,
        rate_per_s=rate,
        eta_s=left / rate if rate and left else None,
    )


def completion_rate(reader: Reader, batch: int, *, now_us: int) -> float:
    """Tasks that ended per second, over the newest events; 0.0 when none ended lately."""
    ends = reader.ends(batch, since_us=now_us - WINDOW_US, newest=WINDOW_EVENTS)
    if len(ends) < 2 or now_us <= ends[0]:
        return 0.0
    return len(ends) / ((now_us - ends[0]) / 1e6)
