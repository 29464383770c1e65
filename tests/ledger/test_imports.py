"""Staging and importing: ids, repeats, sharing, and imports that were killed half-way."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.audit import verify
from ledger.commands import Fail
from ledger.decisions import Append, Decision
from ledger.errors import LedgerError
from ledger.events import BatchOpened, BatchSealed, ImportDropped, ImportOpened
from ledger.imports import Imported, NewTask, Repeated
from ledger.journal import Ledger
from ledger.streams import batch_stream
from tests.ledger.ledgers import do, opened


def row(n: int, *, row_id: str = "", given: bool = True, ask: str = "", suffix: str = "") -> NewTask:
    return NewTask(
        row=row_id or f"row-{n}",
        given=given,
        suffix=suffix,
        request=f'{{"prompt":"picture {ask or n}"}}',
        request_key=(ask or str(n)).encode().rjust(16, b"."),
        model="nano-banana-2",
        aspect="1:1",
        resolution="1K",
        references=0,
        variant=1,
        line=n,
    )


def new_batch(path: Path) -> Ledger:
    ledger = opened(path)
    event = BatchOpened(name="night", folder="night", sandbox=True, operator="ann")
    ledger.commit([Decision(appends=(Append(batch_stream(1), 0, (event,)),), at_us=2)])
    return ledger


def take(ledger: Ledger, rows: list[NewTask], *, digest: str = "d1", share: bool = True) -> Imported:
    ledger.stage(1, rows, input_digest=digest)
    return ledger.import_staged(1, source="rows.csv", input_digest=digest, at_us=3, share=share)


def ids(ledger: Ledger) -> list[str]:
    with ledger.reader() as reader:
        return [task.id for task in reader.tasks(1, limit=1000)]


def owners(ledger: Ledger) -> dict[str, int]:
    with ledger.reader() as reader:
        return {task.id: task.owner for task in reader.tasks(1, limit=1000) if task.owner}


def batch_events(ledger: Ledger) -> list[type]:
    with ledger.reader() as reader:
        return [type(entry.event) for entry in reader.events(stream=batch_stream(1))]


def test_rows_become_tasks_in_input_order_behind_a_seal(tmp_path: Path) -> None:
    """LED-11."""
    with new_batch(tmp_path / "bydawn.db") as ledger:
        seen: list[tuple[int, int]] = []
        staged = ledger.stage(None, (row(n) for n in range(1, 8)))
        assert (staged.total, staged.new, staged.known, staged.shared) == (7, 7, 0, 0)
        done = ledger.import_staged(
            1, source="s", input_digest="d1", at_us=3, share=True, progress=lambda n, of: seen.append((n, of))
        )
        assert (done.added, done.resumed, seen) == (7, False, [(7, 7)])
        assert ids(ledger) == [f"row-{n}" for n in range(1, 8)]
        assert batch_events(ledger) == [BatchOpened, ImportOpened, BatchSealed]
        with ledger.reader() as reader:
            assert [task.request for task in reader.queued(1, limit=1)] == ['{"prompt":"picture 1"}']
            assert {count.state: count.n for count in reader.counts(1)} == {"queued": 7}


def test_repeated_rows_without_an_id_are_told_apart_and_share_one_purchase(tmp_path: Path) -> None:
    rows = [row(n, row_id="k1", given=False, ask="same", suffix=".v1") for n in (1, 2)]
    with new_batch(tmp_path / "bydawn.db") as ledger:
        staged = ledger.stage(1, [*rows, row(3), row(4, row_id="k1", given=False, ask="same", suffix=".v1")])
        assert (staged.shared, staged.duplicates_count) == (2, 0)
        assert ledger.import_staged(1, source="s", input_digest="d", at_us=3, share=True).shared == 2
        assert ids(ledger) == ["k1.v1", "k1-2.v1", "row-3", "k1-3.v1"]
        assert owners(ledger) == {"k1-2.v1": 1, "k1-3.v1": 1}
        with ledger.reader() as reader:
            assert [task.n for task in reader.queued(1)] == [1, 3]


def test_sharing_may_be_off(tmp_path: Path) -> None:
    with new_batch(tmp_path / "bydawn.db") as ledger:
        assert take(ledger, [row(1, ask="a"), row(2, ask="a")], share=False).shared == 0
        assert owners(ledger) == {}


def test_a_given_id_that_repeats_is_a_problem_with_its_lines(tmp_path: Path) -> None:
    with new_batch(tmp_path / "bydawn.db") as ledger:
        rows = [row(1), row(2, row_id="x"), row(3, row_id="y"), row(4, row_id="x"), row(5, row_id="y")]
        staged = ledger.stage(1, rows)
        assert staged.duplicates_count == 2
        assert staged.duplicates == (Repeated("x", (2, 4)), Repeated("y", (3, 5)))
        with pytest.raises(LedgerError):
            ledger.import_staged(1, source="s", input_digest="d", at_us=3, share=True)
        assert batch_events(ledger) == [BatchOpened]


def test_an_id_made_by_counting_that_was_given_too_is_a_problem(tmp_path: Path) -> None:
    with new_batch(tmp_path / "bydawn.db") as ledger:
        rows = [row(1, row_id="a", given=False), row(2, row_id="a-2"), row(3, row_id="a", given=False)]
        assert ledger.stage(1, rows).duplicates == (Repeated("a-2", (2, 3)),)


def test_a_second_import_adds_what_is_new_and_names_what_changed_or_is_gone(tmp_path: Path) -> None:
    with new_batch(tmp_path / "bydawn.db") as ledger:
        take(ledger, [row(n) for n in range(1, 5)])
        rows = [row(9, ask="3"), row(1), row(2, ask="other"), row(8, ask="8"), row(7, ask="8"), row(3)]
        staged = ledger.stage(1, rows, input_digest="d2")
        assert (staged.total, staged.new, staged.known, staged.missing) == (6, 3, 3, 1)
        assert (staged.changed_count, staged.changed) == (1, ("row-2",))
        assert ledger.missing(1) == [4]
        done = ledger.import_staged(1, source="s", input_digest="d2", at_us=4, share=True)
        assert (done.number, done.added, done.shared) == (2, 3, 2)
        assert ids(ledger) == ["row-1", "row-2", "row-3", "row-4", "row-9", "row-8", "row-7"]
        # row-9 asks for what task 3 buys; row-7 for what row-8, new itself, buys.
        assert owners(ledger) == {"row-9": 3, "row-7": 6}
        assert take(ledger, rows, digest="d2").number == 0


def test_a_second_import_shares_with_the_first_although_no_id_is_known(tmp_path: Path) -> None:
    with new_batch(tmp_path / "a.db") as ledger:
        take(ledger, [row(1), row(2)])
        take(ledger, [row(1, suffix=".1:1"), row(1, suffix=".9:16", ask="tall")], digest="d2")
        assert ids(ledger) == ["row-1", "row-2", "row-1.1:1", "row-1.9:16"]
        assert owners(ledger) == {"row-1.1:1": 1}


def test_a_new_row_never_follows_a_task_that_failed(tmp_path: Path) -> None:
    with new_batch(tmp_path / "bydawn.db") as ledger:
        take(ledger, [row(1)])
        do(ledger, 1, Fail(reason="input_changed"))
        take(ledger, [row(1), row(2, ask="1")], digest="d2")
        assert owners(ledger) == {}


class Killed(Exception):
    """Stands for the end of the process between two transactions."""


def die(_done: int, _to_do: int) -> None:
    raise Killed


def killed_import(path: Path, rows: list[NewTask]) -> None:
    """Leave an import behind that wrote one page of tasks and no seal."""
    with new_batch(path) as ledger:
        ledger.stage(1, rows, input_digest="d1")
        with pytest.raises(Killed):
            ledger.import_staged(1, source="s", input_digest="d1", at_us=3, share=True, progress=die, page=3)


def test_a_killed_import_of_the_same_input_goes_on(tmp_path: Path) -> None:
    """LED-11, LIVE-2."""
    path = tmp_path / "bydawn.db"
    rows = [row(n) for n in range(1, 8)] + [row(8, ask="2")]
    killed_import(path, rows)
    with opened(path) as ledger:
        assert ids(ledger) == []
        staged = ledger.stage(1, rows, input_digest="d1")
        assert (staged.known, staged.new) == (3, 5)
        done = ledger.import_staged(1, source="s", input_digest="d1", at_us=4, share=True)
        assert (done.resumed, done.added, done.dropped) == (True, 5, 0)
        assert ids(ledger) == [f"row-{n}" for n in range(1, 9)]
        assert owners(ledger) == {"row-8": 2}
        assert batch_events(ledger) == [BatchOpened, ImportOpened, BatchSealed]


def test_a_killed_import_of_another_input_is_dropped_as_an_event(tmp_path: Path) -> None:
    """LED-1, LED-11: its tasks never count, and their numbers are not used again."""
    path = tmp_path / "bydawn.db"
    killed_import(path, [row(n) for n in range(1, 8)])
    with opened(path) as ledger:
        rows = [row(2), row(11)]
        staged = ledger.stage(1, rows, input_digest="d2")
        assert (staged.known, staged.new, staged.missing) == (0, 2, 0)
        done = ledger.import_staged(1, source="s", input_digest="d2", at_us=4, share=True)
        assert (done.number, done.dropped, done.added) == (2, 3, 2)
        assert batch_events(ledger) == [BatchOpened, ImportOpened, ImportDropped, ImportOpened, BatchSealed]
        with ledger.reader() as reader:
            assert [(task.n, task.id) for task in reader.tasks(1)] == [(4, "row-2"), (5, "row-11")]
            assert {count.state: count.n for count in reader.counts(1)} == {"queued": 2}
    assert verify(path).ok


def test_an_input_that_breaks_off_leaves_nothing_staged(tmp_path: Path) -> None:
    def broken() -> Iterator[NewTask]:
        yield row(1)
        raise Killed

    with new_batch(tmp_path / "bydawn.db") as ledger:
        with pytest.raises(Killed):
            ledger.stage(1, broken())
        assert take(ledger, [row(1), row(2)]).added == 2
