"""Every dollar has a line, the lines add up, and every command tells the same ones."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import ImageRequest
from bydawn.buying import Ended
from bydawn.cli.main import main
from bydawn.cli.show import task_lines
from bydawn.moneylines import DOLLARS, Line, Lines, lines_data, stored_lines, told_lines, told_money
from bydawn.summary import say_summary, summarise
from bydawn.verdicts import ABSENT, HELD, IN_DOUBT
from ledger.commands import Decide, Record, TaskCommand
from ledger.events import (
    AbsentEvidence,
    AmbiguousReason,
    AttemptAbsent,
    AttemptAccepted,
    AttemptAdopted,
    AttemptAmbiguous,
    AttemptFailed,
    AttemptLost,
    ResultReady,
    ResultSpared,
    UnknownReason,
)
from ledger.reader import Reader
from ledger.replay import replay_tasks
from runtime.requests import encode_request
from tests.ledger.ledgers import do, live_through, opened, queue
from tests.ledger.lines import by_attempts, dollars_of
from tests.ledger.stories import INTEND, UNKNOWN, bought
from tests.ledger.strategies import stories

TASKS = 3
ACCEPTED = (INTEND, Record(AttemptAccepted(attempt=1, job="j")))
READY = (*ACCEPTED, Record(ResultReady(attempt=1)))
AMBIGUOUS = (INTEND, Record(AttemptAmbiguous(attempt=1, reason="crash")))


def said(capsys: pytest.CaptureFixture[str], *args: str) -> list[dict[str, object]]:
    assert main(list(args)) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@settings(max_examples=25, deadline=None)  # it writes a real ledger
@given(told=st.lists(st.tuples(st.integers(1, TASKS), stories), min_size=1, max_size=4))
def test_the_lines_add_up_and_are_the_sum_over_the_attempts(told: list[tuple[int, list[TaskCommand]]]) -> None:
    """MON-10: status, log, replay, the summary and show read these."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bydawn.db"
        live_through(path, told, tasks=TASKS)
        with Reader(path) as reader:
            tasks = list(replay_tasks(reader.store, 1).values())
            lines = stored_lines(reader.money(), 1)
    wanted = by_attempts(tasks)
    assert dollars_of(dict(lines_data(lines))) == wanted
    each = [task_lines(task) for task in tasks]
    for name, total in lines_data(lines).items():
        assert total == sum(lines_data(line)[name] for line in each), name
    assert lines.spent == lines.images + sum(
        lines_data(lines)[f"{name}_microusd"] for name in ("failed", "surplus", "lost")
    )
    assert min(lines.images, lines.under_way) >= 0


def test_every_command_tells_the_same_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MON-10, MON-9, MON-8: one night with a task on each of the lines."""
    monkeypatch.chdir(tmp_path)
    spared = ResultSpared(attempt=1, sha256="", size=1, media_type="image/png", cost_microusd=40_000)
    charged = AttemptFailed(attempt=1, reason="policy", cost_microusd=65_000)
    found = AttemptAdopted(attempt=1, job="j", evidence="listing")
    stories_told: list[tuple[TaskCommand, ...]] = [
        (INTEND, *bought(1)),
        AMBIGUOUS,
        UNKNOWN,
        (*UNKNOWN, Decide(operator="ann", decision="give_up", attempt=1)),
        (*UNKNOWN, Decide(operator="ann", decision="buy_again", attempt=1), INTEND),
        (*AMBIGUOUS, Record(found)),
        (*READY, Record(spared)),
        (*READY, Record(AttemptLost(attempt=1, reason="expired", cost_microusd=30_000))),
        (*ACCEPTED, Record(charged)),
        (*AMBIGUOUS, Record(AttemptAbsent(attempt=1, evidence="listing"))),
    ]
    with opened(tmp_path / "bydawn.db") as ledger:
        queue(ledger, len(stories_told), text=lambda n: encode_request(ImageRequest(prompt=f"picture {n}"), {}))
        for n, story in enumerate(stories_told, 1):
            do(ledger, n, *story)
        with ledger.reader() as reader:
            tasks = list(replay_tasks(reader.store, 1).values())
            summary = summarise(reader, 1, Ended("interrupted", 1.0, 0, {}))
            state = reader.batch(1)
    wanted = by_attempts(tasks)
    assert wanted.keys() == (DOLLARS.keys() | {"images_microusd", "under_way_microusd"}) - {"duplicates_microusd"}
    (status,) = said(capsys, "status", "--json")
    (logged, *_) = said(capsys, "log", "--json")
    (replayed,) = said(capsys, "replay", "night", "--json")
    for told in (status, logged, replayed, summary.data()):
        assert dollars_of(told) == wanted
        assert {name: told[name] for name in ("at_risk", "decided", "adopted", "surplus", "lost", "overcharges")} == {
            "at_risk": 3,
            "decided": 2,
            "adopted": 1,
            "surplus": 1,
            "lost": 1,
            "overcharges": 1,
        }
    shown = [said(capsys, "show", f"night/#{n}", "--json")[0] for n in range(1, len(stories_told) + 1)]
    for name, total in wanted.items():
        amounts = [line[name] for line in shown]
        assert sum(amount for amount in amounts if isinstance(amount, int)) == total
    # People see them too, each with its dollars, and none that is zero.
    assert main(["status"]) == 0
    for_people = capsys.readouterr().out
    spoken: list[str] = []
    say_summary(summary, Ended("interrupted", 1.0, 0, {}), state, spoken.append)
    for name, text in told_lines(summary.lines):
        assert f"{name:<12}  {text}" in for_people
        assert f"  {name:<12}  {text}" in spoken
    assert [name for name, _ in told_lines(summary.lines)] == [
        *(
            "at risk",
            "ambiguous",
            "held",
            "decided",
            "adopted",
            "failed",
            "surplus",
            "lost",
            "bought twice",
            "overcharge",
        )
    ]


def test_equal_amounts_look_equal_in_one_output() -> None:
    """``$0.60`` stood above ``$0.600``, and a new user looked for the difference."""
    nothing = stored_lines({}, 1)
    lines = nothing._replace(spent=3_460_000, reserved=600_000, held=Line(8, 600_000), adopted=Line(23, 1_541_000))
    assert told_money(lines, 40_000_000) == [
        ("spent", "$3.460 of $40.00"),
        ("reserved", "$0.600"),
        ("held", "$0.600   8  nothing could tell; you decide"),
        ("adopted", "$1.541  23  found again, and not bought again"),
    ]
    dear = lines._replace(spent=1_203_460_000, reserved=0)
    assert told_money(dear)[:3] == [
        ("spent", "$1,203.46"),
        ("reserved", ""),
        ("held", "    $0.60   8  nothing could tell; you decide"),
    ]


def test_a_night_without_doubts_says_nothing_of_them() -> None:
    """MON-10."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bydawn.db"
        with opened(path, tasks=1) as ledger:
            do(ledger, 1, INTEND, *bought(1))
        with Reader(path) as reader:
            lines: Lines = stored_lines(reader.money(), 1)
    assert told_lines(lines) == []
    assert lines.spent == lines.images


def test_every_verdict_has_words() -> None:
    """REC-4, REC-5."""
    assert set(HELD) == set(get_args(UnknownReason))
    assert set(IN_DOUBT) == set(get_args(AmbiguousReason))
    assert set(ABSENT) == set(get_args(AbsentEvidence))


def test_the_reference_names_every_field_and_every_line() -> None:
    """MON-10."""
    page = (Path(__file__).resolve().parents[2] / "docs/reference/lines.md").read_text("utf-8")
    with TemporaryDirectory() as folder, opened(Path(folder) / "bydawn.db", tasks=1) as ledger:
        lines = stored_lines(ledger.reader().money(), 1)
    assert {name for name in lines_data(lines) if f"`{name}`" not in page} == set()
    assert {name for name in DOLLARS.values() if f"\n| {name} |" not in page} == set()
