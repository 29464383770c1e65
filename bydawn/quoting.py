"""Asks the providers that tell a price beforehand what the images of a batch cost today.

Asking is free, sends nothing of the user's, and is not recorded.  A quote stands in the place of the price book's
figure for one run, so that ceilings follow what will be charged; a price in the user's settings stands above it.  An
account that does not answer in time delays nobody: the book's price applies, and a line says so.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

import msgspec
import trio

from adapters.base import ImageRequest, MalformedReply, Quotes
from adapters.prices import Price, PriceBook, PriceKey
from bydawn.cli.formats import dollars
from bydawn.config import Config
from runtime.accounts import Account
from runtime.egress import Egress
from runtime.planning import Group, price_key, refusal, sample
from runtime.ports import Wire, WireError
from runtime.wire import HttpWire

PATIENCE_S = 5.0  # for all accounts together
_AT_ONCE = 8
_WORTH_A_WARNING = 10  # per cent


Answer: TypeAlias = int | str  # micro-dollars, or why there are none


class Question(msgspec.Struct, frozen=True):
    """What one account is asked."""

    account: Account
    key: PriceKey
    request: ImageRequest


class Quoted(msgspec.Struct, frozen=True):
    """``book`` holds the prices of this run, ``lines`` say what was answered.

    ``dearer``: something costs more than the price book says, or has no price there: consent that was given before may
    not cover it.
    """

    book: PriceBook
    lines: tuple[str, ...] = ()
    dearer: bool = False


def with_quotes(groups: Iterable[Group], accounts: Sequence[Account], config: Config, egress: Egress) -> Quoted:
    """Ask for each price that counts in buying ``groups``, and give the prices that apply."""
    book = config.price_book()
    questions = questions_of(groups, accounts, own=own_prices(config))
    if not questions:
        return Quoted(book)
    answers = trio.run(ask, questions, lambda: HttpWire(egress))
    return weigh(book, questions, answers, today=datetime.now(UTC).date().isoformat())


def quotes_of_plan(
    groups: Iterable[Group], accounts: Sequence[Account], config: Config, egress: Egress, *, asking: bool
) -> Quoted:
    """The prices of a plan: it sends nothing, so it asks only when it is told to."""
    able = tell_prices(accounts)
    if not asking:
        names = ", ".join(account.name for account in able)
        hint = f"a run asks for today's prices first: {names} (plan --quotes asks now)"
        return Quoted(config.price_book(), (hint,) if able else ())
    quotes = with_quotes(groups, accounts, config, egress)
    keyless = [f"{account.name} was not asked for prices: it has no key here" for account in able if _keyless(account)]
    return msgspec.structs.replace(quotes, lines=(*quotes.lines, *keyless))


def own_prices(config: Config) -> frozenset[PriceKey]:
    """Name the prices that the user has set."""
    return frozenset(key for file in config.files for key in file.prices)


def tell_prices(accounts: Iterable[Account]) -> list[Account]:
    """Pick the accounts that can be asked."""
    return [account for account in accounts if isinstance(account.codec, Quotes)]


def questions_of(
    groups: Iterable[Group], accounts: Sequence[Account], *, own: frozenset[PriceKey] = frozenset()
) -> tuple[Question, ...]:
    """Each account with a key is asked once per model, resolution, and with or without references."""
    asked: dict[tuple[str, PriceKey], Question] = {}
    groups = tuple(groups)
    for account in tell_prices(accounts):
        if _keyless(account):
            continue
        for group in groups:
            key, request = price_key(account, group), sample(group)
            # What the provider cannot draw has no price, though other tasks of the same price may be drawn.
            if key not in own and refusal(account, group) is None and account.codec.problem(request) is None:
                asked.setdefault((account.name, key), Question(account, key, request))
    return tuple(asked.values())


def _keyless(account: Account) -> bool:
    return not account.key.reveal()


async def ask(questions: Sequence[Question], make_wire: Callable[[], Wire]) -> Sequence[Answer]:
    """Ask all at the same time; the answers come in the order of the questions."""
    wire = make_wire()
    answers: list[Answer] = [f"no answer within {PATIENCE_S:.0f} s"] * len(questions)
    few = trio.CapacityLimiter(_AT_ONCE)

    async def ask_one(place: int) -> None:
        async with few:
            answers[place] = await _answer(questions[place], wire)

    try:
        with trio.move_on_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for place in range(len(questions)):
                    nursery.start_soon(ask_one, place)
    finally:
        await wire.aclose()
    return answers


async def _answer(question: Question, wire: Wire) -> Answer:
    codec = question.account.codec
    assert isinstance(codec, Quotes)
    try:
        price = codec.read_quote(await wire.send(codec.build_quote(question.request, question.account.context())))
    except (WireError, MalformedReply) as exc:
        return str(exc)
    return price or "its answer names no price"  # a price of nothing would make every charge an overcharge


def weigh(book: PriceBook, questions: Sequence[Question], answers: Sequence[Answer], *, today: str) -> Quoted:
    """Put the quotes into the book.  Where accounts of one provider pay different prices, the highest counts."""
    found: dict[PriceKey, list[Price]] = {}
    lines = []
    for question, answer in zip(questions, answers, strict=True):
        usual = book.prices.get(question.key)
        lines.append(_line(question, answer, usual))
        title = question.account.codec.capabilities.title
        price = usual if isinstance(answer, str) else Price(answer, f"quoted by {title}", today, "confirmed", True)
        if price is not None:
            found.setdefault(question.key, []).append(price)
    prices = {key: max(offers, key=lambda offer: offer.microusd) for key, offers in found.items()}
    dearer = any(key not in book.prices or price.microusd > book.prices[key].microusd for key, price in prices.items())
    return Quoted(book.with_prices(prices), tuple(lines), dearer)


def _line(question: Question, answer: Answer, usual: Price | None) -> str:
    who = question.account.name
    _, model, resolution, references = question.key
    what = f"{model} {resolution}" + (" with references" if references else "")
    if isinstance(answer, str):
        rest = f"the price book's {dollars(usual.microusd)} applies" if usual else "it has no price and is not bought"
        return f"{who} did not quote {what} ({answer}): {rest}"
    said = f"{who} quotes {dollars(answer)} an image for {what}"
    if usual is None:
        return f"{said}, for which the price book has no price"
    off = answer - usual.microusd
    if abs(off) * 100 <= usual.microusd * _WORTH_A_WARNING:
        return said
    percent, way = abs(off) / usual.microusd, "above" if off > 0 else "below"
    return f"{said}: {percent:.0%} {way} the price book's {dollars(usual.microusd)}"
