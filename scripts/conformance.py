#!/usr/bin/env python3
"""Run the providers' official clients against the sandbox, and print the table: client x operation.

    scripts/conformance             what `make test` runs
    scripts/conformance --long      all
    scripts/conformance --write     only renew the table in docs/conformance.md from the tests' markers; runs nothing

Which test stands for which cell is said by its marker, ``@pytest.mark.conformance(sdk=..., operation=...)``.  The
markers are read from the source, so that the table of the page can be held against them without any client.
"""

import argparse
import ast
import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "adapters"
PAGE = ROOT / "docs" / "conformance.md"

OPERATIONS = (
    *("create", "poll", "list", "cancel", "error", "upload", "webhook", "balance", "models", "batch"),
    "request",  # ours, field by field
)
PROVIDERS: Mapping[str, str] = {
    "byteplus-python-sdk-v2": "BytePlus",
    "google-genai": "Google",
    "openai": "Apertis",
    "replicate": "Replicate",
    "segmind": "Segmind",
    "together": "Together",
    "wavespeed": "WaveSpeed",
}
START, END = "<!-- table: scripts/conformance --write -->", "<!-- end of the table -->"


class Cell(NamedTuple):
    sdk: str
    operation: str


class Marked(NamedTuple):
    """One test of a cell."""

    cell: Cell
    test: str  # "tests/adapters/test_sdk_kie.py::test_name"
    slow: bool


# --- the markers --------------------------------------------------------------------------------------------


def marked(folder: Path = TESTS) -> Iterator[Marked]:
    """Read the markers of all tests of official clients."""
    for path in sorted(folder.glob("test_sdk_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                marks = [mark for mark in map(_mark, node.decorator_list) if mark is not None]
                slow = any(name == "slow" for name, _ in marks)
                for name, arguments in marks:
                    if name == "conformance":
                        cell = Cell(arguments["sdk"], arguments["operation"])
                        yield Marked(cell, f"{path.relative_to(ROOT)}::{node.name}", slow)


def _mark(decorator: ast.expr) -> tuple[str, dict[str, str]] | None:
    """Read ``pytest.mark.NAME`` or ``pytest.mark.NAME(key="text")``."""
    call = decorator if isinstance(decorator, ast.Call) else None
    function = call.func if call is not None else decorator
    if not isinstance(function, ast.Attribute) or ast.unparse(function.value) != "pytest.mark":
        return None
    if function.attr != "conformance":
        return function.attr, {}
    assert call is not None
    return function.attr, {str(word.arg): str(ast.literal_eval(word.value)) for word in call.keywords}


# --- the table ----------------------------------------------------------------------------------------------


def documented(tests: Sequence[Marked]) -> Mapping[Cell, str]:
    """What the page says of each cell: which suite runs it."""
    fast = {each.cell for each in tests if not each.slow}
    return {each.cell: "yes" if each.cell in fast else "long" for each in tests}


def versions() -> Mapping[str, str]:
    """The clients' versions that are installed for tests."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return dict(line.partition("==")[::2] for line in lines if "==" in line and not line.startswith("#"))


def table(cells: Mapping[Cell, str]) -> str:
    """Write a Markdown table; a cell that nothing stands for is ``-``."""
    installed = versions()
    head = ("client", "for", *OPERATIONS)
    rows = [
        (f"`{sdk}` {installed.get(sdk, '?')}", provider, *(cells.get(Cell(sdk, each), "-") for each in OPERATIONS))
        for sdk, provider in PROVIDERS.items()
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


def renewed(page: str, tests: Sequence[Marked]) -> str:
    """Put the table of the markers into the page."""
    new = f"{START}\n\n{table(documented(tests))}\n{END}"
    return re.sub(f"{re.escape(START)}.*{re.escape(END)}", lambda _: new, page, flags=re.DOTALL)


# --- running ------------------------------------------------------------------------------------------------


class Results:
    """A pytest plugin that remembers what became of each test, by the name of its function."""

    def __init__(self) -> None:
        self.outcomes: dict[str, set[str]] = {}

    def pytest_runtest_logreport(self, report: "object") -> None:
        when, outcome = getattr(report, "when", ""), getattr(report, "outcome", "")
        if when == "call" or outcome != "passed":
            name = re.sub(r"\[.*\]$", "", str(getattr(report, "nodeid", "")), flags=re.DOTALL)
            self.outcomes.setdefault(name, set()).add(outcome)


def run(*, long: bool) -> tuple[int, Mapping[str, set[str]]]:
    """Run the marked tests; pytest's own words go to stderr, so that stdout is the table."""
    import pytest

    results = Results()
    files = [str(path) for path in sorted(TESTS.glob("test_sdk_*.py"))]
    chosen = "conformance" if long else "conformance and not slow"
    with contextlib.redirect_stdout(sys.stderr):
        code = pytest.main(["-q", "-m", chosen, "--rootdir", str(ROOT), *files], plugins=[results])
    return int(code), results.outcomes


def judged(tests: Sequence[Marked], outcomes: Mapping[str, set[str]]) -> Mapping[Cell, str]:
    """Say of each cell what its tests came to."""
    found: dict[Cell, set[str]] = {}
    for each in tests:
        found.setdefault(each.cell, set()).update(outcomes.get(each.test, {"not run"}))
    return {
        cell: "FAILED" if "failed" in said else "passed" if "passed" in said else "not run"
        for cell, said in found.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="conformance", description="Official clients against the sandbox.")
    parser.add_argument("--long", action="store_true", help="the slow paths too: cancel, list, errors, callbacks")
    parser.add_argument("--write", action="store_true", help="renew the table in docs/conformance.md and run nothing")
    given = parser.parse_args(argv)
    tests = list(marked())
    if given.write:
        PAGE.write_text(renewed(PAGE.read_text("utf-8"), tests), "utf-8")
        return 0
    code, outcomes = run(long=given.long)
    print(table(judged(tests, outcomes)), end="")
    return code


if __name__ == "__main__":
    sys.exit(main())
