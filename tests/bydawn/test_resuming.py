"""What going on with a batch would mean, in dollars, and when it needs a consent of its own."""

import io
from pathlib import Path

import msgspec
import pytest

from bydawn.consent import ask_leave_again, given_already
from bydawn.errors import UserError
from bydawn.resuming import Part, Resumed, again_words, resume_lines, resumed
from ledger.events import SpendAgreed
from ledger.folds import BatchState
from ledger.reader import Reader
from tests.bydawn.a_night import tell

AGREED = SpendAgreed(images=10, expected_microusd=600_000, worst_microusd=2_250_000, by="yes", operator="ada")
NOTHING = Part()


@pytest.fixture
def night(tmp_path: Path) -> Reader:
    """Two images of $0.06 and one that shares, one job under way, one failed, one held at $0.075, one never bought."""
    tell(tmp_path / "l.db", tmp_path)
    return Reader(tmp_path / "l.db")


def as_agreed(night: Reader, **settings: object) -> BatchState:
    state = night.batch(1)
    return msgspec.structs.replace(state, agreed=AGREED, settings=msgspec.structs.replace(state.settings, **settings))


def test_each_part_has_its_dollars(night: Reader) -> None:
    with night:
        state = as_agreed(night)
        found = resumed(night, 1, state)
        assert found == Resumed(
            reused=Part(3, 120_000),
            fetched=Part(1, 75_000),
            adopted=NOTHING,
            doubtful=NOTHING,
            new=Part(1, 60_000),
            failed=1,
            held=Part(1, 75_000),
            again=NOTHING,
            bought_microusd=195_000,
            at_risk_microusd=75_000,
        )
        assert not found.asks
        (line,) = resume_lines(found, state)
        assert line == (
            "goes on: 3 images reused ($0.12), 1 job fetched (at most $0.075), 1 bought new (about $0.06), "
            "1 failed stay, 1 held (at most $0.075 may have been paid)"
        )
        assert found.data()["again_microusd"] == 0


def test_what_is_held_may_be_bought_again_under_resubmit_within_its_budget(night: Reader) -> None:
    """MON-4."""
    with night:
        state = as_agreed(night, on_unknown="resubmit")
        found = resumed(night, 1, state)
        assert found.again == Part(1, 75_000)
        assert found.asks
        assert any("that needs your consent" in line for line in resume_lines(found, state))
        small = resumed(night, 1, as_agreed(night, on_unknown="resubmit", max_duplicate_usd_micro=1_000))
        assert small.again.microusd == 1_000
        assert not small.asks
        assert resumed(night, 1, as_agreed(night, on_unknown="resubmit", max_duplicate_usd_micro=0)).again == NOTHING


@pytest.mark.parametrize(("again", "asks"), [(0, False), (10_000, False), (10_001, True)])
def test_more_than_one_percent_of_what_was_bought_asks(again: int, asks: bool) -> None:
    parts = dict.fromkeys(("reused", "fetched", "adopted", "doubtful", "new", "held"), NOTHING)
    found = Resumed(**parts, failed=0, again=Part(1, again), bought_microusd=1_000_000, at_risk_microusd=0)
    assert found.asks == asks


def test_where_nothing_was_bought_yet_any_second_purchase_asks() -> None:
    parts = dict.fromkeys(("reused", "fetched", "adopted", "doubtful", "new", "held"), NOTHING)
    found = Resumed(**parts, failed=0, again=Part(2, 1), bought_microusd=0, at_risk_microusd=0)
    assert found.asks
    assert "2 tasks that may have been paid already" in again_words(found)


def test_off_a_terminal_buying_again_needs_leave_given_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(UserError) as caught:
        ask_leave_again("2 tasks", 150_000, AGREED, sandbox=False, given=None)
    assert (caught.value.code, caught.value.exit_code) == ("BD-072", 2)
    assert "--yes" in caught.value.fix
    given = given_already(yes=True, budget_microusd=None, approved=False)
    agreed = ask_leave_again("2 tasks", 150_000, AGREED, sandbox=False, given=given)
    assert (agreed.by, agreed.again_microusd, agreed.images) == ("yes", 150_000, 10)
    assert ask_leave_again("2 tasks", 1, AGREED, sandbox=True, given=None).by == "sandbox"


def test_a_budget_and_an_approved_plan_are_leave_too() -> None:
    assert given_already(yes=False, budget_microusd=1, approved=True) == "budget"
    assert given_already(yes=False, budget_microusd=None, approved=True) == "approved"
    assert given_already(yes=False, budget_microusd=None, approved=False) is None
