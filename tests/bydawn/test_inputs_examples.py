"""The tables in ``examples/`` are usable with the commands that its README names."""

import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from bydawn.inputs import InputOptions, parse_maps
from tests.bydawn.tables import ids, read, requests

ROOT = Path(__file__).parents[2]
COMMANDS = [
    shlex.split(line)
    for line in (ROOT / "examples/README.md").read_text().splitlines()
    if line.startswith("    bydawn")
]


@pytest.mark.parametrize("command", COMMANDS, ids=[command[2] for command in COMMANDS])
def test_every_example_is_usable(command: list[str]) -> None:
    options = dict(pairwise(command))
    maps = parse_maps([options["--map"]] if "--map" in options else [])
    aspects = tuple(options["--aspect"].split(",")) if "--aspect" in options else ()
    checked, tasks = read(str(ROOT / command[2]), InputOptions(maps=maps, aspects=aspects))
    assert checked.bad_rows == 0
    assert all("{" not in task.request.prompt for task in requests(tasks))


def test_the_examples_fan_out_as_they_say() -> None:
    assert len(COMMANDS) == 3
    _, products = read(str(ROOT / "examples/products.csv"), InputOptions(maps=parse_maps(["prompt={title}, {colour}"])))
    assert len(products) == 8 - 3 + 2 + 2 + 3
    assert ids(products)[:2] == ["mug-red.v1", "mug-red.v2"]
    assert requests(products)[0].columns["title"] == "Stoneware mug"
