"""``bydawn run`` and ``bydawn plan``: create a batch or go on with it; or only say what that would cost.

The order guards the money: read and check the whole input, check the keys, open the ledger, compare, plan, get
consent, import and seal, and only then buy.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from bydawn.cli.options import ledger_options

F = TypeVar("F", bound=Callable[..., object])


def reading_options(command: F) -> F:
    """The options that say what an input means and who is bought from; ``torture`` takes them, too."""
    options: Sequence[Callable[[F], F]] = (
        click.option("--provider", "providers", multiple=True, metavar="NAME[,..]", help="Accounts or providers."),
        click.option("--model", "models", multiple=True, metavar="NAME[,..]", help="nano-banana-2 by default."),
        click.option("--map", "maps", multiple=True, metavar="FIELD=COLUMN", help="Or FIELD='text with {Column}'."),
        click.option(
            "--reference", "references", multiple=True, metavar="FILE", help="Or a URL; before every row's own."
        ),
        click.option("--aspect", "aspects", multiple=True, metavar="A[,B]", help="1:1,9:16 buys each row in both."),
        click.option("--resolution", "resolutions", multiple=True, metavar="R[,..]", help="1K by default."),
        click.option("--variants", metavar="N", help="N different images of each request."),
        click.option("--encoding", metavar="NAME", help="Of the input, when it is not UTF-8."),
        click.option("--dedupe", metavar="share|off", help="Buy identical requests once, or each."),
        click.option("--fit-references", is_flag=True, help="Use smaller copies where a file is not taken as it is."),
        click.option("--skip-invalid", is_flag=True, help="Leave bad rows out (they go to rejected.csv)."),
    )
    return with_options(command, options)


def buying_options(command: F) -> F:
    """The options that say how a batch is bought; ``rerun`` takes them, too."""
    options: Sequence[Callable[[F], F]] = (
        click.option("--limit", metavar="N", help="Buy only the first N tasks; the next run may buy the rest."),
        click.option("--sample", metavar="N|P%", help="Buy only N tasks, or P percent of them, spread evenly."),
        click.option("--budget", metavar="USD", help="The most this batch may ever spend; counts as consent."),
        click.option("--max-at-risk", metavar="USD", help="The most that may be in doubt at once."),
        click.option(
            "--on-unknown",
            metavar="hold|resubmit|ask",
            help="When nobody can tell whether a purchase was taken: hold it (default), or buy again.",
        ),
        click.option("--max-duplicate-usd", metavar="USD", help="The most that buying again may cost (1 %)."),
        click.option(
            "--trust",
            metavar="documented|assumed",
            help="Buy again only for what the provider documents, or also for what is assumed (default).",
        ),
        click.option("--deadline", metavar="WHEN", help="Stop buying at 07:00, in 8h, or at an ISO time."),
        click.option("--attempts", metavar="N", help="Failed attempts before a task fails (3)."),
        click.option("--name-template", metavar="TEXT", help="Of image files: {row} {aspect} {variant} and columns."),
        click.option("--webhook-url", metavar="URL", help="Where providers call bydawn back; off ends it."),
        click.option("--webhook-listen", metavar="HOST:PORT", help="Where bydawn listens for them (127.0.0.1:8787)."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object per line; the last is the summary."),
        click.option("--quiet", "-q", is_flag=True, help="No progress."),
        click.option("-v", "verbose", count=True, help="Say more; twice: everything."),
    )
    return with_options(command, options)


def input_options(command: F) -> F:
    """The options that ``run`` and ``plan`` share."""
    named: Sequence[Callable[[F], F]] = (
        click.option("--name", default="", metavar="NAME", help="Of the batch; else the input's file name."),
        click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="Output folder; else ./BATCH."),
    )
    known: Sequence[Callable[[F], F]] = (
        click.option("--on-change", metavar="error|keep", help="When known tasks would want another image."),
        click.option("--new-ledger", is_flag=True, help="Off a terminal: begin a new ledger here."),
    )
    return with_options(reading_options(with_options(buying_options(command), known)), named)


def consent_options(command: F) -> F:
    """The ways to agree to a purchase off a terminal, beside a budget."""
    approved = click.Path(path_type=Path)
    options: Sequence[Callable[[F], F]] = (
        click.option("--yes", is_flag=True, help="Agree to the plan; never raises a budget."),
        click.option("--approved", type=approved, metavar="FILE", help="Agree if this is that saved plan."),
        click.option("--tolerance", metavar="PERCENT", help="How far prices may differ from the approved plan (2)."),
    )
    return with_options(command, options)


def with_options(command: F, options: Sequence[Callable[[F], F]]) -> F:
    """Put options on a command, in the order in which its help shows them."""
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("target", metavar="INPUT|BATCH")
@consent_options
@click.option("--dry-run", is_flag=True, help="The same as bydawn plan.")
@click.option("--new", is_flag=True, help="A new batch NAME-2 although NAME is known.")
@input_options
@ledger_options
def run(target: str, **given: Any) -> int:
    """Create the batch or go on with it, until every task is settled.

    The same command twice goes on where it stopped.

    \b
      bydawn run products.csv --map prompt="Studio photo of {Title}" --budget 400
      bydawn run products --limit 8
      bydawn run products --webhook-url https://hooks.example.org
      bydawn run examples/parti-prompts.tsv --map prompt=Prompt --sandbox
    """
    from bydawn.request import Request
    from bydawn.running import start

    return start(Request(target=target, **given))


@click.command()
@click.argument("target", metavar="INPUT|BATCH")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE", help="For run --approved FILE.")
@click.option("--quotes", is_flag=True, help="Ask providers that quote for today's prices; sends nothing else.")
@input_options
@ledger_options
def plan(target: str, save: Path | None, quotes: bool, **given: Any) -> int:
    """Validate, dedupe, estimate cost, time and disk, per provider and for the mix.  Sends nothing, unless --quotes.

    \b
      bydawn plan products.csv --map prompt=Title --aspect 1:1,9:16
    """
    from bydawn.request import Request
    from bydawn.running import start

    return start(Request(target=target, yes=False, save=save, quotes=quotes, dry_run=True, new=False, **given))
