"""The last lines of a run name the command that really goes on."""

from pathlib import Path

import msgspec
import pytest

from bydawn.buying import Ended
from bydawn.summary import say_summary, summarise
from ledger.reader import Reader
from runtime.router import StopReason
from tests.bydawn.a_night import tell


@pytest.mark.parametrize(
    ("reason", "on"),
    [
        ("interrupted", "go on: bydawn run teapots"),
        ("budget", "go on: bydawn run teapots --budget USD, for more than $5.00"),
        (
            "at_risk",
            "go on: decide the held tasks, then bydawn run teapots; or bydawn run teapots --max-at-risk USD, for",
        ),
    ],
)
def test_the_way_on_is_not_the_command_that_a_bound_has_stopped(tmp_path: Path, reason: StopReason, on: str) -> None:
    """MON-3, MON-8: the very same command would be stopped again at once."""
    tell(tmp_path / "l.db", tmp_path)
    said: list[str] = []
    with Reader(tmp_path / "l.db") as reader:
        ended = Ended(reason, 1.0, 0, {})
        say_summary(summarise(reader, 1, ended), ended, reader.batch(1), said.append)
    assert any(line.startswith(on) for line in said), said


def test_where_only_an_account_has_a_budget_the_same_command_goes_on(tmp_path: Path) -> None:
    tell(tmp_path / "l.db", tmp_path)
    said: list[str] = []
    with Reader(tmp_path / "l.db") as reader:
        state = reader.batch(1)
        state = msgspec.structs.replace(state, settings=msgspec.structs.replace(state.settings, budget_microusd=None))
        ended = Ended("budget", 1.0, 0, {})
        say_summary(summarise(reader, 1, ended), ended, state, said.append)
    assert "go on: bydawn run teapots" in said
