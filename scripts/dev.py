#!/usr/bin/env python3
"""Set up the environment and run a target: ``demo``, ``test``, ``test-long``, ``bench``, ``lint``.

Standard library only, because it runs before anything is installed, and in Python 3.7 syntax, so that an old
interpreter gets a sentence and not a SyntaxError.  The Makefile calls it; it works without make.

The environment is ``.venv``.  A stamp file named by a digest of everything that decides its content says that
it is complete, so that a second call costs one hash.  ``uv`` is used where it is found, never required.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")

# One process a core; the tests of a file stay together, as they share what the file sets up.
PYTEST = ["-m", "pytest", "-n", "auto", "--dist", "loadfile"]

# Settings of pip that uv does not read: where one is in force (a company index, a wheelhouse), pip does it.
PIP_ONLY = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONFIG_FILE")


class StopError(Exception):
    """A sentence for the user; the exit code is 2."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dev.py", description="Set up .venv and run a target.")
    targets = "; ".join(f"{name}: {says}" for name, (_, says) in TARGETS.items())
    parser.add_argument("target", choices=sorted(TARGETS), help=targets)
    parser.add_argument("args", nargs=argparse.REMAINDER, help="passed on to the last tool of the target")
    given = parser.parse_args(argv)
    run = TARGETS[given.target][0]
    try:
        require_python()
        return run(given.args)
    except StopError as stop:
        print(f"error: {stop}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


# --- targets ----------------------------------------------------------------------------------------------


def demo(args: list[str]) -> int:
    set_up(tests=False)
    return tool("scripts/demo.py", *args)


def lint(args: list[str]) -> int:
    set_up(tests=True)
    return stages(
        ("ruff check", ["-m", "ruff", "check", "."]),
        ("ruff format", ["-m", "ruff", "format", "--check", "."]),
        ("mypy", ["-m", "mypy", *args]),
    )


def test(args: list[str]) -> int:
    # pytest comes last, so that its summary is the last line of the whole run.
    return lint([]) or stages(("pytest", [*PYTEST, *args]))


def test_long(args: list[str]) -> int:
    set_up(tests=True)
    return stages(("pytest, the slow ones", [*PYTEST, "-m", "slow", *args]))


def bench(args: list[str]) -> int:
    set_up(tests=True)
    return tool("-m", "tests.bench", *args)


TARGETS = {
    "demo": (demo, "a night in a minute, killed in the middle"),
    "test": (test, "ruff, mypy, pytest"),
    "test-long": (test_long, "the longer laws and torture runs"),
    "bench": (bench, "benchmarks, quick ones; --full as in docs/benchmarks.md; words choose some"),
    "lint": (lint, "ruff and mypy"),
}


def stages(*steps: tuple[str, list[str]]) -> int:
    """Run each, stop at the first that fails."""
    for name, args in steps:
        print(f"== {name}", flush=True)
        code = tool(*args)
        if code:
            return code
    return 0


def tool(*args: str) -> int:
    return subprocess.call([str(PYTHON), *args], cwd=str(ROOT))


# --- the environment --------------------------------------------------------------------------------------


def require_python() -> None:
    """Go on under a Python that is new enough, or say exactly what to install."""
    if sys.version_info >= OLDEST:
        return
    for minor in range(20, OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        # Asked first: version managers put names on the PATH that do not start.
        if found and subprocess.call([found, "-c", "import sys"], stderr=subprocess.DEVNULL) == 0:
            raise SystemExit(subprocess.call([found, *sys.argv]))
    have = ".".join(str(n) for n in sys.version_info[:3])
    raise StopError(
        f"bydawn needs Python >= 3.11; {sys.executable} is {have} and no newer one is on the PATH.\n"
        "  fix: apt-get install python3.11 python3.11-venv   (Debian, Ubuntu)\n"
        "       brew install python@3.12                     (macOS)\n"
        "       then, if it is not on the PATH: make PYTHON=/path/to/python3.11 ..."
    )


def set_up(*, tests: bool) -> None:
    """Make ``.venv`` complete; does nothing when its stamp says so."""
    kinds = ["test"] if tests else ["test", "run"]
    if PYTHON.exists() and any(stamp(kind).exists() for kind in kinds):
        return
    uv = find_uv()
    if not PYTHON.exists():
        create(uv)
    for old in VENV.glob(".stamp-*"):
        old.unlink()
    install("-e", ".[test]" if tests else ".", uv=uv)
    stamp(kinds[-1]).touch()


def stamp(kind: str) -> Path:
    return VENV / f".stamp-{kind}-{digest()}"


def digest() -> str:
    """Name everything that decides what is in the environment; its place too, as scripts hold absolute paths."""
    named = hashlib.sha256(str(ROOT).encode())
    for name in ("pyproject.toml", "constraints.txt"):
        named.update((ROOT / name).read_bytes())
    config = VENV / "pyvenv.cfg"
    named.update(config.read_bytes() if config.exists() else b"")
    return named.hexdigest()[:16]


def find_uv() -> str | None:
    if any(os.environ.get(name) for name in PIP_ONLY) or any(path.exists() for path in pip_configs()):
        return None
    return shutil.which("uv")


def pip_configs() -> list[Path]:
    home = Path.home()
    return [
        Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        home / ".config" / "pip" / "pip.conf",
        home / "Library" / "Application Support" / "pip" / "pip.conf",
        Path(os.environ.get("APPDATA", str(home))) / "pip" / "pip.ini",
    ]


def create(uv: str | None) -> None:
    print(f"creating {VENV.name} with Python {sys.version.split()[0]}", flush=True)
    seeded = ["venv", "--quiet", "--clear", "--seed", "--python", sys.executable, str(VENV)]
    if uv and subprocess.call([uv, *seeded]) == 0:
        return
    try:
        import ensurepip  # noqa: F401 - Debian ships venv without it, and venv then fails half-way
        import venv
    except ImportError as exc:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise StopError(
            f"this Python cannot make virtual environments ({exc}).\n"
            f"  fix: apt-get install {package}   (Debian, Ubuntu)\n"
            "       or run with another Python: make PYTHON=/path/to/python3.11 ..."
        ) from exc
    venv.create(str(VENV), clear=True, with_pip=True, symlinks=os.name != "nt")


def install(*what: str, uv: str | None) -> None:
    print("installing (once; wheels only)", flush=True)
    # `compat` gives a plain path file; setuptools' default import hook for flat layouts costs 13 ms at every start.
    options = ["--quiet", "--only-binary", ":all:", "-c", "constraints.txt", "-C", "editable_mode=compat", *what]
    if uv and subprocess.call([uv, "pip", "install", "--python", str(PYTHON), *options], cwd=str(ROOT)) == 0:
        return
    if uv:
        print("uv could not install it; going on with pip", flush=True)
    env = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1")
    code = subprocess.call([str(PYTHON), "-m", "pip", "install", *options], cwd=str(ROOT), env=env)
    if code:
        raise StopError(
            "pip could not install the dependencies; its own words are above.\n"
            "  fix: check the way to the package index (HTTPS_PROXY, PIP_INDEX_URL), or put the wheels in a folder\n"
            "       and set PIP_FIND_LINKS=/that/folder PIP_NO_INDEX=1; then run the same command again"
        )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
