"""Every planted bug still fits the tree, and one that does not is never planted by guess."""

from pathlib import Path

import pytest

from tests.planted.patches import FOLDER, PatchFails, Planted, parsed, plant, planted

ROOT = FOLDER.parents[1]
HEAD = "Breaks: MON-1: no more.\nCaught by: schedules 3\nSays: MON-1\n"
PATCH = HEAD + "\n--- a/x.py\n+++ b/x.py\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"


def copied(bug: Planted, tree: Path) -> None:
    """Put the files that the bug changes into ``tree``."""
    for name in bug.hunks:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")


def test_there_are_fifteen_or_more() -> None:
    bugs = planted()
    assert len(bugs) >= 15
    assert [bug.name[:2] for bug in bugs] == [f"{n:02}" for n in range(1, len(bugs) + 1)]


@pytest.mark.parametrize("bug", planted(), ids=lambda bug: bug.name)
def test_it_fits_the_tree(bug: Planted, tmp_path: Path) -> None:
    copied(bug, tmp_path)
    plant(bug, tmp_path)
    for name in bug.hunks:
        changed = (tmp_path / name).read_text("utf-8")
        assert changed != (ROOT / name).read_text("utf-8")
        compile(changed, name, "exec")


@pytest.mark.parametrize("text", ["one\ntwo\nthree\n", "zero\none\ntwo\nthree", "one\nTWO\none\ntwo\nthree\n"])
def test_a_patch_is_found_wherever_its_lines_are(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.py").write_text(text if text.endswith("\n") else text + "\n")
    plant(parsed("p", PATCH), tmp_path)
    assert (tmp_path / "x.py").read_text() == (text.rstrip("\n") + "\n").replace("one\ntwo", "one\n2")


@pytest.mark.parametrize(
    "text",
    ["one\nTWO\nthree\n", "one\ntwo\n", "phone\ntwo\nthree\n", "one\ntwo\nthree\none\ntwo\nthree\n", "one\n2\nthree\n"],
)
def test_a_patch_whose_lines_are_not_there_once_fails(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.py").write_text(text)
    with pytest.raises(PatchFails, match=r"places of x\.py"):
        plant(parsed("p", PATCH), tmp_path)
    assert (tmp_path / "x.py").read_text() == text


def test_nothing_is_written_when_one_of_two_files_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("one\ntwo\nthree\n")
    both = PATCH + "--- a/y.py\n+++ b/y.py\n@@ -1 +1 @@\n-a\n+b\n"
    with pytest.raises(PatchFails, match=r"no y\.py"):
        plant(parsed("p", both), tmp_path)
    assert (tmp_path / "x.py").read_text() == "one\ntwo\nthree\n"


def test_what_git_writes_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("one\ntwo\nthree\n")
    (tmp_path / "y.py").write_text("index = 1\n")
    said = "diff --git a/{0}.py b/{0}.py\nindex 2e7f150..9975ed1 100644\n"
    second = said.format("y") + "--- a/y.py\n+++ b/y.py\n@@ -1 +1 @@\n-index = 1\n+index = 2\n"
    plant(parsed("p", PATCH.replace("--- a/", said.format("x") + "--- a/") + second), tmp_path)
    assert (tmp_path / "x.py").read_text() == "one\n2\nthree\n"
    assert (tmp_path / "y.py").read_text() == "index = 2\n"


@pytest.mark.parametrize(
    "text",
    ["", HEAD, PATCH.replace("Says: MON-1\n", ""), PATCH.replace("+++ b/", "+++ "), PATCH.replace("-two", "*two")],
)
def test_what_is_no_patch_of_ours_is_refused(text: str) -> None:
    with pytest.raises(PatchFails):
        parsed("p", text)
