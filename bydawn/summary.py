"""The end of a run in figures: the last JSON line, and what the person is told."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bydawn.buying import Ended
from bydawn.cli.formats import count, counted, dollar_column, dollars, duration
from bydawn.moneylines import Lines, lines_data, places_of, stored_lines, told_lines
from ledger.folds import BatchState
from ledger.reader import Reader


class Summary(msgspec.Struct, frozen=True):
    """Counts of tasks by state, and the dollars of the whole batch; only ``run_cost_microusd`` is this run's."""

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
    run_cost_microusd: int
    lines: Lines
    stopped_by: str
    seconds: float

    def data(self) -> dict[str, object]:
        """The fields for scripts.  Additive only; amounts in micro-dollars."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "lines"}
        return {**fields, "ambiguous": self.lines.ambiguous.n, **lines_data(self.lines)}


def summarise(reader: Reader, batch: int, ended: Ended) -> Summary:
    states: dict[str, int] = {}
    for row in reader.counts(batch):
        states[row.state] = states.get(row.state, 0) + row.n
    tallies = reader.tallies(batch)
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
        run_cost_microusd=ended.run_cost_microusd,
        lines=stored_lines(reader.money(), batch),
        stopped_by=ended.stopped_by,
        seconds=round(ended.seconds, 3),
    )


def say_summary(
    summary: Summary, ended: Ended, state: BatchState, talk: Callable[[str], None], *, helps: Sequence[str] = ()
) -> None:
    """The last lines: what was bought, what stays open and the command for it.  ``helps``: what would help held tasks
    without a decision."""
    practice = " --sandbox" if state.sandbox else ""
    spent, here = dollar_column((summary.lines.spent, summary.run_cost_microusd))
    talk(
        f"{count(summary.succeeded)} of {counted(summary.tasks, 'task')} succeeded, {spent} in all, "
        f"{here} in this run of {duration(ended.seconds)}"
    )
    if summary.failed or summary.held:
        parts = [f"{count(summary.failed)} failed" if summary.failed else ""]
        held = dollars(summary.lines.held.microusd, places_of(summary.lines))
        parts += [f"{count(summary.held)} held ({held})" if summary.held else ""]
        talk(f"{' and '.join(part for part in parts if part)} stay:")
        if summary.failed:
            talk(f"  bydawn retry {state.name}{practice}")
        for text in helps:
            talk(f"  {text}")
        if summary.held:
            talk(f"  bydawn resolve {state.name}{practice}    lists them; then --all --buy-again or --give-up")
    told = told_lines(summary.lines)
    space = max((len(name) for name, _ in told), default=0)
    for name, text in told:
        talk(f"  {name:<{space}}  {text}")
    for name, why in ended.parked.items():
        talk(f"account {name} was parked: {why}")
    left = summary.tasks - summary.succeeded - summary.failed - summary.held - summary.cancelled
    if ended.stopped_by:
        are = "is" if left == 1 else "are"
        talk(f"stopped by {ended.stopped_by.replace('_', ' ')}; {counted(left, 'task')} {are} left")
    if ended.stopped_by == "takeover":
        talk("they may have been bought with another copy of this ledger; to buy them here all the same:")
        talk(f"  bydawn ledger takeover --buy-queued{practice}")
    elif left:
        talk(f"go on: {_how_on(ended.stopped_by, state)}")
    talk(f"manifest: {Path(state.folder) / 'manifest.jsonl'}")


def _how_on(stopped_by: str, state: BatchState) -> str:
    """The command that goes on, which is not always the same one again: what a bound has stopped, it stops again."""
    again = f"bydawn run {state.name}{' --sandbox' if state.sandbox else ''}"
    if stopped_by == "at_risk":
        return f"decide the held tasks, then {again}; or {again} --max-at-risk USD, for more than now"
    budget = state.settings.budget_microusd
    if stopped_by == "budget" and budget is not None:
        return f"{again} --budget USD, for more than {dollars(budget)}"
    return again
