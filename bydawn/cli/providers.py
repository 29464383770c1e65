"""``bydawn providers``: what each provider can do, whether your keys work, whose a new key is."""

import os
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from bydawn.cli.formats import clip, count, counted, dollars, duration
from bydawn.cli.options import json_option
from bydawn.cli.output import bad, doubtful, faint, good, json_line, line, pairs, strong, table, talk
from bydawn.errors import UserError

if TYPE_CHECKING:
    from adapters.capabilities import Capabilities, Known, T
    from adapters.prices import PriceBook
    from bydawn.accountcheck import Answer

REJECTED = 4
# What a kill in the middle of a purchase costs at a provider, by what can tell afterwards whether a job was taken.
AFTER_A_KILL = {
    "lookup": "its jobs are found by our own reference",
    "listing": "its jobs are found in a listing that shows what they were asked for",
    "absence": "a listing can show that no job was made; a job in it is held until you say whose it is",
    "callback": "a call from the provider finds its jobs; without one they are held until you decide",
    "none": "nothing can tell: what was open is held until you decide",
}


class ProvidersGroup(click.Group):
    """``bydawn providers`` alone, or with the name of a provider, means ``list``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=ProvidersGroup)
def providers() -> None:
    """What each provider can do; whether your keys work."""


# --- list -------------------------------------------------------------------------------------------------


@providers.command("list")
@click.argument("provider", default="")
@click.option("--model", default="nano-banana-2", show_default=True, help="The model whose prices are shown.")
@json_option
def list_(provider: str, model: str, as_json: bool) -> None:
    """Show all providers side by side, or everything that is known of one, with sources."""
    from bydawn.config import load_config
    from bydawn.keys import providers_with_keys, warn_of_left_out

    warn_of_left_out()
    config = load_config(Path.cwd(), os.environ)
    book, keys = config.price_book(), providers_with_keys(config)
    found = [capabilities(name) for name in ([provider] if provider else known())]
    if as_json:
        for caps in found:
            show_as_data(caps, book, model, key_set=caps.provider in keys)
    elif provider:
        show_one(found[0], book, model, key_set=found[0].provider in keys)
    else:
        show_all(found, book, model, keys)


def known() -> list[str]:
    from adapters.registry import entries

    return list(entries())


def capabilities(name: str) -> "Capabilities":
    from adapters.registry import codec

    if name not in known():
        raise UserError("BD-040", f"there is no provider named {name}", why=f"there are: {', '.join(known())}")
    return codec(name).capabilities


def show_as_data(caps: "Capabilities", book: "PriceBook", model: str, *, key_set: bool) -> None:
    """Everything, each fact and each price with its source and date."""
    from bydawn.comparison import assumed, own_prices, prices_by_size
    from runtime.trust import answers_believed, unproven_absence

    unsure, facts = assumed(caps)
    prices = [
        {"model": each.model, "resolution": each.resolution, "references": each.references}
        | msgspec.structs.asdict(each.price)
        for each in own_prices(caps, book)
    ]
    json_line(
        "provider",
        key_set=key_set,
        prices_usd={size: cost / 1_000_000 for size, cost in prices_by_size(caps, book, model).items()},
        prices=prices,
        recovery=caps.recovery,
        assumed=unsure,
        facts=facts,
        trust_documented={
            "absence": caps.recovery in ("lookup", "listing", "absence") and not unproven_absence(caps, "documented"),
            "refusals": answers_believed(caps, "documented"),
        },
        **msgspec.to_builtins(caps),
    )


def show_all(found: Sequence["Capabilities"], book: "PriceBook", model: str, keys: frozenset[str]) -> None:
    """Lay them side by side, in as many tables as the terminal asks for."""
    from bydawn.comparison import compare, fitted
    from bydawn.trusting import limits

    room = terminal_width()
    for columns in fitted(compare(found, book, model, keys), room):
        table(
            [column.head for column in columns],
            zip(*(column.cells for column in columns), strict=True),
            right=[column.head for column in columns if column.right],
            paint={"set": good, "not set": faint},
        )
        line()
    for caps in found:
        line(clip(f"  {caps.provider}: {caps.best_for}", room))
    notes = [
        f"$: an image of {model} without references; ?: offered, and no price in the book; -: not offered",
        "assumed: facts that nobody confirmed; `bydawn providers list NAME` tells each with its source",
    ]
    if without := [caps.provider for caps in found if caps.model(model) is None]:
        notes.append(f"without {model}: {', '.join(without)}; `list NAME` tells their models")
    notes += limits("documented", [(caps.provider, caps) for caps in found])
    notes.append("recovery, after a kill in the middle of a purchase:")
    line()
    for note in notes:
        say_wrapped(note, "  ", room)
    for recovery, words in AFTER_A_KILL.items():
        if any(caps.recovery == recovery for caps in found):
            say_wrapped(f"{recovery:<8}  {words}", "    ", room)


def say_wrapped(text: str, margin: str, room: int) -> None:
    """Write a note in as many lines as it needs."""
    for part in textwrap.wrap(text, room, initial_indent=margin, subsequent_indent=f"{margin}  "):
        line(part)


def show_one(caps: "Capabilities", book: "PriceBook", model: str, *, key_set: bool) -> None:
    """Every fact with its value, how sure it is, and where it was read."""
    from bydawn.comparison import assumed, facts, model_row, prices_by_size
    from bydawn.trusting import limits

    room = terminal_width()
    price = ", ".join(f"{size} {dollars(cost)}" for size, cost in prices_by_size(caps, book, model).items())
    line(f"{strong(caps.title)}  {caps.base_url}")
    pairs(
        [
            ("good for", caps.best_for),
            ("key", f"{caps.key_env} ({'set' if key_set else 'not set'})"),
            (model, price or "no price in the book"),
            ("lanes", caps.lanes),
            ("after a kill", AFTER_A_KILL[caps.recovery]),
            ("assumed", "{} of {} facts".format(*assumed(caps))),
        ]
    )
    for note in limits("documented", [(caps.provider, caps)]):
        say_wrapped(note, "  ", room)
    line()
    table(
        ("model", "prices", "aspects", "refs", "prompt", "formats", "takes", "their name"),
        [model_row(each, prices_by_size(caps, book, each.name)) for each in caps.models.value],
        right=("aspects", "refs", "prompt"),
    )
    line(f"  {origin(caps.models)}")
    line()
    told = facts(caps)
    space = max(map(len, told))
    for name, (value, fact) in told.items():
        first, *more = textwrap.wrap(value, max(20, room - space - 4)) or ["-"]
        line(f"  {strong(f'{name:<{space}}')}  {first}")
        for rest in more:
            line(f"  {'':<{space}}  {rest}")
        line(f"  {'':<{space}}  {origin(fact)}")
    line()
    line(strong("answers that prove no job and no charge") + " (all others are doubt, and doubt is never bought again)")
    for answer in caps.no_job_answers.value:
        line(f"  {answer}")
    line(f"  {origin(caps.no_job_answers)}")


def origin(fact: "Known[T]") -> str:
    """How sure a fact is, when and where it was read."""
    mark = doubtful(fact.mark) if fact.mark == "assumed" else fact.mark
    return f"{mark} {faint(f'{fact.date}, {fact.source}')}"


def terminal_width() -> int:
    """Columns there are; 120 where nobody can say."""
    return shutil.get_terminal_size((120, 24)).columns


# --- check ------------------------------------------------------------------------------------------------


@providers.command("check")
@click.argument("names", nargs=-1, metavar="[PROVIDER|ACCOUNT]...")
@click.option("--model", default="", help="Ask whether this model may be used; else those of each account.")
@json_option
def check(names: tuple[str, ...], model: str, as_json: bool) -> int:
    """Make the cheap authenticated call to each account: does its key work?  Costs nothing."""
    import trio

    from bydawn.accountcheck import standings
    from bydawn.config import load_config
    from bydawn.keys import chosen_accounts
    from runtime.egress import Egress
    from runtime.wire import HttpWire

    config = load_config(Path.cwd(), os.environ)
    accounts = chosen_accounts(config, names)
    found = trio.run(lambda: standings(accounts, lambda: HttpWire(Egress.from_environment(os.environ)), model=model))
    if as_json:
        for answer in found:
            json_line("account", **answer._asdict())
    else:
        show_answers(found)
    return say_what_is_wrong(found)


def show_answers(found: Sequence["Answer"]) -> None:
    rest = max(20, terminal_width() - 90)
    table(
        ("account", "provider", "answer", "balance", "models", "took", "says"),
        [
            (
                answer.account,
                answer.provider,
                answer.state.replace("_", " "),
                balance_cell(answer),
                clip(models_cell(answer), 30),
                duration(answer.seconds),
                clip(answer.detail or answer.identity or "-", rest),
            )
            for answer in found
        ],
        right=("balance", "took"),
        paint={"ok": good, "rejected": bad, "no credit": bad, "disabled": bad},
    )


def balance_cell(answer: "Answer") -> str:
    """In the provider's own unit, with dollars beside it where they are known."""
    worth = "" if answer.balance_microusd is None else dollars(answer.balance_microusd)
    if answer.balance is None:
        return worth or "-"
    own = f"{answer.balance:,.12g} {answer.unit}"
    return f"{own} ({worth})" if worth else own


def models_cell(answer: "Answer") -> str:
    if answer.models is None:
        return "only a purchase tells" if answer.state in ("ok", "no_credit") else "-"
    if answer.not_listed:
        return f"not listed: {', '.join(answer.not_listed)}"
    return f"{count(len(answer.models))} listed"


def say_what_is_wrong(found: Sequence["Answer"]) -> int:
    """Say on stderr what to do about it; a rejected key is exit 4, as in a run."""

    def those(state: str) -> str:
        return ", ".join(answer.account for answer in found if answer.state == state)

    if empty := those("no_credit"):
        talk(f"no credit left: {empty}; a run would stop there at its first purchase, unharmed")
    if disabled := those("disabled"):
        talk(f"none of the models is enabled for the key of {disabled}: enable them in the provider's console")
    if rejected := those("rejected"):
        talk(f"BD-105: the key of {rejected} was rejected: bydawn explain BD-105")
        return REJECTED
    return 0


# --- confirm ----------------------------------------------------------------------------------------------


@providers.command("confirm")
@click.argument("name", metavar="ACCOUNT")
@click.option("--yes", is_flag=True, help="Do not ask.  Off a terminal it is needed.")
@click.option("--ledger", type=click.Path(path_type=Path), metavar="FILE", help="The ledger; else the nearest one.")
@json_option
def confirm_(name: str, yes: bool, ledger: Path | None, as_json: bool) -> int:
    """Say that the key of an account was replaced and the account is the same one.

    \b
      bydawn providers confirm kie
    """
    from bydawn.cli.controls import ask_leave
    from bydawn.confirming import Confirmed, confirm
    from bydawn.selection import ledger_path

    def leave(asked: Confirmed) -> None:
        before = f"{counted(asked.purchases, 'purchase')} made before ({dollars(asked.purchases_microusd)})"
        question = (
            f"Is the key of {asked.account} that is set now of the same account as the {counted(asked.keys, 'key')} "
            f"before? If not, {before} may be paid a second time."
        )
        ask_leave(question, yes)

    done = confirm(ledger_path(ledger, sandbox=False), name, leave)
    if as_json:
        json_line("confirmed", **msgspec.to_builtins(done))
    else:
        line(
            f"{done.account}: one account; {counted(done.purchases, 'purchase')} made before "
            f"({dollars(done.purchases_microusd)}) can be judged by the next run"
        )
    return 0
