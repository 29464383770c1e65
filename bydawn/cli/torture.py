"""``bydawn torture``: kill real runs over the sandbox again and again, and read the bill."""

import shutil
import signal
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from bydawn.cli.formats import count, counted, dollars
from bydawn.cli.output import Ticker, json_line, line, table, talk
from bydawn.cli.run import reading_options
from bydawn.errors import UserError
from bydawn.torture.evidence import BATCH
from bydawn.torture.planning import MOMENTS, TASKS, Moment, Round, Target, plan, rounds_of
from bydawn.torture.stage import Input, Outcome, Stage
from bydawn.values import money

# The order of the report: from what tells everything after a kill to what tells nothing.
KINDS = ("lookup", "listing", "absence", "callback", "none", "mixed")
BY_CHANCE: Mapping[Moment, str] = {
    "random": "after some request",
    "recovery": "in the first requests after a start",
    "drain": "after SIGTERM",
    "machine": "together with bydawn serve",
}
HEAD = (
    "evidence",
    "providers",
    "kills",
    "open",
    "submits",
    "tasks",
    "charged",
    "paid twice",
    "held",
    "of them paid",
    "lost",
    "unfinished",
    "restart",
)


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@reading_options
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", default=TASKS, show_default=True, help="Tasks over all rounds."
)
@click.option(
    "--kills",
    type=click.IntRange(min=1),
    metavar="N",
    help="Else each fault point once per provider, and ten by chance.",
)
@click.option(
    "--on-unknown",
    type=click.Choice(("hold", "resubmit")),
    help="When nobody can tell whether a purchase was taken: hold it (default), or buy again.",
)
@click.option("--max-duplicate-usd", metavar="USD", help="The most that buying again may cost in each round (1 %).")
@click.option(
    "--chaos",
    metavar="NAME|FILE",
    default="none",
    show_default=True,
    help="Faults beside the kills: none, flaky, storm, or a file.",
)
@click.option("--seed", type=int, metavar="N", default=0, show_default=True, help="Of the kills and faults.")
@click.option("--keep", is_flag=True, help="Keep ledgers, images and bills also when all is well.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per round; the last is the summary.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def torture(
    source: Path,
    limit: int,
    kills: int | None,
    on_unknown: str | None,
    max_duplicate_usd: str | None,
    chaos: str,
    seed: int,
    keep: bool,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> int:
    """Kill real runs against the sandbox, at every fault point and at random, and print the bill.

    Needs no keys and reaches no account: the sandbox and the ledgers are its own, in a folder of their own.

    \b
      bydawn torture products.csv --map prompt="Studio photo of {Title}"
      bydawn torture products.csv --map prompt=Title --provider kie,replicate --kills 40 --limit 400
      bydawn torture products.csv --map prompt=Title --on-unknown resubmit --max-duplicate-usd 2
    """
    from adapters.sandbox.faults import load_profile

    try:
        profile = load_profile(chaos)
    except ValueError as error:
        raise UserError("BD-020", str(error), where="--chaos", fix="none, flaky, storm, or a TOML file") from error
    chaos = chaos if not Path(chaos).is_file() else str(Path(chaos).absolute())
    named = tuple(name for text in given["providers"] for name in text.split(",") if name)
    rounds = rounds_of(targets(named))
    buying = options_of(on_unknown, max_duplicate_usd)
    folder = Path(tempfile.mkdtemp(prefix="bydawn-torture-"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the children as Ctrl-C does
    outcomes: list[Outcome] = []
    kept = keep
    try:
        stage = Stage(folder, wanted(source, given), chaos=chaos, profile=profile, seed=seed, buying=buying)
        available, refused = stage.available(rounds)
        if not available or (named and set(named) & set(refused)):
            raise next(iter(refused.values()))
        for name, why in refused.items():
            talk(f"{name.strip('_')} is left out: {why.what}")
        chosen = {name: rounds[name] for name in available}
        planned = plan(chosen, available, tasks=limit, kills=kills, seed=seed)
        if not as_json:
            talk(f"{intention(planned)}; seed {seed}; {folder}")
        kept = True
        play(stage, planned, outcomes, as_json=as_json, quiet=quiet or as_json)
        kept = keep or any(outcome.verdict.broken for outcome in outcomes)
    except KeyboardInterrupt:
        done = sum(outcome.kills for outcome in outcomes)
        where = f"; what there is: {folder}" if kept else ""
        talk(f"interrupted after {counted(len(outcomes), 'round')} and {counted(done, 'kill')}{where}")
        if outcomes and not as_json:
            report(stage, outcomes)
        raise
    finally:
        if not kept:
            shutil.rmtree(folder)
    if as_json:
        summary(outcomes)
    else:
        report(stage, outcomes)
        if kept:
            talk(f"ledgers, images and bills are kept in {folder}")
    return 1 if any(outcome.verdict.broken for outcome in outcomes) else 0


def targets(named: Sequence[str]) -> list[Target]:
    """The providers that are named, else all that there are: nothing here costs anything."""
    from adapters import registry

    known = registry.entries()
    unknown = [name for name in named if name not in known]
    if unknown:
        raise UserError("BD-040", f"there is no provider named {', '.join(unknown)}", fix=f"one of {', '.join(known)}")
    found = []
    for name in dict.fromkeys(named) or known:
        record = registry.codec(name).capabilities
        usual = bool(named) or not known[name].named_only
        found.append(
            Target(name, record.shape.value, record.recovery, usual=usual and record.shape.value != "batch-file")
        )
    return found


def wanted(source: Path, given: Mapping[str, Any]) -> Input:
    """The input with its options, as a run in another folder takes them."""
    from bydawn.inputs import parse_maps

    words: list[str] = []
    for option in ("models", "maps", "aspects", "resolutions"):
        for value in given[option]:
            words += [f"--{option.removesuffix('s')}", value]
    for reference in given["references"]:
        words += ["--reference", reference if "://" in reference else str(Path(reference).absolute())]
    for option in ("variants", "encoding", "dedupe"):
        if given[option]:
            words += [f"--{option}", given[option]]
    for option in ("fit_references", "skip_invalid"):
        if given[option]:
            words.append(f"--{option.replace('_', '-')}")
    return Input(source.absolute(), tuple(words), parse_maps(given["maps"]))


def options_of(on_unknown: str | None, max_duplicate_usd: str | None) -> tuple[str, ...]:
    """What the runs are told about doubtful purchases."""
    if max_duplicate_usd is not None and on_unknown != "resubmit":
        raise UserError(
            "BD-020",
            "a budget for duplicates has no use while doubtful tasks are held",
            where="--max-duplicate-usd",
            fix="add --on-unknown resubmit, or leave the budget out",
        )
    if max_duplicate_usd is not None:
        money(max_duplicate_usd, where="--max-duplicate-usd")
    given = (("--on-unknown", on_unknown), ("--max-duplicate-usd", max_duplicate_usd))
    return tuple(word for name, value in given if value is not None for word in (name, value))


def intention(planned: Sequence[Round]) -> str:
    kills = sum(len(each.kills) for each in planned)
    tasks = sum(each.tasks for each in planned)
    return f"{counted(kills, 'kill')} over {counted(tasks, 'task')} in {counted(len(planned), 'round')}"


def play(stage: Stage, planned: Sequence[Round], outcomes: list[Outcome], *, as_json: bool, quiet: bool) -> None:
    total = sum(len(each.kills) + 1 for each in planned)
    lived = 0
    for each in planned:
        name = each.name.strip("_")
        ticker = Ticker(f"{name}: lives", quiet=quiet)

        def tell(lives: int, before: int = lived, ticker: Ticker = ticker) -> None:
            ticker(before + lives, total)

        outcome = stage.play(each, tell)
        ticker.done()
        outcomes.append(outcome)
        lived += len(each.kills) + 1
        if as_json:
            json_line("round", **as_data(outcome))
        elif not quiet:
            verdict = outcome.verdict
            trouble = f", {counted(len(verdict.broken), 'broken promise')}" if verdict.broken else ""
            held = f", {count(len(verdict.held))} held" if verdict.held else ""
            talk(f"{name}: {counted(outcome.kills, 'kill')}, {counted(verdict.tasks, 'task')}{held}{trouble}")


# --- telling ----------------------------------------------------------------------------------------------


def summary(outcomes: Sequence[Outcome]) -> None:
    """The last object of ``--json``."""
    broken = [
        {"round": outcome.played.name, "promise": each.promise, "tasks": each.tasks}
        for outcome in outcomes
        for each in outcome.verdict.broken
    ]
    json_line("summary", ok=not broken, broken=broken, **Sums(outcomes).data())


def report(stage: Stage, outcomes: Sequence[Outcome]) -> None:
    total = Sums(outcomes)
    kinds = [(kind, [each for each in outcomes if each.played.kind == kind]) for kind in KINDS]
    rows = [Sums(some).row(kind) for kind, some in kinds if some]
    table(HEAD, [*rows, total.row("all")] if len(rows) > 1 else rows, right=HEAD[2:])
    line(where_killed(outcomes))
    if total.may_buy_again:
        line(total.bought_again())
    broken = [(outcome, each) for outcome in outcomes for each in outcome.verdict.broken]
    for outcome, each in broken:
        played = outcome.played
        line(f"{played.name.strip('_')}: not kept: {each.promise}" + (f" ({each.detail})" if each.detail else ""))
        for task in each.tasks[:5]:
            line(f"  {task}: bydawn show '{BATCH}/{task}' --sandbox --ledger {stage.ledger(played)}")
        if len(each.tasks) > 5:
            line(f"  and {count(len(each.tasks) - 5)} more: {', '.join(each.tasks[5:25])}")
    line("every promise held" if not broken else f"{counted(len(broken), 'promise')} not kept")


def where_killed(outcomes: Sequence[Outcome]) -> str:
    """How the kills came, one sentence."""
    came = Counter(life.kill.at for outcome in outcomes for life in outcome.lives if life.killed and life.kill)
    points = sum(n for at, n in came.items() if at not in MOMENTS)
    chance = ", ".join(f"{count(came[at])} {words}" for at, words in BY_CHANCE.items() if came[at])
    # A round that was broken off has kills that nobody tried.
    missed = sum(life.kill is not None and not life.killed for outcome in outcomes for life in outcome.lives)
    parts = (
        f"{counted(points, 'kill')} at fault points" if points else "",
        f"by chance {chance}" if chance else "",
        f"{counted(missed, 'kill')} came too late: the run had ended" if missed else "",
    )
    return "; ".join(part for part in parts if part)


class Sums:
    """The figures of some rounds, added up."""

    def __init__(self, outcomes: Iterable[Outcome]) -> None:
        self._outcomes = tuple(outcomes)
        self._verdicts = [outcome.verdict for outcome in self._outcomes]
        self._again = [verdict.again for verdict in self._verdicts if verdict.again is not None]
        self._restarts = sorted(seconds for outcome in self._outcomes for seconds in outcome.restarts_s)

    @property
    def may_buy_again(self) -> bool:
        return bool(self._again)

    def bought_again(self) -> str:
        """What ``--on-unknown resubmit`` came to, one sentence."""
        purchases = sum(again.purchases for again in self._again)
        cost = dollars(sum(again.cost_microusd for again in self._again), 2)
        twice = dollars(sum(verdict.twice_microusd for verdict in self._verdicts), 2)
        allowed = dollars(max(again.allowed_microusd for again in self._again), 2)
        return (
            f"{counted(purchases, 'doubtful task')} bought again for {cost}, of it {twice} for images that were paid"
            f" already; at most {allowed} was allowed in a round"
        )

    def row(self, kind: str) -> tuple[str | int, ...]:
        verdicts = self._verdicts
        providers = {name for outcome in self._outcomes for name in outcome.played.providers}
        restart = f"{statistics.median(self._restarts):.2f} s (max {self._restarts[-1]:.2f})" if self._restarts else "-"
        twice = count(sum(len(verdict.twice) for verdict in verdicts))
        for_that = dollars(sum(verdict.twice_microusd for verdict in verdicts), 2)
        return (
            kind,
            ", ".join(sorted(providers)) if len(providers) <= 5 else f"{len(providers)} providers",
            count(sum(outcome.kills for outcome in self._outcomes)),
            count(sum(outcome.kills_with_open for outcome in self._outcomes)),
            count(sum(outcome.open_submits for outcome in self._outcomes)),
            count(sum(verdict.tasks for verdict in verdicts)),
            dollars(sum(verdict.charged_microusd for verdict in verdicts), 2),
            twice if twice == "0" else f"{twice} ({for_that})",
            count(sum(len(verdict.held) for verdict in verdicts)),
            count(sum(verdict.held_billed for verdict in verdicts)),
            count(sum(len(verdict.lost) for verdict in verdicts)),
            count(sum(len(verdict.unfinished) for verdict in verdicts)),
            restart,
        )

    def data(self) -> dict[str, object]:
        verdicts = self._verdicts
        return {
            "kills": sum(outcome.kills for outcome in self._outcomes),
            "kills_with_open": sum(outcome.kills_with_open for outcome in self._outcomes),
            "open_submits": sum(outcome.open_submits for outcome in self._outcomes),
            "tasks": sum(verdict.tasks for verdict in verdicts),
            "charged_microusd": sum(verdict.charged_microusd for verdict in verdicts),
            "fruitless_microusd": sum(verdict.fruitless_microusd for verdict in verdicts),
            "twice": sum(len(verdict.twice) for verdict in verdicts),
            "twice_microusd": sum(verdict.twice_microusd for verdict in verdicts),
            "bought_again": sum(again.purchases for again in self._again),
            "bought_again_microusd": sum(again.cost_microusd for again in self._again),
            "held": sum(len(verdict.held) for verdict in verdicts),
            "held_billed": sum(verdict.held_billed for verdict in verdicts),
            "lost": sum(len(verdict.lost) for verdict in verdicts),
            "unfinished": sum(len(verdict.unfinished) for verdict in verdicts),
            "failed": sum(verdict.failed for verdict in verdicts),
            "restart_s": round(statistics.median(self._restarts), 3) if self._restarts else None,
            "restart_max_s": round(self._restarts[-1], 3) if self._restarts else None,
        }


def as_data(outcome: Outcome) -> dict[str, object]:
    played, verdict = outcome.played, outcome.verdict
    return {
        "name": played.name,
        "evidence": played.kind,
        "providers": played.providers,
        **Sums([outcome]).data(),
        "allowed_microusd": verdict.again.allowed_microusd if verdict.again else None,
        "held_tasks": verdict.held,
        "broken": msgspec.to_builtins(verdict.broken),
        "lives": [
            {
                "point": life.kill.at if life.kill else None,
                "nth": life.kill.nth if life.kill else None,
                "exit": life.code,
                "first_request_s": life.first_s,
            }
            for life in outcome.lives
        ],
    }
