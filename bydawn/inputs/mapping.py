"""From the columns of a table to the fields of a request.

A field is read from the column of its own name, or from what ``--map`` says: another column, or a template with
``{Column}`` in it (``{{`` and ``}}`` are braces).  A column that is read as a field is used up; every other one,
also one named in a template, is carried to the outputs.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import msgspec

from bydawn.errors import UserError

FIELDS = (
    "id",
    "prompt",
    "images",
    "aspect_ratio",
    "resolution",
    "model",
    "version",
    "provider",
    "seed",
    "output_format",
    "n",
    "grounding",
    "group",
)
_METADATA = "metadata."  # carried under this name, whatever the column is called

Cells: TypeAlias = dict[str, str]
Getter: TypeAlias = Callable[[Cells], str]

_TEMPLATE_PART = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")


class Columns(msgspec.Struct, frozen=True):
    """Which column feeds which field.  ``getters`` holds the fields that can occur, ``sources`` the columns that
    ``--map`` refers to, ``consumed`` those that are not carried to the outputs."""

    getters: dict[str, Getter]
    metadata: dict[str, Getter]
    sources: frozenset[str]
    consumed: frozenset[str]
    labels: dict[str, str]  # field -> the column or template it is read from, for messages

    def check(self, columns: Iterable[str], *, where: str) -> None:
        """Refuse a mapping that refers to columns the input does not have, or that gives no prompt."""
        known = set(columns)
        missing = sorted(self.sources - known)
        if missing:
            raise _unknown_columns(missing, known, where=where)
        if "prompt" not in self.sources and self.labels["prompt"] == "prompt" and "prompt" not in known:
            raise _no_prompt(known, where=where)


def parse_maps(options: Iterable[str]) -> dict[str, str]:
    """Read ``--map FIELD=COLUMN`` options."""
    maps: dict[str, str] = {}
    for option in options:
        field, equals, source = option.partition("=")
        field = field.strip()
        if not equals or not field or not source:
            raise UserError(
                "BD-014", f"--map {option!r} is not FIELD=COLUMN", fix='for example --map prompt="Photo of {Title}"'
            )
        if field in maps:
            raise UserError("BD-014", f"--map gives {field!r} twice", fix="keep one of them")
        maps[field] = source
    return maps


def compile_mapping(maps: Mapping[str, str], columns: Iterable[str] | None, *, where: str) -> Columns:
    """Turn ``maps`` into getters.

    Args:
        columns: of the input; None when they are only known from the rows (JSON), then the caller checks the
            mapping when it has seen them all.
    """
    known = None if columns is None else set(columns)
    for field in maps:
        if field not in FIELDS and not (field.startswith(_METADATA) and len(field) > len(_METADATA)):
            raise UserError(
                "BD-014",
                f"--map names the field {field!r}, which does not exist",
                where=where,
                fix="fields are " + " ".join(FIELDS) + " and metadata.NAME; other columns are carried by themselves",
            )
    getters: dict[str, Getter] = {}
    labels: dict[str, str] = {}
    sources: set[str] = set()
    consumed: set[str] = set()
    for field in FIELDS:
        text = maps.get(field)
        if text is None:
            labels[field] = field
            if known is None or field in known:
                getters[field] = _column(field)
                consumed.add(field)
            continue
        getters[field], used, whole = _source(text, known)
        labels[field] = text
        sources |= used
        if whole:
            consumed |= used
    metadata: dict[str, Getter] = {}
    for field, text in maps.items():
        if field.startswith(_METADATA):
            metadata[field], used, _ = _source(text, known)
            sources |= used
    mapping = Columns(getters, metadata, frozenset(sources), frozenset(consumed), labels)
    if known is not None:
        mapping.check(known, where=where)
    return mapping


def _source(text: str, known: set[str] | None) -> tuple[Getter, set[str], bool]:
    """Compile one right-hand side; True when it is a column as a whole."""
    if "{" not in text or (known is not None and text in known):
        return _column(text), {text}, True
    return _template(text)


def _column(name: str) -> Getter:
    return lambda cells: cells.get(name, "")


def _template(text: str) -> tuple[Getter, set[str], bool]:
    literals: list[str] = [""]
    names: list[str] = []
    end = 0
    for part in _TEMPLATE_PART.finditer(text):
        literals[-1] += text[end : part.start()]
        end = part.end()
        token, name = part.group(), part.group(1)
        if name is not None:
            names.append(name)
            literals.append("")
        elif token in ("{{", "}}"):
            literals[-1] += token[0]
        else:
            raise UserError(
                "BD-014",
                f"--map has an unpaired {token!r} in {text!r}",
                fix="write {Column} for a column, {{ and }} for braces",
            )
    literals[-1] += text[end:]
    first, rest = literals[0], tuple(zip(names, literals[1:], strict=True))

    def render(cells: Cells) -> str:
        return first + "".join([cells.get(name, "") + literal for name, literal in rest])

    return render, set(names), False


def _unknown_columns(missing: list[str], known: set[str], *, where: str) -> UserError:
    return UserError(
        "BD-014",
        f"--map refers to {', '.join(map(repr, missing))}, which the input does not have",
        where=where,
        why="its columns are " + _listed(known),
        fix="names are compared exactly, also in upper and lower case",
    )


def _no_prompt(known: set[str], *, where: str) -> UserError:
    guess = next((name for name in sorted(known) if name.lower() == "prompt"), "COLUMN")
    return UserError(
        "BD-015",
        "no column gives the prompt",
        where=where,
        why="the columns are " + _listed(known),
        fix=f'--map prompt="{guess}", or a template: --map prompt="Studio photo of {{{guess}}}"',
    )


def _listed(names: set[str]) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - 40} more" if len(shown) > 40 else ""
    return ", ".join(map(repr, shown[:40])) + more if shown else "none"
