"""The settings of callbacks: what can be told to providers, where to listen, and which secrets are known."""

from pathlib import Path

import pytest

from adapters.base import Secret
from adapters.registry import codec
from bydawn.cli.sandbox import environment
from bydawn.errors import UserError
from bydawn.webhooks import Place, calling_of, listening_place, public_url, webhook_secrets
from runtime.accounts import Account

FLAG = "--webhook-url"


def account(provider: str, name: str = "") -> Account:
    return Account(name or provider, provider, codec(provider), Secret("k"))


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://hooks.example.org", "https://hooks.example.org"),
        (" https://hooks.example.org:8443/a/b/ ", "https://hooks.example.org:8443/a/b"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://localhost", "http://localhost"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("off", ""),
        ("", ""),
    ],
)
def test_addresses_that_providers_can_be_told(text: str, url: str) -> None:
    assert public_url(text, where=FLAG) == url


@pytest.mark.parametrize(
    "text",
    [
        "http://hooks.example.org",
        "hooks.example.org",
        "ftp://127.0.0.1",
        "https://user:word@hooks.example.org",
        "https://hooks.example.org/?a=1",
        "https://hooks.example.org/#a",
        "https://hooks.example.org:eighty",
        "https://ünicode.example",
        "https://hooks example.org",
        "https://",
        "https://[::1",
    ],
)
def test_addresses_that_cannot_be_used(text: str) -> None:
    with pytest.raises(UserError) as refused:
        public_url(text, where=FLAG)
    assert refused.value.code == "BD-046"


@pytest.mark.parametrize(
    ("text", "url", "place"),
    [
        ("", "https://hooks.example.org", "127.0.0.1:8787"),
        ("", "http://127.0.0.1:9000/x", "127.0.0.1:9000"),
        ("", "http://localhost", "localhost:80"),
        ("", "https://localhost", "localhost:443"),
        ("", "http://[::1]:9000", "[::1]:9000"),
        ("0.0.0.0:8000", "http://127.0.0.1:9000", "0.0.0.0:8000"),
        ("9001", "https://hooks.example.org", "127.0.0.1:9001"),
        ("[::]:9001", "https://hooks.example.org", "[::]:9001"),
    ],
)
def test_where_to_listen(text: str, url: str, place: str) -> None:
    assert listening_place(text, url, where=FLAG).text == place


@pytest.mark.parametrize("text", ["host", "host:", ":", "127.0.0.1:0", "127.0.0.1:70000", "127.0.0.1:²"])
def test_where_nobody_can_listen(text: str) -> None:
    with pytest.raises(UserError):
        listening_place(text, "", where=FLAG)


def revealed(env: dict[str, str], *providers: str) -> dict[str, list[str]]:
    return {name: [one.reveal() for one in secrets] for name, secrets in webhook_secrets(providers, env).items()}


def test_secrets_come_one_by_one_and_in_pairs(tmp_path: Path) -> None:
    """After a rotation both are good for a while."""
    (tmp_path / "s").write_text("new\n\nold\n")
    env = {
        "BYDAWN_WEBHOOK_SECRET_KIE": "one",
        "BYDAWN_WEBHOOK_SECRET_REPLICATE": " whsec_a,whsec_b  whsec_c\n",
        "BYDAWN_WEBHOOK_SECRET_TOAPIS_FILE": str(tmp_path / "s"),
        "BYDAWN_WEBHOOK_SECRET_SEGMIND": "  ",
    }
    assert revealed(env, "kie", "replicate", "replicate", "toapis", "segmind", "apipass") == {
        "kie": ["one"],
        "replicate": ["whsec_a", "whsec_b", "whsec_c"],
        "toapis": ["new", "old"],
    }


@pytest.mark.parametrize(
    "env", [{"BYDAWN_WEBHOOK_SECRET_KIE_FILE": "/nowhere"}, {"BYDAWN_WEBHOOK_SECRET_KIE": "schlüssel"}]
)
def test_secrets_that_cannot_be_read(env: dict[str, str]) -> None:
    """SEC-1: and the message does not show them."""
    with pytest.raises(UserError) as refused:
        webhook_secrets(["kie"], env)
    assert "schlüssel" not in str(refused.value.args)


def test_who_calls_is_told() -> None:
    accounts = [account("kie"), account("replicate", "replicate-eu"), account("segmind")]
    env = {"BYDAWN_WEBHOOK_SECRET_REPLICATE": "whsec_a"}
    calling = calling_of("https://hooks.example.org", "", accounts, env)
    assert calling is not None
    assert calling.place == Place("127.0.0.1", 8787)
    assert calling.lines(accounts) == (
        "callbacks: kie, replicate-eu (signature checked) to https://hooks.example.org",
        "  polled: segmind",
    )
    assert "none of these" in calling.lines(accounts[2:])[0]
    assert "SECRET" not in repr(calling)
    assert "whsec_a" not in repr(calling)
    assert calling_of("off", "", accounts, env) is None


def test_the_sandbox_tells_the_secrets_it_signs_with() -> None:
    plain = environment("http://127.0.0.1:8700")
    assert not [name for name in plain if "WEBHOOK" in name]
    told = environment("http://127.0.0.1:8700", "whsec_cHJhY3RpY2U=")
    secrets = webhook_secrets(["kie", "replicate", "apipass"], told)
    assert {name: secret.reveal() for name, (secret,) in secrets.items()} == dict.fromkeys(
        ("kie", "replicate"), "whsec_cHJhY3RpY2U="
    )
