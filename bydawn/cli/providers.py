"""``bydawn providers``: what each provider can do, and whether your keys work."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from bydawn.cli.formats import clip, count, dollars, duration
from bydawn.cli.options import json_option
from bydawn.cli.output import bad, faint, good, json_line, line, pairs, strong, table, talk
from bydawn.errors import UserError

if TYPE_CHECKING:
    from adapters.capabilities import Capabilities, Rate

REJECTED = 4
RESOLUTIONS = ("1K", "2K", "4K")
# What a kill costs at a provider, by what can tell afterwards whether a job was taken.
AFTER_A_KILL = {
    "lookup": "finds its jobs",
    "listing": "finds its jobs",
    "absence": "holds what it finds",
    "callback": "holds what was open",
    "none": "holds what was open",
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


@providers.command("list")
@click.argument("provider", default="")
@click.option("--model", default="nano-banana-2", show_default=True, help="The model whose prices are shown.")
@json_option
def list_(provider: str, model: str, as_json: bool) -> None:
    """Show all providers side by side, or everything that is known of one, with sources."""
    found = [capabilities(name) for name in ([provider] if provider else known())]
    if as_json:
        for caps in found:
            json_line("provider", key_set=key_is_set(caps), prices_usd=prices(caps, model), **msgspec.to_builtins(caps))
    elif provider:
        show_one(found[0], model)
    else:
        show_all(found, model)


def known() -> list[str]:
    from adapters.registry import entries
    from bydawn.keys import warn_of_left_out

    warn_of_left_out()
    return list(entries())


def capabilities(name: str) -> "Capabilities":
    from adapters.registry import codec

    if name not in known():
        raise UserError("BD-040", f"there is no provider named {name}", why=f"there are: {', '.join(known())}")
    return codec(name).capabilities


def key_is_set(caps: "Capabilities") -> bool:
    return bool(os.environ.get(caps.key_env) or os.environ.get(f"{caps.key_env}_FILE"))


def prices(caps: "Capabilities", model: str) -> dict[str, float]:
    """Dollars per image without references, by resolution; prices of the settings come before the book's."""
    from bydawn.config import load_config

    book = load_config(Path.cwd(), os.environ).price_book()
    quotes = {name: book.quote(caps.provider, model, name, references=False) for name in RESOLUTIONS}
    return {name: quote.microusd / 1_000_000 for name, quote in quotes.items() if quote is not None}


def show_all(found: list["Capabilities"], model: str) -> None:
    rows = []
    for caps in found:
        price = prices(caps, model)
        offered = caps.model(model)
        rows.append(
            (
                caps.provider,
                "set" if key_is_set(caps) else "not set",
                *(f"{price[name]:g}" if name in price else "-" for name in RESOLUTIONS),
                offered.max_references if offered else "-",
                per(caps.submit_rate.value),
                f"{caps.concurrency.value}..{caps.max_concurrency.value}",
                duration(caps.typical_latency_s.value),
                lifetime(caps.result_life_s.value),
                caps.charged_on.value,
                AFTER_A_KILL[caps.recovery],
            )
        )
    head = ("provider", "key", *(f"$ {name}" for name in RESOLUTIONS), "refs", "creates", "at once")
    head += ("typical", "kept", "charged on", "after a kill")
    table(head, rows, right=("$ 1K", "$ 2K", "$ 4K", "refs", "typical", "kept"), paint={"set": good, "not set": faint})
    line()
    for caps in found:
        line(f"  {caps.provider}: {caps.best_for}")
    line()
    line(f"  prices of {model}, without references; `bydawn providers list NAME` tells every fact and its source")


def per(rate: "Rate") -> str:
    """``18 per 10 s``; a rate per second or minute in its usual words."""
    units = {1.0: "s", 60.0: "min", 3600.0: "h"}
    return f"{count(rate.count)} per {units.get(rate.per_s) or duration(rate.per_s).replace('.0', '')}"


def lifetime(seconds: float) -> str:
    """How long a result can be fetched, in the largest whole unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s" if seconds else "?"


def show_one(caps: "Capabilities", model: str) -> None:
    """Every fact with its value, how sure it is, and where it was read."""
    line(f"{strong(caps.title)}  {caps.base_url}")
    price = ", ".join(f"{name} {dollars(round(usd * 1_000_000))}" for name, usd in prices(caps, model).items())
    pairs(
        [
            ("good for", caps.best_for),
            ("key", f"{caps.key_env} ({'set' if key_is_set(caps) else 'not set'})"),
            (model, price or "no price in the book"),
            ("after a kill", AFTER_A_KILL[caps.recovery]),
        ]
    )
    line()
    rows = []
    for name in caps.__struct_fields__:
        fact = getattr(caps, name)
        if hasattr(fact, "mark") and name not in ("models", "no_job_answers"):
            rows.append((name.replace("_", " "), said(fact.value), fact.mark, fact.date, fact.source))
    table(("fact", "value", "how sure", "read", "source"), rows)
    line()
    models = [
        (m.name, m.provider_id, ", ".join(m.resolutions), len(m.aspects), m.max_references, m.max_prompt_chars or "?")
        for m in caps.models.value
    ]
    table(
        ("model", "their name", "resolutions", "aspects", "refs", "prompt"), models, right=("aspects", "refs", "prompt")
    )
    line()
    line(strong("answers that prove no job and no charge") + " (all others are doubt, and doubt is never bought again)")
    for answer in caps.no_job_answers.value:
        line(f"  {answer}")


def said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, msgspec.Struct):
        return ", ".join(f"{name.replace('_', ' ')} {said(getattr(value, name))}" for name in value.__struct_fields__)
    return f"{value:g}" if isinstance(value, float) else str(value)


@providers.command("check")
@click.argument("names", nargs=-1, metavar="[PROVIDER|ACCOUNT]...")
@json_option
def check(names: tuple[str, ...], as_json: bool) -> int:
    """Make the cheap authenticated call to each account: does its key work?  Costs nothing."""
    import trio

    from bydawn.config import load_config
    from bydawn.keys import chosen_accounts
    from bydawn.standing import standings
    from runtime.egress import Egress
    from runtime.wire import HttpWire

    accounts = chosen_accounts(load_config(Path.cwd(), os.environ), names)
    found = trio.run(standings, accounts, lambda: HttpWire(Egress.from_environment(os.environ)))
    if as_json:
        for answer in found:
            json_line("account", **answer._asdict())
    else:
        table(
            ("account", "provider", "answer", "balance", "took", "says"),
            [
                (
                    answer.account,
                    answer.provider,
                    answer.state.replace("_", " "),
                    "-" if answer.balance_microusd is None else dollars(answer.balance_microusd),
                    duration(answer.seconds),
                    clip(answer.detail or answer.identity or "-", 80),
                )
                for answer in found
            ],
            right=("balance", "took"),
            paint={"ok": good, "rejected": bad, "no credit": bad},
        )
    rejected = [answer.account for answer in found if answer.state == "rejected"]
    if rejected:
        talk(f"BD-105: the key of {', '.join(rejected)} was rejected: bydawn explain BD-105")
    return REJECTED if rejected else 0
