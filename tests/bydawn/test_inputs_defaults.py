"""What is taken where the user says nothing: the usual, unless no chosen provider could draw it."""

from pathlib import Path

import pytest

from adapters import registry
from adapters.capabilities import Capabilities
from bydawn.inputs import InputOptions, open_input, with_defaults_of
from runtime.requests import decode_request
from tests.bydawn.tables import put

URL = "https://a.example/1.png"


def records(*providers: str) -> list[Capabilities]:
    return [registry.codec(name).capabilities for name in providers]


def aspect(options: InputOptions, *providers: str) -> str:
    return with_defaults_of(records(*providers), options).default_aspect_with_references


def test_the_usual_stays_where_one_provider_has_it() -> None:
    assert with_defaults_of(records("byteplus", "kie"), InputOptions()) == InputOptions()


def test_without_any_provider_nothing_changes() -> None:
    assert with_defaults_of([], InputOptions()) == InputOptions()


def test_the_first_provider_s_model_and_size_stand_in_for_the_usual_ones() -> None:
    options = with_defaults_of(records("byteplus"), InputOptions(default_resolution="0.5K"))
    assert (options.default_model, options.default_resolution) == ("seedream-4", "1K")


@pytest.mark.parametrize("providers", [("together",), ("newportai",), ("byteplus",), ("together", "newportai")])
def test_where_none_follows_the_references_they_are_drawn_square(providers: tuple[str, ...]) -> None:
    assert aspect(InputOptions(), *providers) == "1:1"


def test_one_provider_that_follows_the_references_is_enough() -> None:
    assert aspect(InputOptions(), "together", "kie") == "auto"


def test_only_the_models_that_are_asked_for_count() -> None:
    """BytePlus does not follow references, and Kie, which does, has no Seedream."""
    assert aspect(InputOptions(models=("seedream-4",)), "byteplus", "kie") == "1:1"
    assert aspect(InputOptions(models=("seedream-4", "nano-banana-2")), "byteplus", "kie") == "auto"


def test_a_row_with_references_takes_the_default_and_a_row_with_an_aspect_its_own(tmp_path: Path) -> None:
    table = put(tmp_path, "rows.csv", f"prompt,images,aspect_ratio\na,{URL},\nb,{URL},16:9\nc,,\n")
    codec = registry.codec("together")
    with open_input(table, with_defaults_of([codec.capabilities], InputOptions())) as file:
        checked = file.check({"together": codec})
        drawn = [decode_request(task.request).request.aspect for task in file.tasks()]
    assert (checked.bad_rows, drawn) == (0, ["1:1", "16:9", "1:1"])
