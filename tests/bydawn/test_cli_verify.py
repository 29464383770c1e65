"""``verify`` finds what is missing, changed or added, names the place and exits 13."""

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bydawn.cli.main import main
from bydawn.manifest import write_outputs
from ledger.reader import Reader
from runtime.disk import RealDisk
from tests.bydawn.a_night import tell


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    tell(folder / "bydawn.db", folder)
    with Reader(folder / "bydawn.db") as reader:
        write_outputs(reader, 1, RealDisk())  # as a run does in the end: it also links the names of images
    return folder


@pytest.fixture
def night(told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy to break; its batch still points at the images of the original, so they are put back."""
    blob = next(told.glob("teapots/blobs/*/*"))
    kept = blob.read_bytes()
    shutil.copy(told / "bydawn.db", tmp_path / "bydawn.db")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    blob.unlink(missing_ok=True)
    blob.write_bytes(kept)
    shutil.rmtree(told / "teapots" / "images")
    with Reader(told / "bydawn.db") as reader:
        write_outputs(reader, 1, RealDisk())


def verified(*args: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, object]]]:
    code = main(["verify", "--json", *args])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_good_night_agrees(night: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify"]) == 0
    assert "all agrees" in capsys.readouterr().out
    code, (summary,) = verified("teapots", capsys=capsys)
    assert code == 0
    assert (summary["ok"], summary["files"], summary["problems"]) == (True, 2, 0)


def test_a_missing_image_is_named(told: Path, night: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blob = next(told.glob("teapots/blobs/*/*"))
    blob.unlink()
    code, lines = verified(capsys=capsys)
    assert code == 13
    assert [line["text"] for line in lines[:-1]] == ["is missing", "is missing"]
    assert lines[0]["place"] == str(blob)
    assert main(["verify", "--no-files"]) == 0


@pytest.mark.parametrize("change", [lambda old: old[:-1], lambda old: old[:-1] + b"?"], ids=["cut", "changed"])
def test_a_changed_image_is_found(told: Path, night: Path, change: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(change)
    blob = next(told.glob("teapots/blobs/*/*"))
    blob.write_bytes(change(blob.read_bytes()))
    assert main(["verify"]) == 13
    assert str(blob) in capsys.readouterr().out


@pytest.mark.parametrize("name", ["red", "blue", "red-again"])
@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_the_name_of_an_image_is_looked_at(
    told: Path, night: Path, name: str, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """RES-7: an image that people see under its name, also one that was bought for another task."""
    path = told / "teapots" / "images" / f"{name}.png"
    path.unlink()
    if change == "replaced":
        path.write_bytes(b"a retouched picture")
    code, lines = verified(capsys=capsys)
    assert code == 13
    assert [(line["code"], line["place"]) for line in lines[:-1]] == [("file", str(path))]
    assert main(["verify"]) == 13
    assert "bydawn run BATCH puts back" in capsys.readouterr().out


def test_a_copy_under_the_name_is_as_good_as_a_link(told: Path, night: Path) -> None:
    path = told / "teapots" / "images" / "red.png"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    assert main(["verify"]) == 0


def test_a_changed_event_is_found(night: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(night / "bydawn.db") as tampered:
        tampered.execute("DROP TRIGGER events_are_never_changed")
        tampered.execute("UPDATE events SET data = replace(data, '60000', '10000') WHERE type = 'task.completed.v1'")
    tampered.close()
    code, lines = verified(capsys=capsys)
    assert code == 13
    assert {"chain", "books"} <= {line.get("code") for line in lines}


@pytest.mark.parametrize("column", ["type", "data"])
@pytest.mark.parametrize("flip", [0x01, 0x80], ids=["another letter", "no text at all"])
@pytest.mark.parametrize("place", [0, 10, -1])
def test_one_byte_of_an_event_is_found_and_its_commit_named(
    night: Path, column: str, place: int, flip: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """LED-8: also where the event can no longer be read, is no JSON, or no UTF-8."""
    with closing(sqlite3.connect(night / "bydawn.db")) as whole:
        seqs = [seq for (seq,) in whole.execute("SELECT seq FROM events")]
    for seq in seqs[place % 4 :: 4]:
        shutil.copy(night / "bydawn.db", night / "changed.db")
        with closing(sqlite3.connect(night / "changed.db")) as tampered:
            tampered.execute("DROP TRIGGER events_are_never_changed")
            (old,) = tampered.execute(f"SELECT CAST({column} AS BLOB) FROM events WHERE seq = ?", (seq,)).fetchone()
            new = bytearray(old)
            new[place] ^= flip
            tampered.execute(f"UPDATE events SET {column} = CAST(? AS TEXT) WHERE seq = ?", (bytes(new), seq))
            tampered.commit()
        code, lines = verified("--ledger", str(night / "changed.db"), capsys=capsys)
        assert code == 13, (seq, lines)
        places = [str(line["place"]) for line in lines if line.get("code") == "chain"]
        commits = [found for text in places if (found := re.match(r"events? (\d+)(?:-(\d+))?", text))]
        assert [found for found in commits if int(found[1]) <= seq <= int(found[2] or found[1])], (seq, lines)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET stream = 123 WHERE type = 'task.completed.v1' AND seq < 20",
        "UPDATE events SET data = json_set(data, '$.sha256', 'a' || char(0)) WHERE type = 'task.completed.v1'",
        "UPDATE events SET data = replace(data, 'image/png', 'image/pnf') WHERE type = 'task.completed.v1'",
        "UPDATE batches SET name = CAST(x'ff' AS TEXT)",
    ],
    ids=["no stream", "no path", "no image", "no text"],
)
def test_what_cannot_even_be_looked_for_is_a_mismatch_too(
    night: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """LED-8: exit 13 and places, where following the changed ledger to the images leads nowhere."""
    with closing(sqlite3.connect(night / "bydawn.db")) as tampered:
        tampered.execute("DROP TRIGGER events_are_never_changed")
        assert tampered.execute(change).rowcount > 0
        tampered.commit()
    code, lines = verified(capsys=capsys)
    assert code == 13
    assert {"chain", "views"} & {line.get("code") for line in lines}


def test_a_restored_ledger_contradicts_a_later_head(night: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seal = night / "head.json"
    assert main(["verify", "--seal", str(seal)]) == 0
    assert main(["verify", "--against", str(seal)]) == 0
    head = json.loads(seal.read_text())
    seal.write_text(json.dumps({**head, "seq": head["seq"] + 5}))
    capsys.readouterr()
    code, lines = verified("--against", str(seal), capsys=capsys)
    assert code == 13
    assert lines[0]["code"] == "head"


def test_a_seal_that_is_none_is_refused(night: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (night / "head.json").write_text("{}")
    assert main(["verify", "--against", str(night / "head.json")]) == 2
    assert "BD-020" in capsys.readouterr().err
