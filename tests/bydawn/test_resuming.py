"""What going on with a batch would mean, in dollars, and when it needs a consent of its own."""

import io
from pathlib import Path

import msgspec
import pytest

from bydawn.consent import ask_leave_again, given_already
from bydawn.errors import UserError
from bydawn.resuming import Part, Resumed, again_words, resume_lines, resumed
from ledger.commands import Decide, Intend
from ledger.decisions import Append, Committed, Decision
from ledger.events import LedgerTakenOver, SpendAgreed, WaitingTasks
from ledger.folds import BatchState
from ledger.reader import Reader
from ledger.streams import runtime_stream
from tests.bydawn.a_night import tell
from tests.ledger.ledgers import do, opened
from tests.ledger.stories import UNKNOWN

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


def test_what_nobody_can_be_asked_about_is_not_said_to_be_looked_up(tmp_path: Path) -> None:
    """REC-4: Kie has no list and no lookup; Segmind has a history."""
    with opened(tmp_path / "l.db", tasks=3) as ledger:
        for n, provider in ((1, "kie"), (2, "segmind"), (3, "segmind")):
            do(ledger, n, Intend(provider, provider, "default", "only", 60_000, "d", 0))
    with Reader(tmp_path / "l.db") as reader:
        found = resumed(reader, 1, as_agreed(reader))
        assert (found.doubtful, found.unasked) == (Part(3, 180_000), Part(1, 60_000))
        (line,) = resume_lines(found, as_agreed(reader))
    assert "2 in doubt are looked up (at most $0.12) and adopted where found" in line
    assert "1 in doubt that nobody can be asked about (at most $0.06)" in line


def test_what_waits_since_a_takeover_is_not_said_to_be_bought(tmp_path: Path) -> None:
    """REC-10: neither what was never bought nor what was given leave to be bought again."""
    with opened(tmp_path / "l.db", tasks=4) as ledger:
        do(ledger, 1, *UNKNOWN, Decide("ann", "buy_again", 1))
        taken = LedgerTakenOver("ann", "m", 1, 1, waiting=(WaitingTasks(1, 3),))
        (outcome,) = ledger.commit([Decision((Append(runtime_stream(), 1, (taken,)),), at_us=9)])
        assert isinstance(outcome, Committed)
    with Reader(tmp_path / "l.db") as reader:
        found = resumed(reader, 1, as_agreed(reader))
        assert (found.waiting.n, found.new.n, found.again.n) == (3, 1, 0)
        (line,) = resume_lines(found, as_agreed(reader))
    assert "3 not bought before: bydawn ledger takeover --buy-queued" in line


@pytest.mark.parametrize(
    ("cap", "words"),
    [
        (75_000, "held tasks take up all of the money at risk, so nothing is bought: bydawn resolve teapots, or"),
        (
            100_000,
            "held tasks leave $0.025 of the money at risk, so little is bought at one time: bydawn resolve teapots",
        ),
    ],
)
def test_how_much_room_held_tasks_leave_is_told(night: Reader, cap: int, words: str) -> None:
    """MON-3."""
    with night:
        state = as_agreed(night, max_at_risk_microusd=cap)
        assert words in resume_lines(resumed(night, 1, state), state)[-1]
        practice = msgspec.structs.replace(state, sandbox=True)
        assert "bydawn resolve teapots --sandbox" in resume_lines(resumed(night, 1, practice), practice)[-1]


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
