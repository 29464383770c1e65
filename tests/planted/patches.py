"""Planted bugs: small patches, each of which breaks one rule; and a strict way to apply them.

The head of a patch says what is broken and who notices:

    Breaks: MON-1: the request leaves, and nothing was recorded.
    Caught by: schedules 300                     or the one test that must fail, ``tests/...py::test_name``
    Says: MON-1                                  what its complaint contains

Strict: every line of a hunk must stand in the file exactly so, in one place only.  Line numbers are not believed,
since the code around a bug may grow; a patch whose lines have changed is an error, never a guess.
"""

import re
from pathlib import Path

import msgspec

FOLDER = Path(__file__).resolve().parent

_GIT_SAYS = re.compile(r"^(?:diff --git|index) .*\n", re.MULTILINE)  # between the files; no line of a hunk looks so


class PatchFails(Exception):
    """A patch does not fit the tree: what it breaks looks different now, so write it anew."""


class Hunk(msgspec.Struct, frozen=True):
    before: str
    after: str


class Planted(msgspec.Struct, frozen=True):
    """One bug: ``hunks`` by the path of the file that they change."""

    name: str
    breaks: str
    caught_by: str
    says: str
    hunks: dict[str, tuple[Hunk, ...]]


def planted() -> list[Planted]:
    """Every bug there is, by name."""
    return [parsed(path.stem, path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.patch"))]


def parsed(name: str, text: str) -> Planted:
    """Read a patch, as ``git diff`` writes it.  Raises PatchFails."""
    text = _GIT_SAYS.sub("", text)
    head, _, body = text.partition("\n--- ")
    told = dict(re.findall(r"^(Breaks|Caught by|Says): (.+)$", head, re.MULTILINE))
    if told.keys() != {"Breaks", "Caught by", "Says"}:
        raise PatchFails(f"{name}: its head names {', '.join(told) or 'nothing'}")
    hunks: dict[str, tuple[Hunk, ...]] = {}
    for part in ("\n" + body).split("\n--- ") if body else ():
        lines = part.strip("\n").split("\n")
        if len(lines) < 3 or not lines[1].startswith("+++ b/"):
            raise PatchFails(f"{name}: a file that is not named")
        hunks[lines[1].removeprefix("+++ b/")] = tuple(_hunks(name, lines[2:]))
    if not hunks:
        raise PatchFails(f"{name}: it changes nothing")
    return Planted(name, told["Breaks"], told["Caught by"], told["Says"], hunks)


def _hunks(name: str, lines: list[str]) -> list[Hunk]:
    found: list[tuple[list[str], list[str]]] = []
    for line in lines:
        if line.startswith("@@"):
            found.append(([], []))
            continue
        if not found or line[:1] not in (" ", "-", "+", ""):
            raise PatchFails(f"{name}: no line of a patch: {line!r}")
        before, after = found[-1]
        if line[:1] != "+":
            before.append(line[1:])
        if line[:1] != "-":
            after.append(line[1:])
    return [Hunk("\n".join(before) + "\n", "\n".join(after) + "\n") for before, after in found]


def plant(bug: Planted, tree: Path) -> None:
    """Change the files of ``tree``.  Raises PatchFails, and then nothing was written."""
    changed: dict[Path, str] = {}
    for name, hunks in bug.hunks.items():
        path = tree / name
        if not path.is_file():
            raise PatchFails(f"{bug.name}: there is no {name}")
        text = path.read_text("utf-8")
        for hunk in hunks:
            places = [found.start() for found in re.finditer("^" + re.escape(hunk.before), text, re.MULTILINE)]
            if len(places) != 1 or hunk.before == hunk.after:
                raise PatchFails(f"{bug.name}: a hunk fits {len(places)} places of {name}")
            text = text[: places[0]] + hunk.after + text[places[0] + len(hunk.before) :]
        changed[path] = text
    for path, text in changed.items():
        path.write_text(text, "utf-8")
