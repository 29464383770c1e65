"""Names from tables, from files and from the command line that want to be paths (SEC-2).

What may be in a file name and what a task is called are laws of runtime/test_names.py; here whole commands are given
such names, and the disk is looked at.
"""

import csv
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bydawn.cli.main import main
from bydawn.errors import UserError
from bydawn.importing import name_batch, usable_name
from runtime.blobs import BlobStore
from runtime.disk import RealDisk
from runtime.images import Expected
from runtime.names import image_name
from runtime.ports import DiskFailed
from tests.runtime.pictures import picture
from tests.system.shop import Shop, sandbox

TRICKS = [
    "../../../../escaped",
    "..",
    "../..",
    "/escaped",
    "//escaped",
    "~/escaped",
    "a/../../escaped",
    "..\\..\\escaped",
    "C:\\escaped",
    "\\\\host\\escaped",
    "a\x00b",
    "a\nb",
    "a\x1b[2Jb",
    "..\u2215..\u2215escaped",
    "\uff0e\uff0e\uff0fescaped",
    "%2e%2e%2fescaped",
    "$(touch escaped)",
    "`touch escaped`",
    "; touch escaped;",
    "-rf",
    ".bydawn",
    "manifest.jsonl",
    "con",
    "nul.png",
    "a" * 5000,
    "\u202egnp.exe",
    "blobs/ab/" + "a" * 64,
    "",
    " ",
    ".",
]


def below(path: Path, root: Path) -> bool:
    return root.resolve() in path.resolve().parents


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    work = tmp_path / "outer" / "work"
    work.mkdir(parents=True)
    with sandbox(tmp_path / "providers", latency=0.05) as url, Shop(work, url) as shop:
        yield shop


@pytest.mark.parametrize("template", ["", "../../{Title}/{id}"])
def test_no_cell_of_a_table_leads_out_of_the_folder(shop: Shop, template: str) -> None:
    """SEC-2: as an id, as a column, through a template, bought and linked: each picture lies where pictures lie."""
    usable = [trick for trick in TRICKS if trick.isprintable() and 0 < len(trick) <= 200 and not trick.isspace()]
    with (shop.folder / "pots.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "Title", "metadata.x"])
        writer.writerows([trick, f"{template}: a {n}th pot", f"{trick}{n}", trick] for n, trick in enumerate(usable))
    before = {path for path in shop.folder.parent.rglob("*") if not below(path, shop.folder)}
    named = ("--name-template", template) if template else ()
    done = shop.run("run", "pots.csv", "--sandbox", "--provider", "kie", *named)
    assert done.code == 0, done.err
    folder = shop.output("pots")
    rows = shop.manifest("pots")
    assert len(rows) == len(usable)
    for row in rows:
        assert row.file is not None
        path = folder / row.file
        assert not path.is_symlink()
        assert path.resolve().parent == (folder / "images").resolve()
    assert len({row.file for row in rows}) == len(rows)
    assert {path for path in shop.folder.parent.rglob("*") if not below(path, shop.folder)} == before
    assert not (shop.folder / "escaped").exists(), "no name is ever given to a shell"
    assert all(stat.S_ISREG(path.lstat().st_mode) for path in folder.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("name", [trick for trick in TRICKS if trick.strip(" ")])
def test_a_batch_is_named_like_a_folder_or_not_at_all(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SEC-2: by option, and by the name of a file: `...csv` would be the batch `..`, whose folder is the one above."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    Path("t.csv").write_text("prompt\nx\n")
    code = main(["plan", "t.csv", f"--name={name}", "--provider", "kie", "--ledger", "l.db"])
    told = capsys.readouterr()
    harmless = usable(name)
    assert code == (0 if harmless else 2), told.err
    assert harmless or "a batch cannot be named" in told.err
    assert {path.name for path in tmp_path.rglob("*")} == {"work", "t.csv"}


def usable(name: str) -> bool:
    try:
        return usable_name(name) == name
    except UserError:
        return False


@given(st.text(max_size=40))
def test_whatever_is_usable_is_one_part_of_a_path(name: str) -> None:
    """SEC-2."""
    if usable(name):
        path = Path("/a") / name
        assert path.parent == Path("/a")
        assert os.path.normpath(path) == str(path)
        assert name.encode("utf-8")
        assert not name.startswith("-")


@pytest.mark.parametrize("file", ["...csv", "..jsonl.gz", "x/...tsv", "-x.csv", "./-x.csv"])
def test_a_file_with_an_odd_name_asks_for_a_name(file: str) -> None:
    with pytest.raises(UserError) as error:
        name_batch(file, "")
    assert error.value.code == "BD-020"
    assert name_batch(file, "good").name == "good"


# --- what lies in the way ---------------------------------------------------------------------------------------


def test_a_folder_that_is_a_link_is_where_its_owner_wants_it_and_a_file_is_an_error(tmp_path: Path) -> None:
    """A user may put the images on another disk by a link; nothing but a folder is taken for one."""
    elsewhere, root = tmp_path / "disk", tmp_path / "out"
    elsewhere.mkdir()
    root.mkdir()
    (root / "images").symlink_to(elsewhere)
    store = BlobStore(RealDisk(), root)
    blob = store.put(picture(), part="1-1", expected=Expected(), link=image_name("a", n=1, first_total=1))
    assert [path.name for path in elsewhere.iterdir()] == ["a.png"]
    assert (elsewhere / "a.png").read_bytes() == picture()
    assert blob
    (root / "blobs2").write_text("x")
    with pytest.raises(DiskFailed):
        RealDisk().make_dir(root / "blobs2")


@pytest.mark.parametrize("kind", ["link", "other file"])
def test_what_has_the_name_of_an_image_already_is_left_alone(tmp_path: Path, kind: str) -> None:
    """RES-3: neither overwritten nor written through; the blob is what counts."""
    victim, root = tmp_path / "victim", tmp_path / "out"
    victim.write_text("precious")
    place = root / "images" / "a.png"
    place.parent.mkdir(parents=True)
    if kind == "link":
        place.symlink_to(victim)
    else:
        place.write_text("retouched")
    store = BlobStore(RealDisk(), root)
    store.put(picture(), part="1-1", expected=Expected(), link=Path("images/a"))
    assert victim.read_text() == "precious"
    assert place.read_text() == ("precious" if kind == "link" else "retouched")


@pytest.mark.parametrize("place", ["", "folder", "pipe", "loop", "device"])
def test_a_ledger_is_a_file_or_nothing(tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / (place or "missing")
    if place == "folder":
        path.mkdir()
    elif place == "pipe":
        os.mkfifo(path)
    elif place == "loop":
        path.symlink_to(path)
    elif place == "device":
        path.symlink_to("/dev/null")
    assert main(["status", "--ledger", str(path)]) in (10, 12, 2, 7)
    assert "internal error" not in capsys.readouterr().err
