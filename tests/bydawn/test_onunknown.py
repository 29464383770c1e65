"""What ``--on-unknown ask`` asks for, and what its answer allows (MON-4)."""

import sys
from pathlib import Path

import click
import pytest
from msgspec.structs import replace

from bydawn.errors import UserError
from bydawn.onunknown import duplicates_allowed
from ledger.commands import Intend
from ledger.decisions import Reserve
from ledger.folds import BatchState
from ledger.money import duplicates_money
from tests.ledger.stories import bought
from tests.runtime.nights import OpenLedger, with_ledger


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Somebody at a terminal who says yes to everything."""
    asked: list[str] = []

    def confirm(text: str, *, err: bool) -> bool:
        asked.append(text)
        return err

    monkeypatch.setattr(click, "confirm", confirm)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    return asked


def asking(opened: OpenLedger, most: int | None = None) -> BatchState:
    state = opened.reader.batch(1)
    return replace(state, settings=replace(state.settings, on_unknown="ask", max_duplicate_usd_micro=most))


async def once_bought_again(opened: OpenLedger) -> None:
    """Task 1 was bought a second time in an earlier run, task 2 is held now."""
    await opened.hold(1)
    await opened.do(1, Intend("kie", "kie", "default", "only", 60_000, "d", 0, beside="policy"), *bought(2))
    await opened.hold(2)


def test_a_second_leave_has_room_beside_what_the_first_one_spent(tmp_path: Path, questions: list[str]) -> None:
    """MON-4: the cap counts all that the batch ever bought again; the leave had no effect."""

    async def body(opened: OpenLedger) -> None:
        await once_bought_again(opened)
        allowed = duplicates_allowed(asking(opened), opened.reader, 1, lambda line: None)
        assert questions == ["Buy them again, for at most $0.06?"]
        assert allowed is not None
        again = Intend("kie", "kie", "default", "only", 60_000, "d", 0, beside="policy")
        refused = await opened.log.record(
            opened.work(2), again, guards=lambda at_us: [Reserve(duplicates_money(1), allowed)]
        )
        assert refused is None

    with_ledger(tmp_path, body)


@pytest.mark.parametrize(("most", "asked"), [(200_000, "$0.06"), (60_000, "$0.01"), (40_000, "")])
def test_no_leave_goes_beyond_the_budget_for_duplicates(
    tmp_path: Path, questions: list[str], most: int, asked: str
) -> None:
    """MON-4: what is asked for is what can be bought."""

    async def body(opened: OpenLedger) -> None:
        await once_bought_again(opened)
        allowed = duplicates_allowed(asking(opened, most), opened.reader, 1, lambda line: None)
        assert (allowed or 0) <= most
        assert questions == ([f"Buy them again, for at most {asked}?"] if asked else [])

    with_ledger(tmp_path, body)


def test_a_batch_goes_back_to_holding_whatever_budget_it_had(tmp_path: Path) -> None:
    """MON-2: the safest policy was refused for a budget that no option can take back."""

    async def body(opened: OpenLedger) -> None:
        state = opened.reader.batch(1)
        state = replace(state, settings=replace(state.settings, on_unknown="hold", max_duplicate_usd_micro=2_000_000))
        assert duplicates_allowed(state, opened.reader, 1, lambda line: None) is None
        with pytest.raises(UserError, match="no use"):
            duplicates_allowed(state, opened.reader, 1, lambda line: None, given=2_000_000)

    with_ledger(tmp_path, body)
