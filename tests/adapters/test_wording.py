"""What free texts of providers mean."""

import pytest

from adapters.wording import is_policy, lacks_credit


@pytest.mark.parametrize(
    "text",
    [
        "Insufficient balance, please top up",
        "Insufficient credits. Please top up.",
        "Your credits are insufficient",
        "not enough credits",
        "quota exceeded",
        "your balance is too low",
        "No credits left",
        "no credit",
        "No funds available.",
        "out of credit",
        "please top-up your account",
    ],
)
def test_an_empty_account_is_told_in_many_ways(text: str) -> None:
    assert lacks_credit(text)


@pytest.mark.parametrize(
    "text",
    [
        "something about the credit of the photographer",
        "timed out, no credits were charged",
        "failed; no credit deducted",
        "no balance change",
        "insufficient permissions",
        "the white balance parameter is invalid",
        "stop upstream",
    ],
)
def test_other_words_about_money_are_no_empty_account(text: str) -> None:
    assert not lacks_credit(text)


@pytest.mark.parametrize("text", ["flagged by our content policy", "NSFW", "该提示词违规", "violates our terms"])
def test_a_filter_is_known_by_its_words(text: str) -> None:
    assert is_policy(text)


@pytest.mark.parametrize("text", ["", "upstream returned status 503", "invalid image"])
def test_other_failures_are_no_filters(text: str) -> None:
    assert not is_policy(text)
