#!/usr/bin/env python3
"""Which tests check which rule: writes the last column of docs/reference/invariants.md, or names the tests of one rule.

    scripts/invariants.py                renew the page; what people wrote in it stays
    scripts/invariants.py MON-4 W9       print the tests that name these, one a line, as pytest takes them

A test names a rule in its own text or in the head of its file; what a helper names, the tests of its file that use it
name too.  Code of `tests/` that is no test and names a rule checks it after every night it is used in, such as
`tests/simulation/checker.py`: it is listed as it is.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "reference" / "invariants.md"
NONE = "none yet"

RULES = {"MON": 10, "LED": 11, "RES": 7, "REC": 10, "LIVE": 5, "SEC": 9}
WINDOWS = [f"W{n}" for n in range(1, 19) if n != 12]  # W12 is unused
IDS = (*(f"{family}-{n}" for family, last in RULES.items() for n in range(1, last + 1)), *WINDOWS)

_NAMED = re.compile(r"\b(?:(?:MON|LED|RES|REC|LIVE|SEC)-\d+|W\d{1,2})\b")
_ROW = re.compile(r"^\| (\S+) \| (.+) \| .* \|$", re.MULTILINE)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def named(path: Path) -> Mapping[str, list[str]]:
    """The rules that a file names, each with the tests that do; an empty name stands for the file as a whole."""
    source = path.read_text("utf-8")
    if not path.name.startswith("test_"):
        return {rule: [""] for rule in _rules(source)}
    tree = ast.parse(source)
    parts = {node.name: _text(source, node) for node in tree.body if isinstance(node, Function | ast.ClassDef)}
    tests = [name for name in parts if name.startswith("test_")]
    found: dict[str, list[str]] = {rule: [""] for rule in _rules(ast.get_docstring(tree) or "")}
    for name in tests:
        helped = (text for helper, text in parts.items() if helper not in tests and helper in _words(parts[name]))
        for rule in _rules("\n".join((parts[name], *helped))):
            found.setdefault(rule, []).append(name)
    return found


def _text(source: str, node: Function | ast.ClassDef) -> str:
    """A definition with its decorators, where examples stand."""
    first = min((node.lineno, *(each.lineno for each in node.decorator_list)))
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])


def _rules(text: str) -> Iterator[str]:
    return (rule for rule in dict.fromkeys(_NAMED.findall(text)) if rule in IDS)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def tests_by_rule() -> dict[str, dict[Path, list[str]]]:
    """Every rule with the files, and in them the tests, that name it."""
    found: dict[str, dict[Path, list[str]]] = {rule: {} for rule in IDS}
    for path in sorted(set(TESTS.rglob("*.py")) - {TESTS / "test_docs.py"}):  # which speaks of rules, and checks none
        for rule, names in named(path).items():
            found[rule][path] = names
    return found


def cell(files: Iterable[Path]) -> str:
    """The files of a rule for the page.  Not their tests: the page would have to follow each new one."""
    return ", ".join(f"[{_short(path)}](../../{path.relative_to(ROOT)})" for path in files) or NONE


def _short(path: Path) -> str:
    return str(path.relative_to(TESTS).with_suffix(""))


def renewed(page: str) -> str:
    """The page with its last column as the tests are now."""
    tests = tests_by_rule()

    def row(match: re.Match[str]) -> str:
        rule, promise = match.groups()
        return f"| {rule} | {promise} | {cell(tests[rule])} |" if rule in tests else match[0]

    return _ROW.sub(row, page)


def told(page: str) -> dict[str, str]:
    """The rules of the page with what stands in their last column."""
    rows = re.findall(r"^\| (\S+) \| .+ \| (.+) \|$", page, re.MULTILINE)
    return {rule: tests for rule, tests in rows if _NAMED.fullmatch(rule)}


def main(rules: list[str]) -> int:
    if not rules:
        PAGE.write_text(renewed(PAGE.read_text("utf-8")), "utf-8")
        return 0
    tests = tests_by_rule()
    unknown = [rule for rule in rules if rule not in tests]
    if unknown:
        print(f"no such rule: {', '.join(unknown)}", file=sys.stderr)
        return 2
    nodes = {
        f"{path.relative_to(ROOT)}::{name}" if name else str(path.relative_to(ROOT))
        for rule in rules
        for path, names in tests[rule].items()
        for name in names
        if path.name.startswith("test_")
    }
    print("\n".join(sorted(nodes)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
