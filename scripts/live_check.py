#!/usr/bin/env python3
"""Buy one image with a real key, and compare what the provider really answers with what our emulator answers.

    scripts/live-check PROVIDER [--model M] [--resolution 1K] [-o REPORT.md] [--yes]

The price is shown first, and nothing is bought without a yes.  The call is the one that a run would make: the codec
builds it, the real wire sends it.  Before it leaves, an intent is made durable in a small journal; the job's id
follows as soon as it is known.  After a crash the same command goes on with that job instead of buying another one.

The report tells of each answer which fields are missing, which are new, and which have another type.  It holds no
values: neither the key nor anything that an answer said.

Exit 0: no differences; 1: there are some, or the image did not come; 2: nothing was bought; 3: perhaps bought, look at
the provider's own page.
"""

import argparse
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import trio  # noqa: E402

from adapters import registry  # noqa: E402
from adapters.base import (  # noqa: E402
    Accepted,
    Codec,
    Context,
    Failed,
    Finished,
    HttpCall,
    HttpReply,
    ImageRequest,
    Lists,
    LooksUp,
    MalformedReply,
    NotVisible,
    PollOutcome,
    Polls,
    Quotes,
    Refused,
    Secret,
    Sweeps,
    Throttled,
    Unreadable,
)
from adapters.prices import Price  # noqa: E402
from adapters.sandbox.solo import Solo  # noqa: E402
from bydawn.cli.formats import dollars  # noqa: E402
from bydawn.config import load_config  # noqa: E402
from bydawn.errors import UserError  # noqa: E402
from bydawn.keys import chosen_accounts  # noqa: E402
from runtime.accounts import Account  # noqa: E402
from runtime.egress import Egress  # noqa: E402
from runtime.images import BadImage, Expected, inspect  # noqa: E402
from runtime.ports import FetchRefused, FetchRules, WireError  # noqa: E402
from runtime.wire import HttpWire  # noqa: E402
from scripts.live_report import Bought, Exchange, report  # noqa: E402
from scripts.purchase_journal import Entry, Journal  # noqa: E402
from scripts.shapes import differences, shape  # noqa: E402

SAME, DIFFERENT, NOTHING_BOUGHT, UNCLEAR = 0, 1, 2, 3
PROMPT = "A red enamel kettle on a wooden table, studio photo"
FAILURES = 4  # questions in a row that nothing was learned from
PATIENCE = 10  # typical latencies until an image counts as not coming
US = 1_000_000
T = TypeVar("T")


class StopError(Exception):
    """A sentence for the user, and the exit code."""

    def __init__(self, text: str, code: int = NOTHING_BOUGHT) -> None:
        super().__init__(text)
        self.code = code


class Wish(NamedTuple):
    """What is to be bought, or (``opened``) what was bought before a crash."""

    account: Account
    request: ImageRequest
    price: Price
    journal: Journal
    opened: tuple[Entry, str] | None


# --- both sides of a conversation ---------------------------------------------------------------------------


class Pair:
    """The provider and its emulator: every question goes to both."""

    def __init__(self, account: Account, wire: HttpWire, *, marker: int, reference: str) -> None:
        self.codec: Codec = account.codec
        self.wire = wire
        self.ctx = account.context(marker=marker, reference=reference)
        self.solo = Solo(registry.entries()[account.provider], now_us=time.time_ns() // 1_000)
        self.twin = Context(key=Secret("sandbox-twin"), base_url=self.solo.base_url, marker=marker, reference=reference)
        self.exchanges: dict[str, Exchange] = {}
        self.emulated = HttpReply(0, {}, b"")  # the emulator's last answer

    async def ask(
        self,
        name: str,
        build: Callable[[Context], HttpCall],
        read: Callable[[HttpReply], T],
        *,
        twin: HttpCall | None = None,
    ) -> T:
        """Ask the provider, and the emulator the same (``twin`` where ids differ); give what the codec reads.

        Raises:
            WireError, MalformedReply: of the real answer.
        """
        started = time.monotonic()
        real = await self.wire.send(build(self.ctx))
        seconds = time.monotonic() - started
        self.emulated = self.solo.send(twin or build(self.twin))
        self._compare(name, real, self.emulated, seconds)
        return read(real)

    async def poll(self, job: str, twin_job: str) -> PollOutcome:
        """Ask for a job, and compare the answer with what the emulator says of a job that is as far."""
        codec = self.codec
        assert isinstance(codec, Polls)
        started = time.monotonic()
        real = await self.wire.send(codec.build_poll(job, self.ctx))
        seconds = time.monotonic() - started
        try:
            outcome = codec.read_poll(real)
        except MalformedReply:
            self._compare("poll: unreadable", real, self.solo.send(codec.build_poll(twin_job, self.twin)), seconds)
            raise
        while True:
            emulated = self.solo.send(codec.build_poll(twin_job, self.twin))
            other = codec.read_poll(emulated)
            if type(other) is type(outcome) or isinstance(outcome, Unreadable):
                self._compare(f"poll: {type(outcome).__name__}", real, emulated, seconds)
                return outcome
            if isinstance(outcome, NotVisible | Throttled) or isinstance(other, Finished | Failed):
                return outcome  # the emulator has been there already, or does not get there
            self.solo.now_us += US // 4

    def _compare(self, name: str, real: HttpReply, emulated: HttpReply, seconds: float) -> None:
        found = tuple(differences(shape(real.body), shape(emulated.body)))
        self.exchanges[name] = Exchange(name, real.status, emulated.status, seconds, found)


async def check(wish: Wish) -> tuple[Pair, Bought]:
    """Have the whole conversation, with one purchase in its middle, or with the one that a crash left open."""
    account, opened = wish.account, wish.opened
    wire = HttpWire(Egress.from_environment(os.environ))
    marker = opened[0].marker if opened else secrets.randbelow(2**31 - 1) + 1
    reference = opened[0].reference if opened else f"live-{secrets.token_hex(8)}"
    pair = Pair(account, wire, marker=marker, reference=reference)
    try:
        with trio.CancelScope() as scope:
            scope.deadline = trio.current_time() + 120 + PATIENCE * account.latency
            return pair, await converse(pair, wish)
        return pair, Bought(problem="the image did not come in time; the same command asks again", code=UNCLEAR)
    except (WireError, MalformedReply) as error:
        # What was seen so far is worth a page, and an answer that cannot be read most of all.
        code = UNCLEAR if wish.journal.open_purchase() else NOTHING_BOUGHT
        return pair, Bought(problem=f"the conversation broke: {error}", code=code)
    finally:
        await wire.aclose()


async def converse(pair: Pair, wish: Wish) -> Bought:
    codec = pair.codec
    account, request, price, journal, opened = wish
    standing = await pair.ask("check", codec.build_check, codec.read_check)
    if standing.state in ("rejected", "no_credit"):
        raise StopError(f"the account says {standing.state.replace('_', ' ')}: {standing.detail}")
    if isinstance(codec, Quotes):
        quoted = await pair.ask("quote", lambda ctx: codec.build_quote(request, ctx), codec.read_quote)
        if quoted is not None and quoted > price.ceiling_microusd:
            raise StopError(f"the provider quotes {dollars(quoted)}, the book says {dollars(price.microusd)}")
    began_us = time.time_ns() // 1_000
    outcome: object
    if opened:
        outcome = Accepted(opened[1])
        pair.emulated = pair.solo.send(codec.build_submit(request, pair.twin))
    else:
        ctx = pair.ctx
        journal.write(
            "intent", model=request.model, resolution=request.resolution, reference=ctx.reference, marker=ctx.marker
        )
        try:
            outcome = await pair.ask("submit", lambda ctx: codec.build_submit(request, ctx), codec.read_submit)
        except WireError as error:
            if not error.sent:
                journal.write("end", outcome="not sent")
                raise StopError(str(error)) from error
            raise
    emulated = codec.read_submit(pair.emulated)
    twin_job = emulated.job if isinstance(emulated, Accepted) else ""
    if isinstance(outcome, Refused | Throttled):
        journal.write("end", outcome=type(outcome).__name__)
        reason = f"{outcome.reason}: {outcome.detail}" if isinstance(outcome, Refused) else "asked too fast"
        return Bought(problem=f"refused, nothing was bought ({reason})", code=DIFFERENT)
    if isinstance(outcome, Accepted) and isinstance(codec, Polls):
        journal.write("job", job=outcome.job)
        say(f"the job is {outcome.job}")
        job = outcome.job
        outcome = await wait_for(pair, job, twin_job)
        await free_questions(pair, began_us, job, twin_job)
    if isinstance(outcome, Failed):
        journal.write("end", outcome="Failed")
        return Bought(problem=f"the job failed: {outcome.reason} {outcome.detail}", code=DIFFERENT)
    if not isinstance(outcome, Finished):
        return Bought(problem=f"unclear what became of it: {outcome}", code=UNCLEAR)
    told_image = await image_of(pair, account, request, outcome)
    journal.write("end", outcome="Finished")
    return told_image


async def wait_for(pair: Pair, job: str, twin_job: str) -> PollOutcome:
    """Poll until the job has ended, or nothing can be learned: a question costs nothing and may be asked again."""
    pause, failures = 0.2, 0
    while True:
        try:
            outcome = await pair.poll(job, twin_job)
        except WireError:
            failures += 1
            if failures >= FAILURES:
                raise
        else:
            failures = failures + 1 if isinstance(outcome, Unreadable) else 0
            if isinstance(outcome, Finished | Failed) or failures >= FAILURES:
                return outcome
        await trio.sleep(pause)
        pause = min(5.0, pause * 1.5)


async def free_questions(pair: Pair, began_us: int, job: str, twin_job: str) -> None:
    """Ask what recovery would ask: the answers that a night after a crash relies on."""
    codec = pair.codec
    if isinstance(codec, LooksUp):
        await pair.ask("lookup", lambda ctx: codec.build_lookup(pair.ctx.reference, ctx), codec.read_lookup)
    span = {"since_us": began_us - 60 * US, "until_us": time.time_ns() // 1_000 + 60 * US}
    if isinstance(codec, Lists):
        await pair.ask("list", lambda ctx: codec.build_list(ctx, **span, cursor=None), codec.read_list)
    if isinstance(codec, Sweeps):
        twin = codec.build_sweep([twin_job], pair.twin, **span)
        await pair.ask("sweep", lambda ctx: codec.build_sweep([job], ctx, **span), codec.read_sweep, twin=twin)


async def image_of(pair: Pair, account: Account, request: ImageRequest, result: Finished) -> Bought:
    """Bring the image home by the rules of a run, and look at it."""
    data = bytearray(result.data)
    if not result.data:

        async def keep(chunk: bytes) -> None:
            data.extend(chunk)

        rules = FetchRules(hosts=account.codec.capabilities.result_hosts.value, loopback=account.loopback)
        try:
            fetched = await pair.wire.fetch(result.url, keep, rules)
        except (FetchRefused, WireError) as error:
            return Bought(cost_microusd=result.cost_microusd, problem=f"the image: {error}", code=DIFFERENT)
        if fetched.status != 200:
            return Bought(
                cost_microusd=result.cost_microusd, problem=f"the image: HTTP {fetched.status}", code=DIFFERENT
            )
    seen = inspect(bytes(data), Expected(request.aspect, request.resolution))
    if isinstance(seen, BadImage):
        return Bought(cost_microusd=result.cost_microusd, problem=f"no image: {seen.reason}", code=DIFFERENT)
    flags = f", flags: {', '.join(seen.flags)}" if seen.flags else ""
    return Bought(f"{seen.media_type}, {seen.width} x {seen.height}{flags}", result.cost_microusd)


# --- the command --------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(argv)
    try:
        return run(given)
    except StopError as stop:
        say(f"live-check: {stop}")
        return stop.code
    except UserError as error:
        say(str(error))
        return error.exit_code if error.exit_code in (2, 4) else NOTHING_BOUGHT


def run(given: argparse.Namespace) -> int:
    config = load_config(Path.cwd(), os.environ)
    account = chosen_accounts(config, [given.provider])[0]
    caps = account.codec.capabilities
    if caps.shape.value == "batch-file":
        raise StopError(f"{caps.title} is bought by the file and may take a day: buy a small batch from it instead")
    journal = Journal(given.journal or Path(f"live-check-{caps.provider}.jsonl"), caps.provider)
    opened = journal.open_purchase()
    if opened and not opened[1] and not given.again:
        raise StopError(
            f"at {opened[0].at} a purchase was begun whose answer nobody read (reference {opened[0].reference}).\n"
            f"  Look at {caps.title} whether it is there; --again buys another one.",
            UNCLEAR,
        )
    opened = opened if opened and opened[1] else None
    model = caps.model(opened[0].model if opened else given.model) or caps.models.value[0]
    with_references = bool(given.reference)
    book = config.price_book()
    prices = {
        size: price
        for size in model.resolutions
        if (price := book.quote(caps.provider, model.name, size, references=with_references)) is not None
    }
    if not prices:
        raise StopError(f'no price is known: set [prices.{caps.provider}."{model.name}"] in bydawn.toml first')
    cheapest = min(prices, key=lambda size: prices[size].microusd)
    resolution = opened[0].resolution if opened else given.resolution or cheapest
    request = ImageRequest(
        given.prompt, model=model.name, aspect="1:1", resolution=resolution, references=tuple(given.reference)
    )
    if (problem := account.codec.problem(request)) is not None:
        raise StopError(problem)
    if resolution not in prices:
        raise StopError(f"no price is known of {model.name} at {resolution}; there is one at {', '.join(prices)}")
    price = prices[resolution]
    if opened:
        say(f"going on with job {opened[1]} of {opened[0].at}; nothing is bought")
    else:
        ask_leave(
            f"one image of {model.name} at {resolution} from {caps.title}: {dollars(price.microusd)}", yes=given.yes
        )
    wish = Wish(account, request, price, journal, opened)
    try:
        pair, bought = trio.run(check, wish)
    except StopError as stop:
        raise StopError(without_key(str(stop), account), stop.code) from None
    page = without_key("\n".join(report(account, request, price, pair.exchanges.values(), bought)) + "\n", account)
    output = given.output or Path(f"live-check-{caps.provider}.md")
    output.write_text(page, "utf-8")
    print(page)
    say(f"written to {output}")
    different = any(each.found or each.status != each.emulated_status for each in pair.exchanges.values())
    return bought.code or (DIFFERENT if different else SAME)


def ask_leave(what: str, *, yes: bool) -> None:
    """Show the price and ask; raises StopError without a yes."""
    say(what)
    if yes:
        return
    if not sys.stdin.isatty():
        raise StopError("nobody at a terminal to ask: --yes buys it")
    if not re.fullmatch(r"\s*[yY](es)?\s*", input("buy it? [y/N] ")):
        raise StopError("nothing was sent")


def without_key(text: str, account: Account) -> str:
    """Some providers repeat a key that they refuse."""
    return text.replace(account.key.reveal(), "(the key)")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="live-check", description="Buy one image and compare answers, field by field."
    )
    parser.add_argument("provider", help="a provider or account; its key is read as by bydawn run")
    parser.add_argument("--model", default="nano-banana-2", help="its first one where it has not this one")
    parser.add_argument("--resolution", default="", help="the cheapest by default")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--reference", action="append", default=[], metavar="URL", help="a reference image")
    parser.add_argument("-o", "--output", type=Path, help="the report; live-check-PROVIDER.md by default")
    parser.add_argument("--journal", type=Path, help="live-check-PROVIDER.jsonl by default")
    parser.add_argument("--yes", action="store_true", help="buy without asking")
    parser.add_argument("--again", action="store_true", help="buy although an earlier purchase is unclear")
    return parser


if __name__ == "__main__":
    sys.exit(main())
