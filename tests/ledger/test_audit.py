"""What ``verify`` finds, and where it says it is."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from ledger.audit import SealedHead, check_against, export_head, verify
from ledger.audit_chain import audit_chain_of
from ledger.commands import Record, Review
from ledger.decisions import Append, Committed, Decision
from ledger.errors import LedgerDamaged, LedgerMissing
from ledger.events import AccountOpened, AttemptAccepted, BreakerChanged, EpochEnded, LimiterSaved, ResultReady
from ledger.journal import Ledger
from ledger.streams import account_stream, runtime_stream
from tests.ledger.ledgers import decision, do, opened
from tests.ledger.stories import INTEND, UNKNOWN, bought


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed ledger with a finished, a held and a queued task, an account and an ended epoch."""
    path = tmp_path / "bydawn.db"
    with opened(path, tasks=3) as ledger:
        do(ledger, 1, INTEND, *bought(1), Review(version=1, verdict="rejected", operator="ann"))
        do(ledger, 2, *UNKNOWN)
        account = (
            AccountOpened(name="kie", provider="kie", fingerprint="f"),
            LimiterSaved(lane="default", concurrency=4),
            BreakerChanged(lane="default", state="open"),
        )
        ended = (EpochEnded(stopped_by="done", exit_code=3, batch=1),)
        (outcome,) = ledger.commit(
            [Decision(appends=(Append(account_stream(1), 0, account), Append(runtime_stream(), 1, ended)), at_us=9)]
        )
        assert isinstance(outcome, Committed)
    return path


def tamper(path: Path, *statements: str) -> None:
    """Change the file behind the back of bydawn, triggers removed."""
    with closing(sqlite3.connect(path)) as raw:
        for name in ("events", "commits"):
            raw.execute(f"DROP TRIGGER IF EXISTS {name}_are_never_changed")
            raw.execute(f"DROP TRIGGER IF EXISTS {name}_are_never_removed")
        for statement in statements:
            assert raw.execute(statement).rowcount > 0, statement
        raw.commit()


def test_an_honest_ledger_is_in_order(path: Path) -> None:
    """LED-8, REC-1: also beside a handle that writes."""
    seen: list[int] = []
    report = verify(path, seen.append, together=5)
    assert (report.ok, report.problems) == (True, ())
    assert seen == [5, 10, 15]
    assert verify(path, together=7) == report
    assert report.events == report.seq
    with Ledger.create_or_open(path, create=False):
        assert verify(path).head == report.head


@pytest.mark.parametrize(
    ("statements", "code", "place"),
    [
        # Event 8 is the intent of task 1: a digit of its price, one byte.
        (["UPDATE events SET data = replace(data, '60000', '60001') WHERE seq = 8"], "chain", "event 8 (task-1-1)"),
        (["UPDATE events SET at_us = at_us + 1 WHERE seq = 9"], "chain", "event 9 (task-1-1)"),
        (["UPDATE events SET key = x'00' WHERE seq = 9"], "chain", "event 9 (task-1-1)"),
        (["UPDATE events SET epoch = 0 WHERE seq = 9"], "epoch", "event 9 (task-1-1)"),
        # Two tasks queued in one commit change places.
        (
            [
                "UPDATE events SET seq = 1000 WHERE seq = 4",
                "UPDATE events SET seq = 4 WHERE seq = 5",
                "UPDATE events SET seq = 5 WHERE seq = 1000",
            ],
            "chain",
            "events 2-7 (batch-1, task-1-2, task-1-1 and 1 more)",
        ),
        (["DELETE FROM events WHERE seq = 9"], "seq", "event 9"),
        (["DELETE FROM events WHERE seq = 9"], "chain", "event 9"),
        (["DELETE FROM events WHERE seq = 9"], "version", "event 10 (task-1-1)"),
        (["DELETE FROM events WHERE seq >= 16"], "chain", "events 16-19"),
        # Cut cleanly, with its commit: only the views still tell.
        (["DELETE FROM events WHERE seq >= 16", "DELETE FROM commits WHERE seq >= 16"], "views", "epochs: 1"),
        (
            ["DELETE FROM commits WHERE seq = (SELECT max(seq) FROM commits)"],
            "chain",
            "events 16-19 (account-1, runtime)",
        ),
        (
            ["INSERT INTO events SELECT 1000, stream, version + 9, epoch, at_us, type, NULL, data FROM events LIMIT 1"],
            "seq",
            "event 20",
        ),
        (["UPDATE events SET type = 'task.unheard_of.v9' WHERE seq = 9"], "event", "event 9 (task-1-1)"),
        (["UPDATE events SET stream = 5 WHERE seq = 9"], "event", "event 9 (stream 5)"),
        (["UPDATE events SET type = 'batch.cancelled.v1' WHERE seq = 9"], "event", "event 9 (task-1-1)"),
        (["UPDATE tasks SET phase = 'succeeded' WHERE phase = 'held'"], "views", "tasks: task-1-2"),
        (["DELETE FROM open_attempts"], "views", "open_attempts: task-1-2, 1"),
        (["UPDATE money SET captured = captured + 1 WHERE account = 'batch/1'"], "books", "batch/1"),
        (["UPDATE money SET reserved = -1 WHERE account = 'batch/1'"], "books", "batch/1"),
        (["DELETE FROM money WHERE account = 'batch/1'"], "books", "batch/1"),
        (["UPDATE money SET reserved = 0 WHERE account = 'held/1'"], "views", "money: held/1"),
        (["DELETE FROM money WHERE account = 'held/1'"], "views", "money: held/1"),
        (["UPDATE payloads SET text = 'another picture' WHERE row = 3"], "payload", "event 6 (task-1-3)"),
        (["DELETE FROM payloads WHERE row = 3"], "payload", "event 6 (task-1-3)"),
        (["UPDATE payloads SET text = NULL WHERE row = 3"], "payload", "event 6 (task-1-3)"),  # not as erasing does it
        (["UPDATE payloads SET text = CAST(x'ff' AS TEXT) WHERE row = 3"], "payload", "event 6 (task-1-3)"),
        # No texts at all, and still the row is named.
        (["UPDATE tasks SET id = CAST(x'6Dff' AS TEXT) WHERE id = 'row-2'"], "views", "tasks: task-1-2"),
        (["UPDATE batches SET name = CAST(x'ff' AS TEXT)"], "views", "batches: 1"),
        (["UPDATE money SET account = CAST(x'ff' AS TEXT) WHERE account = 'batch/1'"], "views", "money: batch/1"),
        (["UPDATE meta SET value = CAST(x'ff' AS TEXT) WHERE name = 'ledger_id'"], "chain", "event 1 (runtime)"),
        # Rows of tasks that no event speaks of, before, between and behind the others; and one that is gone.
        (
            ["INSERT INTO tasks SELECT 5, 1, phase, '', '', 0, 0, 1, 0, 0, '', '', 0, 0, id FROM tasks LIMIT 1"],
            "views",
            "tasks: stream 5",
        ),
        (["UPDATE tasks SET stream = stream + 1 WHERE id = 'row-3'"], "views", "tasks: task-1-4"),
        (["DELETE FROM tasks WHERE id = 'row-3'"], "views", "tasks: task-1-3"),
        (["DELETE FROM lanes"], "views", "lanes: 1, default"),
        (["UPDATE counts SET n = n + 1 WHERE state = 'held'"], "views", "counts: 1, held, kie"),
        (["INSERT INTO counts VALUES (1, 'failed', 'kie', 1)"], "views", "counts: 1, failed, kie"),
        (["DELETE FROM events WHERE seq = 4", "DELETE FROM tasks WHERE id = 'row-1'"], "version", "event 8 (task-1-1)"),
        (["UPDATE events SET data = '{}' WHERE seq = 4"], "event", "event 4 (task-1-1)"),
    ],
)
def test_tampering_is_found_and_its_place_named(path: Path, statements: list[str], code: str, place: str) -> None:
    """LED-2, LED-6, LED-8, MON-10."""
    tamper(path, *statements)
    report = verify(path)
    assert not report.ok
    assert (code, place) in {(problem.code, problem.place) for problem in report.problems}
    assert report.counts[code] >= 1


def test_one_changed_byte_of_any_event_breaks_its_commit(path: Path) -> None:
    """LED-8: whatever it makes of the event, also when it can no longer be read."""
    with closing(sqlite3.connect(path)) as raw:
        events = raw.execute("SELECT seq, data FROM events ORDER BY seq").fetchall()
        commits = [seq for (seq,) in raw.execute("SELECT seq FROM commits ORDER BY seq")]
    for seq, data in events:
        at = seq * 7 % len(data)
        tamper(
            path, f"UPDATE events SET data = substr(data, 1, {at}) || '~' || substr(data, {at + 2}) WHERE seq = {seq}"
        )
        (place,) = (problem.place for problem in verify(path).problems if problem.code == "chain")
        last = min(commit for commit in commits if commit >= seq)
        assert re.match(rf"events \d+-{last} \(|event {last} \(", place), (seq, place)
        with closing(sqlite3.connect(path)) as raw, raw:
            raw.execute("UPDATE events SET data = ? WHERE seq = ?", (data, seq))
    assert verify(path).ok


def test_a_changed_row_of_a_view_is_told_column_by_column(path: Path) -> None:
    tamper(path, "UPDATE tasks SET phase = 'succeeded', attempts = 7 WHERE id = 'row-2'")
    (problem,) = verify(path).problems
    assert problem.text == "phase is 'succeeded', the events say 'held'; attempts is 7, the events say 1"


def test_a_total_of_nothing_may_be_on_record_or_not(path: Path) -> None:
    tamper(path, "INSERT INTO money VALUES ('lane/x/y', 0, 0, 0)", "DELETE FROM counts WHERE n = 0")
    assert verify(path).ok


def test_a_second_process_finds_the_same(path: Path) -> None:
    """LED-8: the chain and the texts are checked on another core when the ledger is large."""
    assert verify(path, large=1) == verify(path)
    with closing(sqlite3.connect(path)) as raw:
        (ledger_id,) = raw.execute("SELECT value FROM meta WHERE name = 'ledger_id'").fetchone()
    events, findings = audit_chain_of(path, ledger_id, through=19)  # what it is given to do
    assert (events, findings.named) == (19, [])
    tamper(path, "UPDATE events SET at_us = 3 WHERE seq = 9", "DELETE FROM payloads WHERE row = 3")
    assert verify(path, large=1) == verify(path)
    assert verify(path).counts.keys() >= {"chain", "payload"}


@pytest.mark.parametrize("row", ["url", "upload"])
def test_every_text_is_held_against_its_event(path: Path, row: str) -> None:
    """Addresses of results and of uploaded references as well as requests; an erased one is no problem (SEC-8)."""
    with opened(path) as ledger:
        texts = {name: ledger.payload(f"https://files.example/{name}.png") for name in ("url", "upload")}
        bought_now = replace(INTEND, uploads=(texts["upload"][0],))
        ready = Record(ResultReady(attempt=1, cost_microusd=1, url=texts["url"][0]))
        accepted = Record(AttemptAccepted(attempt=1, job="job-3"))
        decisions = [decision(ledger, 3, bought_now)]
        (outcome,) = ledger.commit([replace(decisions[0], payloads=tuple(text for _, text in texts.values()))])
        assert isinstance(outcome, Committed)
        do(ledger, 3, accepted, ready)
    assert verify(path).ok
    number = texts[row][0].row
    tamper(path, f"UPDATE payloads SET text = 'https://elsewhere.example/' WHERE row = {number}")
    (problem,) = verify(path).problems
    seq = {"upload": 20, "url": 22}[row]
    assert (problem.code, problem.place) == ("payload", f"event {seq + 1} (task-1-3)")
    tamper(path, f"UPDATE payloads SET text = NULL, salt = NULL WHERE row = {number}")
    assert verify(path).ok


def test_one_break_in_the_chain_is_one_problem(path: Path) -> None:
    tamper(path, "UPDATE events SET at_us = at_us + 1 WHERE seq = 9")
    assert verify(path).counts["chain"] == 1


def test_events_out_of_their_walk_are_named(path: Path) -> None:
    """MON-2, LED-11: whoever makes the chain whole again still cannot hide them."""
    with closing(sqlite3.connect(path)) as raw:
        (accepted,) = raw.execute("SELECT data FROM events WHERE seq = 9").fetchone()
    # The acceptance happens twice; the intent of task 2 comes before the seal that is gone.
    tamper(
        path,
        f"UPDATE events SET type = 'task.attempt_accepted.v1', data = '{accepted}' WHERE seq = 10",
        "UPDATE events SET type = 'batch.cancelled.v1', data = '{\"operator\":\"x\"}' WHERE type = 'batch.sealed.v1'",
    )
    texts = [problem.text for problem in verify(path).problems if problem.code == "transition"]
    assert "task.attempt_accepted.v1: attempt 1 is accepted" in texts
    assert "bought before its import was sealed (LED-11)" in texts


def test_a_sealed_head_proves_what_a_later_ledger_must_contain(path: Path) -> None:
    """LED-8, REC-10."""
    sealed = export_head(path)
    assert check_against(path, sealed) is None
    with opened(path) as ledger:
        do(ledger, 3, INTEND)
    assert check_against(path, sealed) is None
    later = export_head(path)
    tamper(path, "DELETE FROM events WHERE seq > 19", "DELETE FROM commits WHERE seq > 19")
    for head, words in (
        (later, "restored or cut"),
        (SealedHead(sealed.ledger_id, sealed.seq, "00"), "another history"),
        (SealedHead(sealed.ledger_id, 18, "00"), "another history"),
        (SealedHead("other", 1, "00"), "is of ledger other"),
    ):
        problem = check_against(path, head)
        assert problem is not None
        assert words in problem.text


def write_text(path: Path) -> None:
    path.write_text("this is a shopping list, not a database, and long enough for a header of one" * 3)


def write_foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE recipes (name TEXT)")


@pytest.mark.parametrize("write", [write_text, write_foreign])
def test_what_is_no_ledger_is_said_to_be_none(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "bydawn.db"
    with pytest.raises(LedgerMissing):
        verify(path)
    write(path)
    with pytest.raises(LedgerDamaged):
        verify(path)
    with pytest.raises(LedgerDamaged):
        Ledger.create_or_open(path, create=False)


def test_a_schema_that_is_no_text_is_damage(path: Path) -> None:
    """SQLite quotes it in its message, which the driver then cannot decode."""
    data = bytearray(path.read_bytes())
    data[data.index(b"events_are_never_changed BEFORE")] ^= 0x80
    path.write_bytes(data)
    with pytest.raises(LedgerDamaged):
        verify(path)
