"""Quotes: asked once per price, believed before the price book, never waited for long."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from adapters import registry
from adapters.base import HttpCall, HttpReply, Secret
from adapters.prices import DEFAULT_BOOK, Price
from bydawn.config import Config, load_config
from bydawn.quoting import (
    PATIENCE_S,
    Answer,
    Question,
    Quoted,
    ask,
    own_prices,
    questions_of,
    quotes_of_plan,
    weigh,
    with_quotes,
)
from runtime.accounts import Account
from runtime.egress import Egress
from runtime.planning import Group, plan
from runtime.ports import WireError

WAVESPEED, KIE = (
    Account(name, name, registry.codec(name), Secret("sandbox-of-a-test")) for name in ("wavespeed", "kie")
)
SECOND = msgspec.structs.replace(WAVESPEED, name="wavespeed-eu")
ONE_K = ("wavespeed", "nano-banana-2", "1K", False)
BOOK_1K = DEFAULT_BOOK.prices[ONE_K].microusd
TODAY = "2026-11-22"


def group(
    resolution: str = "1K", *, references: bool = False, aspect: str = "1:1", model: str = "nano-banana-2"
) -> Group:
    return Group(model, aspect, resolution, references, ("kie", "wavespeed"), 10)


def config(folder: Path, text: str = "") -> Config:
    (folder / "bydawn.toml").write_text(text)
    return load_config(folder, {}, user_file=folder / "none.toml")


class Quoting:
    """A wire behind which prices are told by ``answer``; the calls are kept."""

    def __init__(self, answer: Callable[[HttpCall], HttpReply | Exception], latency_s: float = 0.1) -> None:
        self.answer, self.latency_s = answer, latency_s
        self.calls: list[HttpCall] = []
        self.open = self.most = 0
        self.closed = False

    async def send(self, call: HttpCall) -> HttpReply:
        self.calls.append(call)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await trio.sleep(self.latency_s)
        finally:
            self.open -= 1
        answer = self.answer(call)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None:
        self.closed = True


def price(usd: object) -> HttpReply:
    data = {"price": usd, "discounted_price": usd, "currency": "USD"}
    return HttpReply(200, {}, json.dumps({"code": 200, "message": "success", "data": data}).encode())


def asked(questions: tuple[Question, ...], wire: Quoting) -> list[Answer]:
    async def go() -> list[Answer]:
        return list(await ask(questions, lambda: wire))  # type: ignore[arg-type, return-value]  # it only sends

    return trio.run(go, clock=trio.testing.MockClock(autojump_threshold=0))


# --- what is asked ----------------------------------------------------------------------------------------


def test_each_price_is_asked_for_once_and_only_where_it_can_be() -> None:
    groups = [group(), group(aspect="9:16"), group("4K"), group(references=True, aspect="auto")]
    questions = questions_of(groups, [KIE, WAVESPEED])
    assert [question.key for question in questions] == [
        ONE_K,
        ("wavespeed", "nano-banana-2", "4K", False),
        ("wavespeed", "nano-banana-2", "1K", True),
    ]
    assert [bool(question.request.references) for question in questions] == [False, False, True]


def test_a_provider_s_own_id_is_the_same_price() -> None:
    own_id = group(model="google/nano-banana-2/text-to-image")
    assert [question.key for question in questions_of([own_id, group()], [WAVESPEED])] == [ONE_K]


def test_what_an_account_does_not_take_is_not_asked() -> None:
    impossible = group(aspect="5:7")
    only_pro = msgspec.structs.replace(WAVESPEED, models=("nano-banana-pro",))
    elsewhere = msgspec.structs.replace(group(), takers=("kie",))
    keyless = msgspec.structs.replace(WAVESPEED, key=Secret(""))
    assert questions_of([impossible, elsewhere], [WAVESPEED]) == ()
    assert questions_of([group()], [only_pro, keyless]) == ()


def test_a_price_of_the_user_s_is_not_asked_for(tmp_path: Path) -> None:
    own = own_prices(config(tmp_path, '[prices.wavespeed.nano-banana-2]\n"1K" = 0.05\n'))
    assert [question.key[2] for question in questions_of([group(), group("2K")], [WAVESPEED], own=own)] == ["2K"]


def test_nothing_of_the_user_s_is_sent() -> None:
    (question,) = questions_of([group()], [WAVESPEED])
    wire = Quoting(lambda call: price(0.07))
    assert asked((question,), wire) == [70_000]
    assert json.loads(wire.calls[0].body)["inputs"]["prompt"] == "x"
    assert wire.closed


# --- what is answered -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (WireError("connection refused", sent=False), "connection refused"),
        (HttpReply(500, {}, b"oops"), "status 500"),
        (HttpReply(200, {}, b"<html>"), "price"),
        (price(None), "names no price"),
        (price(0), "names no price"),
        (price(-1), "names no price"),
    ],
)
def test_whatever_is_no_price_is_said_and_delays_nobody(answer: HttpReply | Exception, why: str) -> None:
    (told,) = asked(questions_of([group()], [WAVESPEED]), Quoting(lambda call: answer))
    assert isinstance(told, str)
    assert why in told


def test_a_silent_provider_is_given_up_and_the_others_count() -> None:
    """The second of two never answers: the run goes on after a few seconds."""
    questions = questions_of([group(), group("4K")], [WAVESPEED])

    class OneSilent(Quoting):
        async def send(self, call: HttpCall) -> HttpReply:
            if b'"4k"' in call.body:
                await trio.sleep_forever()
            return await super().send(call)

    assert asked(questions, OneSilent(lambda call: price(0.08))) == [80_000, f"no answer within {PATIENCE_S:.0f} s"]


def test_no_more_than_a_few_are_asked_at_one_time() -> None:
    groups = [group(size, references=refs, model=model) for size in ("1K", "4K") for refs in (False, True)
              for model in ("nano-banana-2", "nano-banana-pro")]  # fmt: skip
    questions = questions_of(groups, [WAVESPEED, SECOND])
    wire = Quoting(lambda call: price(0.07))
    assert asked(questions, wire) == [70_000] * 16
    assert wire.most == 8


# --- what becomes of it -----------------------------------------------------------------------------------


def weighed(*answers: Answer, accounts: tuple[Account, ...] = (WAVESPEED,), of: Group | None = None) -> Quoted:
    return weigh(DEFAULT_BOOK, questions_of([of or group()], accounts), answers, today=TODAY)


def test_a_quote_replaces_the_price_of_the_book_and_its_ceiling() -> None:
    quoted = weighed(100_000)
    assert quoted.book.prices[ONE_K] == Price(100_000, "quoted by WaveSpeed", TODAY, "confirmed", quoted=True)
    assert quoted.book.ceiling(*ONE_K) == 125_000
    assert quoted.dearer
    assert quoted.lines == ("wavespeed quotes $0.10 an image for nano-banana-2 1K: 43% above the price book's $0.07",)
    assert quoted.book.prices.keys() == DEFAULT_BOOK.prices.keys()


def test_a_small_difference_is_no_warning() -> None:
    quoted = weighed(BOOK_1K * 11 // 10)
    assert quoted.lines == ("wavespeed quotes $0.077 an image for nano-banana-2 1K",)
    assert quoted.dearer


def test_a_lower_quote_counts_too() -> None:
    quoted = weighed(56_000)
    assert quoted.lines == ("wavespeed quotes $0.056 an image for nano-banana-2 1K: 20% below the price book's $0.07",)
    assert not quoted.dearer


def test_without_a_quote_the_book_applies() -> None:
    quoted = weighed("no answer within 5 s")
    assert quoted.book == DEFAULT_BOOK
    assert not quoted.dearer
    assert quoted.lines == (
        "wavespeed did not quote nano-banana-2 1K (no answer within 5 s): the price book's $0.07 applies",
    )


def test_what_the_book_does_not_price_can_be_bought_at_the_quote() -> None:
    unpriced = group(model="nano-banana")
    assert ("wavespeed", "nano-banana", "1K", False) not in DEFAULT_BOOK.prices
    quoted = weighed(38_000, of=unpriced)
    assert quoted.dearer
    assert quoted.lines[0].endswith("for nano-banana 1K, for which the price book has no price")
    (part,) = plan([unpriced], [WAVESPEED], quoted.book).accounts
    assert part.expected_microusd == 380_000
    assert part.why.startswith("$0.038 (quoted) an image")
    assert weighed("nothing", of=unpriced).lines[0].endswith("it has no price and is not bought")


def test_of_two_accounts_the_dearer_one_counts_for_both() -> None:
    """Prices are per provider: with the lower one, the ceiling of the other account would not hold."""
    accounts = (WAVESPEED, SECOND)
    assert weighed(60_000, 90_000, accounts=accounts).book.prices[ONE_K].microusd == 90_000
    assert weighed(60_000, "silent", accounts=accounts).book.prices[ONE_K] == DEFAULT_BOOK.prices[ONE_K]


# --- plan and run -----------------------------------------------------------------------------------------


def test_a_plan_asks_nobody_unless_told_to(tmp_path: Path) -> None:
    settings = config(tmp_path)
    told = quotes_of_plan([group()], [WAVESPEED, KIE], settings, Egress(), asking=False)
    assert (told.book, told.dearer) == (settings.price_book(), False)
    assert told.lines == ("a run asks for today's prices first: wavespeed (plan --quotes asks now)",)
    assert quotes_of_plan([group()], [KIE], settings, Egress(), asking=False).lines == ()


def test_a_plan_that_asks_says_who_has_no_key(tmp_path: Path) -> None:
    keyless = msgspec.structs.replace(WAVESPEED, key=Secret(""))
    told = quotes_of_plan([group()], [keyless], config(tmp_path), Egress(), asking=True)
    assert told.lines == ("wavespeed was not asked for prices: it has no key here",)


def test_nobody_to_ask_opens_no_wire(tmp_path: Path) -> None:
    settings = config(tmp_path)
    assert with_quotes([group()], [KIE], settings, Egress()) == Quoted(settings.price_book())


def test_a_provider_that_is_not_there_leaves_the_book_as_it_is(tmp_path: Path) -> None:
    """Through real sockets: nothing listens on the discard port of this machine."""
    nowhere = msgspec.structs.replace(WAVESPEED, base_url="http://127.0.0.1:9/wavespeed", loopback=True)
    settings = config(tmp_path)
    told = with_quotes([group()], [nowhere], settings, Egress())
    assert told.book == settings.price_book()
    assert "did not quote nano-banana-2 1K" in told.lines[0]
