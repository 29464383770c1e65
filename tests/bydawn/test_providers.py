"""``bydawn providers``: the tables a user chooses by, and what the check can tell of a key."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio

from adapters.base import HttpCall, HttpReply, Secret
from adapters.capabilities import Known
from adapters.prices import DEFAULT_BOOK
from adapters.registry import PROVIDERS, codec
from bydawn.accountcheck import Answer, standings
from bydawn.cli.formats import width
from bydawn.cli.main import main
from bydawn.cli.providers import balance_cell, models_cell, say_what_is_wrong
from bydawn.comparison import assumed, compare, fitted, own_prices, price_cell, prices_by_size, references_cell, said
from bydawn.config import load_config
from bydawn.keys import providers_with_keys
from runtime.accounts import Account

EVERYONE = [codec(name).capabilities for name in PROVIDERS]
KIE = codec("kie").capabilities


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No keys and no settings of whoever runs the tests."""
    for caps in EVERYONE:
        monkeypatch.delenv(caps.key_env, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.chdir(tmp_path)


# --- the tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["providers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(width, lines)) <= columns
    tables = sum(line.startswith("  provider ") for line in lines)
    assert all(sum(line.startswith(f"  {name} ") for line in lines) == tables for name in PROVIDERS)


def test_120_columns_hold_all_in_two_tables_and_prices_stand_in_the_first() -> None:
    first, second = fitted(compare(EVERYONE, DEFAULT_BOOK, "nano-banana-2", frozenset()), 120)
    assert {"provider", "key", "$ 1K", "refs", "shape", "recovery", "webhook", "pin", "assumed"} <= {
        column.head for column in first
    }
    assert [column.head for column in second][:4] == ["provider", "lanes", "creates", "at once"]


def test_a_price_that_is_not_known_is_not_an_image_that_is_not_offered() -> None:
    assert price_cell(KIE, DEFAULT_BOOK, "nano-banana-2", "1K") == "0.06"
    assert price_cell(KIE, DEFAULT_BOOK, "nano-banana-2", "0.5K") == "-"
    assert price_cell(KIE, DEFAULT_BOOK, "dall-e", "1K") == "-"
    assert price_cell(KIE, DEFAULT_BOOK.__class__({}), "nano-banana-2", "1K") == "?"


def test_references_are_counted_with_their_forms() -> None:
    assert references_cell(codec("together").capabilities, "nano-banana-2") == "14 url"
    assert references_cell(codec("together").capabilities, "nano-banana-2-lite") == "-"
    assert references_cell(codec("google").capabilities, "nano-banana-2") == "14 file"


def test_what_is_assumed_is_counted() -> None:
    unsure, facts = assumed(KIE)
    marks = [value.mark for value in msgspec.structs.asdict(KIE).values() if isinstance(value, Known)]
    assert (unsure, facts) == (marks.count("assumed"), len(marks))


def test_a_key_in_a_file_or_of_an_account_counts_as_set(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 20)
    (tmp_path / "bydawn.toml").write_text(
        '[accounts.eu]\nprovider = "kie"\nkey_file = "key"\n[accounts.us]\nprovider = "segmind"\nkey_file = "missing"\n'
    )
    env = {"REPLICATE_API_TOKEN_FILE": str(tmp_path / "key"), "TOGETHER_API_KEY": "k" * 20}
    assert providers_with_keys(load_config(tmp_path, env)) == {"kie", "replicate", "together"}


def test_as_data_every_fact_and_every_price_has_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["providers", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["provider"] for line in lines] == list(PROVIDERS)
    for told, caps in zip(lines, EVERYONE, strict=True):
        for name, fact in caps.facts.items():
            assert (told[name]["source"], told[name]["date"], told[name]["mark"]) == (fact.source, fact.date, fact.mark)
        assert len(told["prices"]) == len(own_prices(caps, DEFAULT_BOOK))
        assert all(price["source"] and price["microusd"] > 0 and price["mark"] for price in told["prices"])
        assert (told["recovery"], told["assumed"]) == (caps.recovery, assumed(caps)[0])


@pytest.mark.parametrize("provider", PROVIDERS)
def test_one_provider_is_told_whole(provider: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["providers", "list", provider]) == 0
    shown = capsys.readouterr().out
    caps = codec(provider).capabilities
    assert all(fact.source in shown for fact in caps.facts.values())
    assert all(answer in shown for answer in caps.no_job_answers.value)
    assert all(model.provider_id in shown for model in caps.models.value)


def test_values_are_told_in_words() -> None:
    assert said(True) == "yes"
    assert said(()) == "-"
    assert said(KIE.submit_rate.value) == "18 per 10 s"
    assert said(codec("together").capabilities.references.value) == "URLs"
    assert said(86_400.0) == "86400"
    assert prices_by_size(KIE, DEFAULT_BOOK, "dall-e") == {}


# --- the check --------------------------------------------------------------------------------------------


class Saying:
    """A wire that answers everything with one body."""

    def __init__(self, body: object) -> None:
        self._body = msgspec.json.encode(body)

    async def send(self, call: HttpCall, on_sent: Callable[[], None] | None = None) -> HttpReply:
        return HttpReply(200, {}, self._body)

    async def fetch(self, *_: object) -> object:
        raise AssertionError("a check downloads nothing")

    async def aclose(self) -> None:
        pass


def asked(provider: str, body: object, *, model: str = "", models: tuple[str, ...] = ()) -> Answer:
    account = Account(provider, provider, codec(provider), Secret("k" * 20), models=models)

    async def ask() -> list[Answer]:
        return await standings([account], lambda: Saying(body), model=model)  # type: ignore[arg-type, return-value]

    (answer,) = trio.run(ask)
    return answer


def listing(*left_out: str) -> list[dict[str, str]]:
    models = codec("together").capabilities.models.value
    return [{"id": model.provider_id} for model in models if model.name not in left_out]


def test_a_model_that_is_not_listed_is_named() -> None:
    answer = asked("together", listing("nano-banana-pro"))
    assert (answer.state, answer.not_listed) == ("ok", ("nano-banana-pro",))
    assert models_cell(answer) == "not listed: nano-banana-pro"
    assert models_cell(asked("together", listing())) == "4 listed"


@pytest.mark.parametrize(
    ("model", "models", "state"),
    [
        ("", (), "ok"),
        ("nano-banana-pro", (), "disabled"),
        ("google/gemini-3-pro-image", (), "disabled"),  # by the provider's own name
        ("nano-banana-2", (), "ok"),
        ("", ("nano-banana-pro",), "disabled"),
        ("nano-banana-2", ("nano-banana-pro",), "ok"),
        ("unheard-of", (), "ok"),  # nothing is known of it, so nothing is missing
    ],
)
def test_an_account_of_which_no_wanted_model_is_listed_is_disabled(
    model: str, models: tuple[str, ...], state: str
) -> None:
    assert asked("together", listing("nano-banana-pro"), model=model, models=models).state == state


def test_where_nothing_is_listed_only_a_purchase_tells() -> None:
    answer = asked("kie", {"code": 200, "data": 100}, model="nano-banana-2")
    assert (answer.state, answer.models, models_cell(answer)) == ("ok", None, "only a purchase tells")


def test_a_balance_is_told_in_its_own_unit() -> None:
    kie = asked("kie", {"code": 200, "data": 1_234.5})
    assert (kie.balance, kie.unit, balance_cell(kie)) == (1_234.5, "credits", "1,234.5 credits ($6.1725)")
    segmind = asked("segmind", {"credits": 12.5})
    assert (segmind.balance, segmind.unit, balance_cell(segmind)) == (None, "usd", "$12.50")
    silent = asked("replicate", {"type": "user", "username": "ada"})
    assert (silent.unit, balance_cell(silent)) == ("", "-")


def test_what_is_wrong_is_said_and_only_a_rejected_key_is_exit_4(capsys: pytest.CaptureFixture[str]) -> None:
    good = asked("kie", {"code": 200, "data": 100})
    assert say_what_is_wrong([good]) == 0
    assert capsys.readouterr().err == ""
    empty = good._replace(account="empty", state="no_credit")
    disabled = good._replace(account="locked", state="disabled")
    assert say_what_is_wrong([good, empty, disabled]) == 0
    told = capsys.readouterr().err
    assert "no credit left: empty;" in told
    assert "for the key of locked" in told
    assert say_what_is_wrong([good._replace(state="rejected")]) == 4
    assert "BD-105" in capsys.readouterr().err
