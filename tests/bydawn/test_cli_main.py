"""The front of the program: help, mistakes, exit codes, and what is imported to get there."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

import bydawn
from bydawn.cli.guard import guarded
from bydawn.cli.main import main
from bydawn.cli.table import GROUPS, WAYS, entries, help_text
from bydawn.errors import UserError
from ledger.errors import DiskFull, LedgerHeld
from ledger.journal import Ledger

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_lists_every_command_under_its_group(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 0
    shown = capsys.readouterr().out
    for title, group in GROUPS:
        assert f"\n{title}\n" in shown
        for name, _, _, says in group:
            assert f"  {name} " in shown
            assert says in shown


def test_help_says_which_command_buys_what() -> None:
    shown = help_text()
    for wish, command in WAYS:
        assert (f"{wish} -> {command}" in shown) == (command in entries())


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert capsys.readouterr().out == f"bydawn {stated}\n"
    assert bydawn.__version__ == stated


@pytest.mark.parametrize("name", entries())
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: bydawn {name}")


def test_a_misspelt_command_is_answered_with_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stauts"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "No such command 'stauts'. Did you mean 'status'?" in said.err


def test_a_misspelt_option_is_a_usage_error_as_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--json", "--colour"]) == 2
    told = json.loads(capsys.readouterr().err)
    assert (told["type"], told["code"], told["exit_code"]) == ("error", "BD-100", 2)


def failing(error: BaseException) -> object:
    raise error


def test_a_user_error_tells_what_where_why_and_fix(capsys: pytest.CaptureFixture[str]) -> None:
    error = UserError("BD-010", "no such file", where="a.csv", why="it is gone", fix="look again", exit_code=7)
    assert guarded([], lambda: failing(error)) == 7
    assert capsys.readouterr().err.splitlines() == [
        "error BD-010: no such file",
        "  where: a.csv",
        "  why:   it is gone",
        "  fix:   look again",
    ]


def test_a_user_error_is_one_json_line_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(["--json"], lambda: failing(UserError("BD-010", "no such file", fix="look"))) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert json.loads(said.err) == {
        "type": "error",
        "code": "BD-010",
        "what": "no such file",
        "where": "",
        "why": "",
        "fix": "look",
        "exit_code": 2,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LedgerHeld("held by process 1"), 11),
        (DiskFull("full"), 7),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (ZeroDivisionError("oops"), 1),
    ],
)
def test_trouble_has_its_exit_code(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded([], lambda: failing(error)) == code
    assert capsys.readouterr().err


def test_an_internal_error_names_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    guarded([], lambda: failing(ZeroDivisionError("oops")))
    said = capsys.readouterr().err
    assert "BD-900: internal error: ZeroDivisionError: oops" in said
    assert "test_cli_main.py" in said


def loaded_by(*args: str) -> set[str]:
    """Root modules that one command line imports, in a process of its own."""
    script = (
        "import sys; from bydawn.cli.main import main; main(sys.argv[1:]);"
        "print('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(run.stdout.splitlines()[-1].split())


def test_help_imports_nothing_that_takes_time() -> None:
    assert not loaded_by("--help") & {"click", "msgspec", "trio", "httpx", "PIL", "rich", "sqlite_utils", "typing"}


def test_reading_commands_do_not_import_the_runtime_s_libraries(tmp_path: Path) -> None:
    with Ledger.create_or_open(tmp_path / "bydawn.db", create=True):
        pass
    slow = {"trio", "httpx", "PIL", "rich", "starlette", "sqlite_utils"}
    assert not loaded_by("log", "--ledger", str(tmp_path / "bydawn.db")) & slow
    assert not loaded_by("status", "--ledger", str(tmp_path / "bydawn.db")) & slow


def test_another_package_named_adapters_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "__init__.py").write_text("")
    script = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import bydawn"
    run = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert "another package named 'adapters' hides bydawn's own" in run.stderr


def test_the_public_names_load_when_used() -> None:
    assert bydawn.UserError is UserError
    assert {"Reader", "UserError", "LedgerError"} <= set(dir(bydawn))
    with pytest.raises(AttributeError):
        bydawn.nothing_of_this_name  # noqa: B018
