"""What was done to a ledger behind bydawn's back, and to its images: `verify` exits 13 and names the place.

One night is bought; every test then changes a copy of its ledger with plain SQLite, the triggers dropped, as somebody
would who knows the format, or a file of the results, which is put back.
"""

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ledger.events import TaskCompleted
from ledger.reader import Reader
from ledger.streams import task_stream
from tests.system.shop import Shop, prompts

TASKS = 6


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, market: str) -> Iterator[Shop]:
    """A shop with a finished batch; its ledger is left as it is."""
    with Shop(tmp_path_factory.mktemp("night"), market) as shop:
        done = shop.run("run", shop.table("pots.jsonl", prompts("verified", TASKS)), "--sandbox")
        assert done.code == 0, done.err
        yield shop


@pytest.fixture
def copy(night: Shop, tmp_path: Path) -> Path:
    """A copy of its ledger, with the triggers gone."""
    path = tmp_path / "copy.db"
    with closing(sqlite3.connect(night.ledger)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)
        for (name,) in target.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            target.execute(f"DROP TRIGGER {name}")
        target.commit()
    return path


def tamper(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        assert raw.execute(sql, values).rowcount > 0


def found(shop: Shop, *arguments: str) -> set[tuple[object, object]]:
    """The (code, place) of every problem; the command must exit with 13."""
    done = shop.run("verify", "--json", *arguments)
    assert done.code == 13, (done.out, done.err)
    *problems, verdict = done.json()
    assert verdict["type"] == "verified"
    assert verdict["ok"] is False
    return {(problem["code"], problem["place"]) for problem in problems}


def purchase(path: Path, n: int) -> tuple[int, int]:
    """The seq of a task's intent, and the first seq of the commit it was recorded in."""
    with closing(sqlite3.connect(path)) as raw:
        (seq,) = raw.execute(
            "SELECT seq FROM events WHERE stream = ? AND type = 'task.attempt_intended.v1'", (task_stream(1, n),)
        ).fetchone()
        (before,) = raw.execute("SELECT coalesce(max(seq), 0) FROM commits WHERE seq < ?", (seq,)).fetchone()
    return int(seq), int(before) + 1


def broken_commit(places: set[tuple[object, object]], first: int) -> str:
    """The place of the one break in the chain, which must begin with event ``first``."""
    (place,) = (str(place) for code, place in places if code == "chain")
    assert place.startswith((f"event {first} (", f"events {first}-")), place
    return place


def test_an_untouched_copy_is_in_order(night: Shop, copy: Path) -> None:
    done = night.run("verify", "--ledger", str(copy))
    assert done.code == 0, done.out
    assert f"{TASKS} files hashed" in done.out


def test_one_byte_of_one_event(night: Shop, copy: Path) -> None:
    """LED-8: a price raised by one micro-dollar, in the event and nowhere else."""
    seq, first = purchase(copy, 2)
    with closing(sqlite3.connect(copy)) as raw:
        (data,) = raw.execute("SELECT data FROM events WHERE seq = ?", (seq,)).fetchone()
    at = data.index('"body_digest":"') + len('"body_digest":"')
    changed = data[:at] + ("0" if data[at] != "0" else "1") + data[at + 1 :]
    tamper(copy, "UPDATE events SET data = ? WHERE seq = ?", changed, seq)
    assert "task-1-" in broken_commit(found(night, "--ledger", str(copy)), first)
    told = night.run("verify", "--no-files", "--ledger", str(copy))
    assert told.code == 13
    assert "an event of this commit was changed, removed, added or moved" in told.out


def test_two_swapped_events(night: Shop, copy: Path) -> None:
    """LED-2, LED-8: two purchases change places."""
    (one, first), (two, second) = purchase(copy, 1), purchase(copy, 2)
    for was, becomes in ((one, -1), (two, one), (-1, two)):
        tamper(copy, "UPDATE events SET seq = ? WHERE seq = ?", becomes, was)
    broken = [str(place) for code, place in found(night, "--ledger", str(copy)) if code == "chain"]
    assert len(broken) == len({first, second})  # one commit may hold both
    for begin in {first, second}:
        assert any(place.startswith((f"event {begin} (", f"events {begin}-")) for place in broken), broken


def test_a_removed_row_in_the_middle(night: Shop, copy: Path) -> None:
    """LED-2, LED-8: the hole in the ledger, the hole in the stream, and the commit are all named."""
    seq, first = purchase(copy, 3)
    tamper(copy, "DELETE FROM events WHERE seq = ?", seq)
    places = found(night, "--ledger", str(copy))
    assert ("seq", f"event {seq}") in places
    assert any(code == "version" and str(place).endswith("(task-1-3)") for code, place in places)
    broken_commit(places, first)


def test_removed_last_rows_are_missed_by_the_views(night: Shop, copy: Path) -> None:
    """LED-4: cut with their commits, so that the chain itself is whole again."""
    with closing(sqlite3.connect(copy)) as raw:
        seq, stream = raw.execute(
            "SELECT seq, stream FROM events WHERE type = 'task.completed.v1' ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        (before,) = raw.execute("SELECT max(seq) FROM commits WHERE seq < ?", (seq,)).fetchone()
    tamper(copy, "DELETE FROM events WHERE seq > ?", before)
    tamper(copy, "DELETE FROM commits WHERE seq > ?", before)
    places = found(night, "--no-files", "--ledger", str(copy))
    assert ("views", f"tasks: task-1-{stream - task_stream(1, 0)}") in places
    assert ("books", "batch/1") in places
    assert {code for code, _ in places} == {"views", "books"}
    told = night.run("verify", "--no-files", "--ledger", str(copy))
    assert "or the last events were cut off" in told.out
    head = str(night.output("pots") / "sealed-head.json")
    assert any(code == "head" for code, _ in found(night, "--no-files", "--against", head, "--ledger", str(copy)))


def test_a_changed_row_of_a_view(night: Shop, copy: Path) -> None:
    """MON-10: a cheaper task, in the view alone."""
    tamper(copy, "UPDATE tasks SET cost_microusd = cost_microusd - 1 WHERE stream = ?", task_stream(1, 4))
    assert found(night, "--ledger", str(copy)) == {("views", "tasks: task-1-4")}
    assert "cost_microusd is " in night.run("verify", "--no-files", "--ledger", str(copy)).out


def test_a_changed_text(night: Shop, copy: Path) -> None:
    """SEC-8: the prompt of a task is another; the event that names it is told."""
    with closing(sqlite3.connect(copy)) as raw:
        seq, row = raw.execute(
            "SELECT seq, json_extract(data, '$.request.row') FROM events WHERE stream = ? AND version = 1",
            (task_stream(1, 5),),
        ).fetchone()
    tamper(copy, "UPDATE payloads SET text = replace(text, 'picture', 'painting') WHERE row = ?", row)
    assert found(night, "--ledger", str(copy)) == {("payload", f"event {seq} (task-1-5)")}


# --- images -----------------------------------------------------------------------------------------------


def image(shop: Shop, n: int) -> Path:
    """The file that a task's image is stored in."""
    with Reader(shop.ledger) as reader:
        (digest,) = (
            entry.event.sha256
            for entry in reader.events(stream=task_stream(1, n))
            if isinstance(entry.event, TaskCompleted)
        )
    return shop.output("pots") / "blobs" / digest[:2] / digest


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """Put a file back in the end, as the very same file, which it shares with the image's name."""
    aside = path.with_name("aside")
    aside.hardlink_to(path)
    data, mode = path.read_bytes(), path.stat().st_mode
    try:
        yield
    finally:
        aside.chmod(0o600)
        aside.write_bytes(data)
        aside.chmod(mode)
        aside.replace(path)
        aside.unlink(missing_ok=True)  # where both are the same file still, replacing did nothing


def test_a_removed_image(night: Shop) -> None:
    """RES-1."""
    path = image(night, 1)
    with kept(path):
        path.unlink()
        assert found(night, "--sandbox") == {("file", str(path))}
        told = night.run("verify", "--sandbox").out
        assert re.search(rf"{path}: is missing \(event \d+, task 1\)", told), told
    assert night.run("verify", "--sandbox").code == 0


def test_an_image_of_another_task_in_its_place(night: Shop) -> None:
    """RES-1: a valid image, and the wrong one."""
    path = image(night, 1)
    with kept(path):
        path.unlink()
        shutil.copyfile(image(night, 2), path)
        assert found(night, "--sandbox") == {("file", str(path))}


def test_one_changed_byte_of_an_image(night: Shop) -> None:
    """RES-1: of the same size, so only its hash tells."""
    path = image(night, 3)
    with kept(path):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o600)
        path.write_bytes(data)
        assert found(night, "--sandbox") == {("file", str(path))}
        assert "hashes to" in night.run("verify", "--sandbox").out


def test_a_removed_name_is_missed_and_the_next_run_puts_it_back(night: Shop) -> None:
    """RES-7: what people see under images/ is promised too."""
    folder = night.output("pots")
    name = next(folder / row["file"] for row in map(json.loads, (folder / "manifest.jsonl").read_text().splitlines()))
    name.unlink()
    assert found(night, "--sandbox") == {("file", str(name))}
    again = night.run("run", "pots", "--sandbox")
    assert again.code == 0, again.err
    assert night.run("verify", "--sandbox").code == 0


# --- an older copy of everything --------------------------------------------------------------------------


def test_an_older_copy_is_whole_in_itself_and_only_a_sealed_head_tells(shop: Shop, tmp_path: Path) -> None:
    """REC-10: nothing inside a ledger can say that it once was longer."""
    table = shop.table("pots.jsonl", prompts("older copy", 4))
    assert shop.run("run", table, "--sandbox", "--limit", "2").code == 0
    older = tmp_path / "older.db"
    with closing(sqlite3.connect(shop.ledger)) as source, closing(sqlite3.connect(older)) as target:
        source.backup(target)
    assert shop.run("run", table, "--sandbox").code == 0
    head = str(tmp_path / "head.json")
    assert shop.run("verify", "--sandbox", "--seal", head).code == 0

    assert shop.run("verify", "--sandbox", "--against", head).code == 0
    assert shop.run("verify", "--ledger", str(older)).code == 0
    ((code, place),) = found(shop, "--ledger", str(older), "--against", head)
    assert code == "head"
    assert str(place).startswith("event ")
