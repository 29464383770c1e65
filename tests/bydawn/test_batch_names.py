"""``run`` takes an input or the name of a batch: which is meant."""

from pathlib import Path

import pytest

from bydawn.importing import BatchName, name_batch


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_batch_is_meant_beside_its_own_output_folder() -> None:
    Path("night").mkdir()
    assert name_batch("night", "") == BatchName("night", None)


def test_a_file_without_an_ending_is_an_input() -> None:
    Path("prompts").write_text("prompt\na cat\n")
    assert name_batch("prompts", "") == BatchName("prompts", "prompts")


def test_a_path_is_an_input_even_when_nothing_is_there() -> None:
    assert name_batch("lists/mugs.csv.gz", "") == BatchName("mugs", "lists/mugs.csv.gz")
    assert name_batch("mugs.csv", "tonight") == BatchName("tonight", "mugs.csv")
