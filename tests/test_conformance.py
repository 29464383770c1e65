"""The conformance page tells of each cell what the tests' markers say, and the command what became of them."""

import subprocess
from pathlib import Path

import pytest

from scripts import conformance
from scripts.conformance import (
    OPERATIONS,
    PROVIDERS,
    Cell,
    Marked,
    documented,
    judged,
    marked,
    renewed,
    table,
    versions,
)

TESTS = list(marked())
CREATE, POLL = Cell("replicate", "create"), Cell("replicate", "poll")


def test_the_page_has_the_table_of_the_markers() -> None:
    page = conformance.PAGE.read_text("utf-8")
    assert renewed(page, TESTS) == page
    assert table(documented(TESTS)) in page


def test_every_client_is_known_and_each_creates_and_is_compared_in_the_fast_suite() -> None:
    cells = documented(TESTS)
    assert {cell.sdk for cell in cells} == set(PROVIDERS)
    assert {cell.operation for cell in cells} <= set(OPERATIONS)
    assert all(cells[Cell(sdk, operation)] == "yes" for sdk in PROVIDERS for operation in ("create", "request"))
    assert all(Cell(sdk, "error") in cells for sdk in PROVIDERS)
    assert set(PROVIDERS) <= set(versions())


def test_every_marked_test_exists_in_pytests_eyes() -> None:
    """What is read from the source is what pytest would run: same file, same function."""
    for each in TESTS:
        path, _, name = each.test.partition("::")
        assert f"\ndef {name}(" in (conformance.ROOT / path).read_text("utf-8")


def test_markers_are_read_from_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "ROOT", tmp_path)
    (tmp_path / "test_sdk_x.py").write_text(
        "import pytest\n"
        '@pytest.mark.slow\n@pytest.mark.conformance(sdk="x", operation="list")\n'
        '@pytest.mark.conformance(sdk="x", operation="poll")\n@pytest.mark.parametrize("a", [1])\n'
        "def test_one(a): ...\n"
        "@other.thing\ndef test_two(): ...\n"
    )
    assert list(marked(tmp_path)) == [
        Marked(Cell("x", "list"), "test_sdk_x.py::test_one", True),
        Marked(Cell("x", "poll"), "test_sdk_x.py::test_one", True),
    ]


def test_a_cell_is_failed_when_one_of_its_tests_is() -> None:
    tests = [Marked(CREATE, "a", False), Marked(CREATE, "b", False), Marked(POLL, "c", True)]
    assert judged(tests, {"a": {"passed"}, "b": {"passed"}}) == {CREATE: "passed", POLL: "not run"}
    assert judged(tests, {"a": {"passed"}, "b": {"passed", "failed"}, "c": {"passed"}}) == {
        CREATE: "FAILED",
        POLL: "passed",
    }


def test_a_cell_is_in_the_fast_suite_when_one_of_its_tests_is() -> None:
    tests = [Marked(CREATE, "a", True), Marked(CREATE, "b", False), Marked(POLL, "c", True)]
    assert documented(tests) == {CREATE: "yes", POLL: "long"}


@pytest.mark.slow
def test_the_command_prints_the_table() -> None:
    done = subprocess.run(
        [conformance.ROOT / "scripts" / "conformance"], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("| client | for | create |")
    assert len(lines) == 2 + len(PROVIDERS)
    assert "FAILED" not in done.stdout
    assert done.stdout.count("passed") == sum(said == "yes" for said in documented(TESTS).values())
