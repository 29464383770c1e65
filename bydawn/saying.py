"""What a run tells the person: where everything lies, and how it ended.  Talk only; scripts read ``--json``."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bydawn.buying import Ended
from bydawn.cli.formats import count, counted, dollar_column, dollars, duration
from bydawn.lines import places_of, told_lines
from bydawn.summary import Summary
from ledger.folds import BatchState


def say_where(ledger: Path, state: BatchState, talk: Callable[[str], None], *, created: bool) -> None:
    """The first line: ledger, batch and folder, and which of them is new."""
    new = " (new)" if created else ""
    fresh = " (new)" if state.agreed is None else ""
    practice = " [sandbox]" if state.sandbox else ""
    talk(f"ledger {ledger}{new} · batch {state.name}{fresh}{practice} → {state.folder}")


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
        talk(f"stopped by {ended.stopped_by.replace('_', ' ')}; {counted(left, 'task')} are left")
    if ended.stopped_by == "takeover":
        talk("they may have been bought with another copy of this ledger; to buy them here all the same:")
        talk(f"  bydawn ledger takeover --buy-queued{practice}")
    elif left:
        talk(f"go on: bydawn run {state.name}{practice}")
    talk(f"manifest: {Path(state.folder) / 'manifest.jsonl'}")
