"""Fifteen bugs, each of which breaks one rule, are each noticed by the check that their patch names.

The check runs in a copy of the tree, in a process of its own.  A bug counts as caught when the check fails and says
what it should: a copy that merely cannot be imported is no catch.  The copy without a bug passes the very same checks.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.planted.patches import FOLDER, Planted, plant, planted

ROOT = FOLDER.parents[1]
PARTS = ("ledger", "runtime", "adapters", "bydawn", "tests", "pyproject.toml")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the checks need."""
    copy = tmp_path_factory.mktemp("tree")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, copy / part)
    return copy


def check(tree: Path, caught_by: str) -> tuple[int, str]:
    """Run a check in ``tree``; its exit code and what it said."""
    kind, _, count = caught_by.partition(" ")
    simulated = kind == "schedules"
    command = ["tests.simulation.draws", count] if simulated else ["pytest", "-q", "-m", "", "--tb=short", caught_by]
    # No byte code: a file that is changed twice within a second would be taken from there.
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=tree, env=environment, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("caught_by", sorted({bug.caught_by for bug in planted()}))
def test_without_a_bug_the_check_passes(tree: Path, caught_by: str) -> None:
    code, said = check(tree, caught_by)
    assert code == 0, said


@pytest.mark.parametrize("bug", planted(), ids=lambda bug: bug.name)
def test_the_bug_is_caught(bug: Planted, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = {name: (tree / name).read_text("utf-8") for name in bug.hunks}
    plant(bug, tree)
    try:
        code, said = check(tree, bug.caught_by)
    finally:
        for name, text in sound.items():
            (tree / name).write_text(text, "utf-8")
    assert code == 1, f"{bug.breaks} Nobody noticed:\n{said}"
    assert re.search(bug.says, said), f"{bug.breaks} It was noticed for another reason:\n{said}"
    with capsys.disabled():
        when = re.search(r"^schedule \d+ of \d+ after [\d.]+ s", said, re.MULTILINE)
        print(f"\n{bug.name}: {when[0] if when else bug.caught_by}")
