"""From a row to the requests it asks for: aspects x resolutions x models x variants.

Ids.  A task is ``row[.aspect][.resolution][.model][.vN]`` with the parts that options fan out over, so that
adding an aspect later adds tasks and renames none.  Without an ``id`` the row id is a content key: the first 12
hex digits of SHA-256 over the row's own cells that define its request; local references count by their bytes.  It
stays the same when rows or files are moved, or other columns change.  Ids outlive an erasure: whoever knows a
whole prompt can find its content key, so give ids where that matters.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import msgspec

from adapters.base import ImageRequest
from adapters.references import identity, local_file
from bydawn.errors import UserError
from bydawn.inputs.localfiles import BadReference, LocalFiles
from bydawn.inputs.mapping import Cells, Columns
from bydawn.inputs.options import (
    DEFAULT_ASPECT,
    MAX_VARIANTS,
    InputOptions,
)
from bydawn.inputs.references import find_reference, parse_references

_MAX_ID_CHARS = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NUMBER = re.compile(r"[0-9]{1,18}")
_YES = frozenset({"true", "yes", "1", "on"})
_NO = frozenset({"false", "no", "0", "off"})
_FORMATS = {"jpg": "jpg", "jpeg": "jpg", "png": "png"}
# Cells that define the request of a row; ``n`` is left out, so that more variants keep their ids.
_DEFINING = ("prompt", "images", "aspect_ratio", "resolution", "model", "version", "seed", "output_format", "grounding")
_encode = msgspec.json.Encoder().encode


class Problem(msgspec.Struct, frozen=True):
    """Why a row is not usable."""

    row: int
    column: str
    reason: str
    value: str = ""


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """What one row asks for.  ``given_id`` is empty when the row has none."""

    row: int
    given_id: str
    requests: tuple[tuple[ImageRequest, str, int], ...]  # request, suffix of the task id, variant
    provider: str = ""
    group: str = ""


_Combination: TypeAlias = tuple[str, str, str, int, str]  # model, aspect, resolution, variant, suffix


class Builder:
    """Builds requests from the cells of rows.  Remembers nothing between rows but the files they name."""

    def __init__(self, columns: Columns, options: InputOptions, files: LocalFiles, folder: Path) -> None:
        """``folder`` is where the relative paths of rows begin; those of options begin where the user is."""
        self._columns = columns
        self._files = files
        self._folder = folder
        self._labels = columns.labels
        self._prompt = columns.getters["prompt"]
        self._id = columns.getters.get("id")
        self._optional = tuple((field, get) for field, get in columns.getters.items() if field not in ("prompt", "id"))
        self._defining = tuple((field, columns.getters[field]) for field in _DEFINING if field in columns.getters)
        self._options = options
        self._references = _own_references(options.references, files)
        self._plain = tuple(self._combinations({}, bool(self._references)))

    def build(self, row: int, cells: Cells) -> Wanted | tuple[Problem, ...]:
        """Return what the row asks for, or everything that is wrong with it."""
        prompt = self._prompt(cells)
        given_id = self._id(cells).strip() if self._id is not None else ""
        extras = self._extras(cells) if self._optional else {}
        # Most rows of large tables are plain; they take a way that is three times as fast.
        if extras or not prompt or prompt.isspace() or len(given_id) > _MAX_ID_CHARS or not given_id.isprintable():
            return self._build_with(row, prompt, given_id, extras)
        references = self._references
        plain = self._plain
        if len(plain) == 1:
            model, aspect, resolution, variant, suffix = plain[0]
            request = ImageRequest(prompt, model, aspect, resolution, references)
            return Wanted(row, given_id, ((request, suffix, variant),))
        return Wanted(
            row,
            given_id,
            tuple(
                [
                    (ImageRequest(prompt, model, aspect, resolution, references), suffix, variant)
                    for model, aspect, resolution, variant, suffix in plain
                ]
            ),
        )

    def _extras(self, cells: Cells) -> dict[str, str]:
        return {field: value for field, get in self._optional if (value := get(cells).strip())}

    def label(self, field: str) -> str:
        """Return the column or template that ``field`` is read from, for messages."""
        return self._labels.get(field, field)

    def given_id(self, cells: Cells) -> str:
        return self._id(cells).strip() if self._id is not None else ""

    def carried(self, cells: Cells) -> dict[str, str]:
        """Return the columns that travel to the outputs."""
        consumed = self._columns.consumed
        carried = {name: value for name, value in cells.items() if name not in consumed}
        for name, get in self._columns.metadata.items():
            carried[name] = get(cells)
        return carried

    def content_key(self, cells: Cells) -> str:
        """Return the id of a row that has none."""
        defining = [(field, value) for field, get in self._defining if (value := get(cells))]
        if any(field == "images" for field, _ in defining):
            defining = [(field, self._by_content(value) if field == "images" else value) for field, value in defining]
        return hashlib.sha256(_encode(defining)).hexdigest()[:12]

    def _by_content(self, cell: str) -> str:
        """A cell of references as it counts for a content key: URLs as they are written, files by their bytes."""
        references = parse_references(cell, self._files, folder=self._folder)
        return "|".join(map(identity, references)) if any(map(local_file, references)) else cell

    def _build_with(self, row: int, prompt: str, given_id: str, extras: dict[str, str]) -> Wanted | tuple[Problem, ...]:
        problems: list[Problem] = []

        def bad(field: str, reason: str) -> None:
            value = given_id if field == "id" else extras.get(field, "")
            problems.append(Problem(row, self._labels[field], reason, value))

        if not prompt or prompt.isspace():
            bad("prompt", "empty prompt")
        if len(given_id) > _MAX_ID_CHARS or _CONTROL.search(given_id):
            bad("id", f"an id has at most {_MAX_ID_CHARS} characters and no control characters")
        references = self._references
        if "images" in extras:
            try:
                references += parse_references(extras["images"], self._files, folder=self._folder)
            except BadReference as exc:
                bad("images", str(exc))
        seed = None
        if "seed" in extras:
            if _NUMBER.fullmatch(extras["seed"]):
                seed = int(extras["seed"])
            else:
                bad("seed", "not a whole number")
        if "n" in extras and not (_NUMBER.fullmatch(extras["n"]) and 1 <= int(extras["n"]) <= MAX_VARIANTS):
            bad("n", f"not a whole number from 1 to {MAX_VARIANTS}")
        output_format = _FORMATS.get(extras.get("output_format", "").lower(), "")
        if "output_format" in extras and not output_format:
            bad("output_format", "not jpg or png")
        grounding = extras.get("grounding", "").lower()
        if grounding and grounding not in _YES | _NO:
            bad("grounding", "not true or false")
        if problems:
            return tuple(problems)
        return Wanted(
            row,
            given_id,
            tuple(
                (
                    ImageRequest(
                        prompt,
                        model,
                        aspect,
                        resolution,
                        references,
                        output_format,
                        seed,
                        extras.get("version", ""),
                        grounding in _YES,
                    ),
                    suffix,
                    variant,
                )
                for model, aspect, resolution, variant, suffix in self._combinations(extras, bool(references))
            ),
            extras.get("provider", ""),
            extras.get("group", ""),
        )

    def _combinations(self, extras: dict[str, str], references: bool) -> Iterable[_Combination]:
        options = self._options
        default_aspect = options.default_aspect_with_references if references else DEFAULT_ASPECT
        count = int(extras["n"]) if "n" in extras else options.variants
        for aspect in _own_or(extras.get("aspect_ratio"), options.aspects, default_aspect):
            for resolution in _own_or(_resolution(extras), options.resolutions, options.default_resolution):
                for model in _own_or(extras.get("model"), options.models, options.default_model):
                    suffix = "".join(
                        f".{part}"
                        for part, fanned in (
                            (aspect, options.aspects),
                            (resolution, options.resolutions),
                            (model, options.models),
                        )
                        if fanned
                    )
                    if count is None:
                        yield model, aspect, resolution, 1, suffix
                    else:
                        for variant in range(1, count + 1):
                            yield model, aspect, resolution, variant, f"{suffix}.v{variant}"


def _own_or(own: str | None, fanned: tuple[str, ...], default: str) -> tuple[str, ...]:
    return (own,) if own else fanned or (default,)


def _resolution(extras: dict[str, str]) -> str | None:
    own = extras.get("resolution")
    return own.upper() if own else None


def _own_references(references: tuple[str, ...], files: LocalFiles) -> tuple[str, ...]:
    """Find the references of the options: a URL is taken whole, anything else as a cell would be."""
    found: list[str] = []
    for reference in references:
        whole = "://" in reference and "|" not in reference
        try:
            found += (find_reference if whole else parse_references)(reference.strip(), files, folder=Path.cwd())
        except BadReference as exc:
            raise UserError("BD-020", str(exc), where="--reference") from exc
    return tuple(found)
