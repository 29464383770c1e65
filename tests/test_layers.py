"""The arrows between the packages: ``bydawn -> runtime -> {ledger, adapters}``, and nothing else.

Every import of every module is read, those inside functions and type-checking blocks included: an arrow that is
taken late or only for a type is an arrow all the same.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("ledger", "adapters", "runtime", "bydawn")

# Standard modules that compute and do nothing else.
PURE = {
    *("abc", "base64", "binascii", "bisect", "calendar", "collections", "copy", "dataclasses", "datetime", "decimal"),
    *("email", "enum", "fractions", "functools", "hashlib", "heapq", "hmac", "itertools", "json", "math", "operator"),
    *("re", "string", "struct", "textwrap", "types", "typing", "unicodedata", "urllib", "uuid"),
}

# The core of the ledger: rules, folds, books, views and the vocabulary they speak.
PURE_LEDGER = {
    *("account_fold", "batch_fold", "commands", "decisions", "errors", "events", "folds", "money", "projection"),
    *("rules", "streams"),
}

THIRD_PARTY = {
    "ledger": {"msgspec"},
    "adapters": {"msgspec"},
    "adapters.sandbox": {"msgspec", "starlette", "hypercorn", "PIL", "trio", "sqlite_utils"},
    "runtime": {"msgspec", "trio", "httpx", "httpcore", "PIL"},
    "bydawn": {"msgspec", "trio", "httpx", "click", "rich", "PIL", "platformdirs", "starlette", "hypercorn"},
}
# One module opens SQLite, and one says how its tables came to be.
SQLITE = {
    "ledger.engine": ("sqlite3", "pysqlite3", "sqlite_utils.Database"),
    "ledger.migrations": ("sqlite_utils.Database", "sqlite_utils.Migrations"),
}
MAY_SEE = {
    "ledger": {"ledger"},
    "adapters": {"adapters"},
    "adapters.sandbox": {"adapters", "adapters.sandbox"},
    "runtime": {"runtime", "ledger", "adapters"},
    "bydawn": {"bydawn", "runtime", "ledger", "adapters", "adapters.sandbox"},
}


def modules() -> dict[str, Path]:
    """All of our modules by dotted name."""
    found = {}
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str) -> Iterator[str]:
    """Every module named by an import; ``from a.b import c`` gives ``a.b.c``, for c may be a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are spelled absolutely"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(name: str) -> str:
    return "adapters.sandbox" if f"{name}.".startswith("adapters.sandbox.") else name.partition(".")[0]


def wrong_arrows(name: str, source: str) -> list[str]:
    """Say which imports of the module ``name`` are not allowed."""
    package = package_of(name)
    module = name.partition(".")[2]
    wrong = []
    for imported in imports(source):
        root = imported.partition(".")[0]
        if root in OURS:
            allowed = package_of(imported) in MAY_SEE[package]
            if package == "ledger" and module in PURE_LEDGER:
                allowed = allowed and imported.split(".")[1] in PURE_LEDGER
        elif root in sys.stdlib_module_names:
            allowed = root not in ("sqlite3", "asyncio") or imported in SQLITE.get(name, ())
            if package == "adapters" or (package == "ledger" and module in PURE_LEDGER):
                # The registry finds a codec by name; it is no codec.
                allowed = root in PURE or (name == "adapters.registry" and root == "importlib")
        else:
            allowed = root in THIRD_PARTY[package] or imported in SQLITE.get(name, ())
        if not allowed:
            wrong.append(f"{name} imports {imported}")
    return wrong


@pytest.mark.parametrize("name", modules())
def test_imports_point_down_only(name: str) -> None:
    assert wrong_arrows(name, modules()[name].read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("ledger.reader", "import adapters.base"),
        ("ledger.journal", "from sqlite_utils.utils import sqlite3"),
        ("ledger.journal", "import sqlite3"),
        ("ledger.migrations", "from sqlite_utils.utils import sqlite3"),
        ("ledger.folds", "from ledger.reader import Reader"),
        ("ledger.folds", "import time"),
        ("adapters.kie", "import random"),
        ("adapters.kie", "from runtime.ports import Clock"),
        ("adapters.kie", "import trio"),
        ("adapters.sandbox.server", "from ledger.events import Fact"),
        ("runtime.wire", "from adapters.sandbox import server"),
        ("runtime.wire", "import bydawn.config"),
        ("runtime.wire", "import requests"),
        ("bydawn.cli.main", "def late():\n    import sqlite_utils"),
    ],
)
def test_a_wrong_arrow_is_seen(name: str, line: str) -> None:
    assert len(wrong_arrows(name, line)) == 1


def test_every_package_is_installed() -> None:
    """A package that pyproject does not list works here and is missing from a wheel."""
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    packages = {name for name, path in modules().items() if path.name == "__init__.py"}
    assert packages == set(listed)
