"""Small pieces of replies."""

import pytest

from adapters.reading import seconds


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("30", 30.0),
        (" 1.5 ", 1.5),
        ("7\x1f", 7.0),  # what str.strip takes away and float() does not
        ("999999999", 3_600.0),  # a broken clock at the other end
        ("-1", None),
        ("1e3", None),
        ("٣", None),
        ("nan", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("", None),
    ],
)
def test_a_wait_is_a_plain_number_of_seconds(text: str, told: float | None) -> None:
    assert seconds(text) == told
