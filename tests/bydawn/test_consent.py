"""Consent: what was agreed covers a continue only while it cannot cost more."""

import io

import pytest

from adapters import registry
from adapters.base import Secret
from adapters.prices import DEFAULT_BOOK
from bydawn.consent import ask_leave, exceeds
from bydawn.errors import UserError
from ledger.events import SpendAgreed
from runtime.accounts import Account
from runtime.planning import Group, Plan, plan


def on(provider: str, count: int) -> Plan:
    account = Account(provider, provider, registry.codec(provider), Secret("x"))
    return plan([Group("nano-banana-2", "1:1", "1K", False, (provider,), count)], [account], DEFAULT_BOOK)


def agreed_to(images: int, provider: str) -> SpendAgreed:
    whole = on(provider, images)
    return SpendAgreed(images, whole.expected_microusd, whole.worst_microusd, "yes", "ann")


def test_a_dearer_provider_for_the_rest_exceeds_what_was_agreed() -> None:
    agreed = agreed_to(100, "kie")  # $6.00
    assert exceeds(agreed, on("segmind", 90), spent_microusd=600_000)
    assert not exceeds(agreed, on("kie", 90), spent_microusd=600_000)


def test_a_cheaper_provider_for_the_rest_stays_within_it() -> None:
    assert not exceeds(agreed_to(100, "segmind"), on("kie", 90), spent_microusd=840_000)


def test_what_was_agreed_is_not_asked_again() -> None:
    said: list[str] = []
    given = ask_leave(
        on("kie", 10),
        10,
        sandbox=False,
        given=None,
        agreed=agreed_to(10, "kie"),
        talk=said.append,
    )
    assert given is None
    assert said == []


def test_more_images_than_agreed_need_a_new_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off a terminal nobody can be asked: exit 2, with the plan shown and the option that agrees."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    said: list[str] = []
    with pytest.raises(UserError) as caught:
        ask_leave(
            on("kie", 20),
            20,
            sandbox=False,
            given=None,
            agreed=agreed_to(10, "kie"),
            talk=said.append,
        )
    assert (caught.value.code, caught.value.exit_code) == ("BD-072", 2)
    assert "--budget" in caught.value.fix
    assert "20 images to buy" in said[0]
