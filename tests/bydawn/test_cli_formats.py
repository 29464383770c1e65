"""Numbers and times as people read them."""

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bydawn.cli import formats


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("microusd", "text"),
    [
        (0, "$0.00"),
        (60_000, "$0.06"),
        (45_500, "$0.0455"),
        (84_000, "$0.084"),
        (1, "$0.0000"),
        (9_999_900, "$9.9999"),
        (12_304_560, "$12.30"),
        (1_204_770_000, "$1,204.77"),
        (-500_000, "-$0.50"),
    ],
)
def test_dollars(microusd: int, text: str) -> None:
    assert formats.dollars(microusd) == text


def test_a_column_of_dollars_has_one_number_of_places() -> None:
    assert formats.dollar_column([60_000, 45_500, 0]) == ["$0.0600", "$0.0455", "$0.0000"]
    assert formats.dollar_column([60_500, 20_000_000]) == ["$0.06", "$20.00"]
    assert formats.dollar_column([]) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.84, "0.8 s"),
        (42.4, "42 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(("octets", "text"), [(830, "830 B"), (12_400, "12.4 KB"), (3_100_000_000, "3.1 GB")])
def test_sizes(octets: int, text: str) -> None:
    assert formats.size(octets) == text


@pytest.mark.usefixtures("in_berlin")
def test_times_are_local_and_name_their_zone() -> None:
    assert formats.moment(1_795_334_400_120_000) == "2026-11-22 09:00:00 CET"
    assert formats.clock_time(1_795_334_400_120_000) == "09:00:00.120"
    assert formats.moment(1_780_000_000_000_000).endswith("CEST")


@given(st.integers(0, 10**7), st.integers(1, 10**7))
def test_all_is_said_only_when_it_is_all(part: int, whole: int) -> None:
    assert (formats.percent(part, whole) == "100%") == (part >= whole)


@given(st.text(max_size=60))
def test_nothing_from_outside_can_move_the_cursor(text: str) -> None:
    assert all(char.isprintable() for char in formats.plain(text))


@given(st.text(max_size=60), st.integers(1, 20))
def test_clipped_text_fits(text: str, columns: int) -> None:
    clipped = formats.clip(text, columns)
    assert formats.width(clipped) <= columns
    assert clipped == text or clipped.endswith("…")


def test_wide_characters_take_two_columns() -> None:
    assert formats.width("陶壶") == 4
    assert formats.width("e\u0301") == 1
