"""Settings: every source in its place, misspelt keys refused, keys never shown."""

import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.capabilities import Rate
from bydawn import values
from bydawn.config import OPTIONS, Config, load_config, read_file, refuse_stray_ledger
from bydawn.errors import UserError
from bydawn.keys import base_url_of, chosen_accounts

NOWHERE = Path("/nonexistent/config.toml")


def config_of(tmp_path: Path, text: str = "", env: dict[str, str] | None = None, user: str = "") -> Config:
    project, personal = tmp_path / "bydawn.toml", tmp_path / "user.toml"
    if text:
        project.write_text(text)
    if user:
        personal.write_text(user)
    return load_config(tmp_path, env or {}, user_file=personal)


# --- laws -------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**15 - 1))
def test_money_is_read_exactly(microusd: int) -> None:
    text = f"{microusd // 1_000_000}.{microusd % 1_000_000:06d}"
    assert values.money(text, where="t") == microusd
    assert values.money(f" ${text} ", where="t") == microusd
    assert values.money(text.rstrip("0").rstrip(".") or "0", where="t") == microusd


@given(st.text(max_size=12))
def test_money_is_read_or_refused_never_guessed(text: str) -> None:
    with suppress(UserError):
        assert values.money(text, where="t") >= 0


@given(st.text(max_size=16), st.integers(0, 4 * 10**15))
def test_a_moment_is_ahead_or_refused(text: str, now_us: int) -> None:
    with suppress(UserError):
        assert values.moment_us(text, where="t", now_us=now_us, zone=UTC) >= now_us


SOURCES = ("flag", "env", "project", "user")


@given(st.sets(st.sampled_from(SOURCES)), st.sampled_from(["budget", "max_at_risk"]))
def test_the_first_source_that_has_it_wins(given_in: set[str], name: str) -> None:
    def line(source: str) -> str:
        return f'{name} = "{source}"' if source in given_in else "# none"

    with tempfile.TemporaryDirectory() as folder:
        env = {f"BYDAWN_{name.upper()}": "env"} if "env" in given_in else {}
        config = config_of(Path(folder), line("project"), env, line("user"))
        setting = config.setting(name, "flag" if "flag" in given_in else None, default="default")
    assert setting.value == next((source for source in SOURCES if source in given_in), "default")


# --- values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "microusd"), [("250", 250_000_000), ("$250", 250_000_000), ("0.5", 500_000)])
def test_dollars(text: str, microusd: int) -> None:
    assert values.money(text, where="t") == microusd


@pytest.mark.parametrize("text", ["", "-1", "1,000", "1e3", "0.1234567", "ten", "nan", "٣"])
def test_what_is_no_money_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(UserError) as caught:
        values.money(text, where="--budget")
    assert (caught.value.where, caught.value.exit_code) == ("--budget", 2)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("20m", 1200), ("1d12h", 129_600), ("1.5s", 1.5), ("2H", 7200)]
)
def test_durations(text: str, seconds: float) -> None:
    assert values.duration_s(text, where="t") == seconds


@pytest.mark.parametrize(
    ("text", "rate"), [("18/10s", Rate(18, 10.0)), ("600/min", Rate(600, 60.0)), ("5 / second", Rate(5, 1.0))]
)
def test_rates(text: str, rate: Rate) -> None:
    assert values.rate(text, where="t") == rate


NOW = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("07:00", datetime(2026, 11, 23, 7, tzinfo=UTC)),
        ("23:45", datetime(2026, 11, 22, 23, 45, tzinfo=UTC)),
        ("23:30", datetime(2026, 11, 23, 23, 30, tzinfo=UTC)),
        ("07:00 Europe/Berlin", datetime(2026, 11, 23, 6, tzinfo=UTC)),
        ("8h", datetime(2026, 11, 23, 7, 30, tzinfo=UTC)),
        ("2026-11-23T07:00", datetime(2026, 11, 23, 7, tzinfo=UTC)),
        ("2026-11-23T07:00+02:00", datetime(2026, 11, 23, 5, tzinfo=UTC)),
    ],
)
def test_moments(text: str, expected: datetime) -> None:
    now_us = round(NOW.timestamp() * 1e6)
    assert values.moment_us(text, where="t", now_us=now_us, zone=UTC) == round(expected.timestamp() * 1e6)


def test_a_deadline_in_the_night_of_a_clock_change() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    now = datetime(2026, 10, 24, 20, 0, tzinfo=UTC)  # clocks go back at 01:00 UTC
    at_us = values.moment_us("07:00", where="t", now_us=round(now.timestamp() * 1e6), zone=berlin)
    assert datetime.fromtimestamp(at_us / 1e6, UTC) == datetime(2026, 10, 25, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "25:00", "07:60", "07:00 Mars/Base", "soon", "2020-01-01", "0", "07:00 ../../etc"]
)
def test_moments_that_cannot_be(text: str) -> None:
    with pytest.raises(UserError):
        values.moment_us(text, where="--deadline", now_us=round(NOW.timestamp() * 1e6), zone=UTC)


@pytest.mark.parametrize(
    ("text", "told"),
    [("7", (7, 0)), (" 5% ", (0, 50_000)), ("0.5 %", (0, 5_000)), ("100%", (0, 1_000_000)), ("0.0001%", (0, 1))],
)
def test_a_part_is_so_many_or_a_share(text: str, told: tuple[int, int]) -> None:
    assert values.part(text, where="--sample") == told


@pytest.mark.parametrize("text", ["0", "0%", "0.00001%", "100.1%", "-5%", "%", "5%%", "five", "1.5", ""])
def test_what_is_no_part_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(UserError, match="--sample"):
        values.part(text, where="--sample")


def test_words_numbers_lists_and_switches() -> None:
    assert values.listed("1:1, 9:16,,1:1") == ("1:1", "9:16")
    assert values.whole("3", where="t", least=1) == 3
    assert values.one_of("hold", ("hold", "ask"), where="t") == "hold"
    assert values.yes("On", where="t")
    assert not values.yes("", where="t")
    for read in (
        lambda: values.whole("0", where="t", least=1),
        lambda: values.one_of("x", ("a",), where="t"),
        lambda: values.yes("perhaps", where="t"),
        lambda: values.rate("0/s", where="t"),
        lambda: values.duration_s("", where="t"),
    ):
        with pytest.raises(UserError):
            read()


# --- files ------------------------------------------------------------------------------------------------

EXAMPLE = """
provider = ["kie-eu", "replicate"]
budget = 250
max-at-risk = 2.5
skip_invalid = true

[map]
prompt = "Photo of {Title}"

[accounts.kie-eu]
provider = "kie"
key_file = "kie.key"
max_inflight = 20
rate = "10/10s"
budget = 40.5
models = ["nano-banana-2"]

[prices.kie.nano-banana-2]
1K = 0.055
4K = { price = "0.11", with_references = 0.12, source = "invoice 7" }
"""


def test_a_whole_file(tmp_path: Path) -> None:
    (tmp_path / "kie.key").write_text("kie-secret\n")
    sub = tmp_path / "deep" / "er"
    sub.mkdir(parents=True)
    (tmp_path / "bydawn.toml").write_text(EXAMPLE)
    config = load_config(sub, {"REPLICATE_API_TOKEN": "r8_x", "SEGMIND_API_KEY": "SG_x"}, user_file=NOWHERE)
    assert config.setting("provider").value == "kie-eu,replicate"
    assert config.setting("budget").value == "250"
    assert config.setting("max_at_risk").origin == f"max_at_risk in {tmp_path / 'bydawn.toml'}"
    assert config.setting("skip_invalid", False).value == "true"
    assert config.setting("attempts", default="3").value == "3"
    assert config.maps({"id": "SKU"}) == {"prompt": "Photo of {Title}", "id": "SKU"}
    kie, replicate = chosen_accounts(config, values.listed(config.setting("provider").value))
    assert (kie.name, kie.provider, kie.max_inflight, kie.rate) == ("kie-eu", "kie", 20, Rate(10, 10.0))
    assert (kie.budget_microusd, kie.models, kie.key.reveal()) == (40_500_000, ("nano-banana-2",), "kie-secret")
    assert (replicate.name, replicate.key.reveal()) == ("replicate", "r8_x")
    book = config.price_book()
    assert book.ceiling("kie", "nano-banana-2", "1K", True) == 68_750
    plain, edit = (book.quote("kie", "nano-banana-2", "4K", references=flag) for flag in (False, True))
    assert plain is not None
    assert edit is not None
    assert (plain.microusd, edit.microusd, edit.source) == (110_000, 120_000, "invoice 7")
    unset = book.quote("kie", "nano-banana-2", "2K", references=False)
    assert unset is not None
    assert unset.microusd == 90_000


def test_options_given_several_times_are_kept_apart(tmp_path: Path) -> None:
    config = config_of(tmp_path, 'reference = ["https://a.example/1,2", "https://a.example/3"]\n')
    assert config.many("reference")[0] == ("https://a.example/1,2", "https://a.example/3")
    assert config.many("reference", ["x"]) == (("x",), "--reference")
    assert config.many("aspect") == ((), "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("budgit = 3", "'budgit'"),
        ("yes = true", "'yes'"),
        ("[accounts.a]\nprovider = 'kie'\nkey = 'x'", "'accounts.a.key'"),
        ("[accounts.a]\nmax_inflight = 3", "accounts.a: Object missing required field `provider`"),
        ("[accounts.a]\nprovider = 'kie'\nmax_inflight = 'many'", "accounts.a.max_inflight"),
        ("accounts = 3", "accounts"),
        ("[map]\nprompt = 3", "map"),
        ("budget = [[1]]", "budget"),
        ("[prices.kie.m]\n1K = { prize = 3 }", "'prices.kie.m.1K.prize'"),
        ("[prices.kie.m]\n1K = [3]", "prices.kie.m.1K"),
        ("not toml", "cannot be read"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_path(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bydawn.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_file(path)
    assert caught.value.code == "BD-030"
    assert says in caught.value.what
    assert caught.value.where == str(path)


def test_a_bad_price_names_its_place(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        config_of(tmp_path, "[prices.kie.m]\n1K = -0.1")
    assert "prices.kie.m.1K" in caught.value.where


def test_a_near_miss_is_offered(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        config_of(tmp_path, "budgets = 3")
    assert caught.value.why == "did you mean 'budget'?"


def test_consent_is_never_read_from_a_file() -> None:
    assert not OPTIONS & {"yes", "approved", "new", "new_ledger", "dry_run"}


# --- the ledger -------------------------------------------------------------------------------------------


def test_a_new_ledger_is_begun_only_where_somebody_wants_one(tmp_path: Path) -> None:
    ledger, bare = tmp_path / "bydawn.db", Config((), {})

    def begin(config: Config = bare, *, reason: str = "") -> None:
        refuse_stray_ledger(
            ledger,
            config,
            named=reason == "named",
            asked=reason == "asked",
            terminal=reason == "terminal",
            sandbox=reason == "sandbox",
        )

    with pytest.raises(UserError) as caught:
        begin()
    assert (caught.value.code, caught.value.exit_code) == ("BD-031", 2)
    for reason in ("named", "asked", "terminal", "sandbox"):
        begin(reason=reason)
    begin(config_of(tmp_path, "budget = 1"))
    ledger.touch()
    begin()


# --- accounts ---------------------------------------------------------------------------------------------


def test_missing_keys_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        chosen_accounts(config_of(tmp_path), ["kie", "segmind"])
    assert (caught.value.code, caught.value.exit_code) == ("BD-041", 4)
    assert "KIE_API_KEY (kie), SEGMIND_API_KEY (segmind)" in caught.value.what
    with pytest.raises(UserError, match="REPLICATE_API_TOKEN"):
        chosen_accounts(config_of(tmp_path), [])


def test_without_names_every_provider_with_a_key_takes_part(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("SG_1\n")
    config = config_of(tmp_path, env={"KIE_API_KEY": "k", "SEGMIND_API_KEY_FILE": str(tmp_path / "key")})
    assert [account.name for account in chosen_accounts(config, [])] == ["kie", "segmind"]


def test_a_plan_is_about_the_accounts_that_a_run_would_buy_from(tmp_path: Path) -> None:
    planned = chosen_accounts(config_of(tmp_path, env={"KIE_API_KEY": "k"}), [], need_keys=False)
    assert [account.name for account in planned] == ["kie"]
    named = chosen_accounts(config_of(tmp_path, env={"KIE_API_KEY": "k"}), ["segmind"], need_keys=False)
    assert [(account.name, account.key.reveal()) for account in named] == [("segmind", "")]


def test_a_plan_without_any_key_compares_all_that_need_not_be_named(tmp_path: Path) -> None:
    planned = [account.name for account in chosen_accounts(config_of(tmp_path), [], need_keys=False)]
    assert {"kie", "replicate", "wavespeed"} < set(planned)
    assert not {"byteplus", "google-batch"} & set(planned)


def test_a_provider_means_all_its_accounts(tmp_path: Path) -> None:
    text = '[accounts.eu]\nprovider="kie"\nkey_env="A"\n[accounts.us]\nprovider="kie"\nkey_env="B"\n'
    config = config_of(tmp_path, text, {"A": "a", "B": "b", "KIE_API_KEY": "unused"})
    assert [account.name for account in chosen_accounts(config, ["kie"])] == ["eu", "us"]
    assert [account.name for account in chosen_accounts(config, ["us", "kie"])] == ["us", "eu"]
    with pytest.raises(UserError, match="B \\(us\\)"):
        chosen_accounts(config_of(tmp_path, text, {"A": "a"}), [])


@pytest.mark.parametrize(
    ("text", "names", "code"),
    [
        ("", ["kai"], "BD-040"),
        ('[accounts.a]\nprovider = "kai"', [], "BD-040"),
        ('[accounts.a]\nprovider = "kie"\nkey_env = "A"\nkey_file = "b"', [], "BD-030"),
        ('[accounts.a]\nprovider = "kie"\nkey_file = "missing"', [], "BD-043"),
        ('[accounts.a]\nprovider = "kie"\nkey_env = "A"\nrate = "fast"', [], "BD-020"),
        ('[accounts.a]\nprovider = "kie"\nkey_env = "A"\nmax_inflight = 0', [], "BD-020"),
    ],
)
def test_accounts_that_cannot_be(tmp_path: Path, text: str, names: list[str], code: str) -> None:
    with pytest.raises(UserError) as caught:
        chosen_accounts(config_of(tmp_path, text, {"A": "a"}), names)
    assert caught.value.code == code


def test_a_key_is_never_shown(tmp_path: Path) -> None:
    key = "sk-very\nsecret"
    with pytest.raises(UserError) as caught:
        chosen_accounts(config_of(tmp_path, env={"KIE_API_KEY": key}), ["kie"])
    assert caught.value.exit_code == 4
    assert "secret" not in str(caught.value)
    (account,) = chosen_accounts(config_of(tmp_path, env={"KIE_API_KEY": "sk-secret"}), ["kie"])
    assert "secret" not in repr(account)


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8700/kie/", True),
        ("http://localhost:8700", True),
        ("http://[::1]:8700/x", True),
        ("https://127.1.2.3", True),
        ("https://gateway.example/kie", False),
    ],
)
def test_base_urls(url: str, loopback: bool) -> None:
    assert base_url_of("kie", {"BYDAWN_KIE_BASE_URL": url}) == (url.rstrip("/"), loopback)
    assert base_url_of("segmind", {"BYDAWN_KIE_BASE_URL": url}) == ("", False)


@pytest.mark.parametrize(
    "url",
    [
        "http://gateway.example",
        "http://127.0.0.1.evil.example",
        "http://user:pw@127.0.0.1",
        "https://a.example/?x=1",
        "ftp://127.0.0.1",
        "127.0.0.1:8700",
        "http://",
        "http://127.0.0.1:99999",
        "http://127.0.0.1/a b",
    ],
)
def test_base_urls_that_cannot_be(url: str) -> None:
    with pytest.raises(UserError) as caught:
        base_url_of("kie", {"BYDAWN_KIE_BASE_URL": url})
    assert caught.value.code == "BD-042"
