"""The shape of a JSON answer, field by field, and where two answers differ in it.

A shape names each place in the value and the types found there, never a value: it can be printed without telling what
an answer held.  JSON in a string is looked into, since some providers answer so.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

Shape = Mapping[str, frozenset[str]]

_TYPES = {bool: "true or false", int: "number", float: "number", str: "text", type(None): "null"}


class Difference(NamedTuple):
    """``real`` or ``emulated`` is empty where the field is missing."""

    field: str
    real: str
    emulated: str


def shape(body: bytes) -> Shape:
    """Describe a body; one that is no JSON has a single place."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {"": frozenset(["no JSON" if body else "nothing"])}
    found: dict[str, set[str]] = defaultdict(set)
    for place, kind in _walk(value, ""):
        found[place].add(kind)
    return {place: frozenset(kinds) for place, kinds in found.items()}


def _walk(value: object, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        yield place, "object"
        for name, inner in value.items():
            yield from _walk(inner, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        yield place, "list"
        for inner in value:
            yield from _walk(inner, f"{place}[]")
    else:
        yield place, _TYPES[type(value)]
        if isinstance(value, str) and value.startswith(("{", "[")):
            try:
                yield from _walk(json.loads(value), f"{place}(JSON)")
            except (ValueError, RecursionError):
                return


def differences(real: Shape, emulated: Shape) -> list[Difference]:
    """List the places that only one of the two has, or that have other types.

    An empty list or null says nothing of what would stand inside, so what is below it is not missing.
    """
    found = []
    for place in sorted({*real, *emulated}):
        ours, theirs = emulated.get(place, frozenset()), real.get(place, frozenset())
        if ours == theirs or (not theirs and _hidden(place, real)) or (not ours and _hidden(place, emulated)):
            continue
        found.append(Difference(place or "(all)", _said(theirs), _said(ours)))
    return found


def _hidden(place: str, other: Shape) -> bool:
    """Whether something above the place is there, but has no inside."""
    above = [known for known in other if known and place.startswith((f"{known}.", f"{known}[]", f"{known}(JSON)"))]
    return any(other[known] & {"list", "null"} and not _has_inside(known, other) for known in above)


def _has_inside(place: str, other: Shape) -> bool:
    return any(known.startswith((f"{place}.", f"{place}[]")) for known in other)


def _said(kinds: frozenset[str]) -> str:
    return " or ".join(sorted(kinds))
