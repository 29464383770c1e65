"""Manifest, errors, marker and CSV: byte for byte the same, never half there, and nothing a spreadsheet runs."""

import csv
import io
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.outputs import (
    FIELDS,
    ManifestRow,
    Marker,
    MarkerDamaged,
    csv_cell,
    csv_lines,
    error_line,
    manifest_line,
    read_marker,
    write_lines,
    write_marker,
)
from runtime.ports import DiskFailed, DiskFull
from runtime.simulated import SimDisk

OUT = Path("/night/products")
ROW = ManifestRow(
    id="sku-1.v2",
    row="sku-1",
    status="succeeded",
    file="images/sku-1.v2.png",
    sha256="ab" * 32,
    media_type="image/png",
    width=1024,
    height=1024,
    provider="kie",
    account="kie-eu",
    model="nano-banana-2",
    version=1,
    flags=("small",),
    attempts=1,
    cost_microusd=60_000,
    seconds=12.5,
    columns={"Title": "Mug, blue", "model": "M-7"},
)


def test_a_manifest_line_is_this_and_nothing_else() -> None:
    assert manifest_line(ROW) == (
        b'{"id":"sku-1.v2","row":"sku-1","status":"succeeded","file":"images/sku-1.v2.png","sha256":"'
        + b"ab" * 32
        + b'","media_type":"image/png","width":1024,"height":1024,"provider":"kie","account":"kie-eu",'
        b'"model":"nano-banana-2","model_version":null,"version":1,"review":null,"review_note":null,"flags":["small"],'
        b'"attempts":1,"cost_microusd":60000,"shared_with":null,"error":null,"seconds":12.5,'
        b'"Title":"Mug, blue","input.model":"M-7"}\n'
    )


def test_the_fields_are_those_of_the_contract() -> None:
    assert " ".join(FIELDS) == (
        "id row status file sha256 media_type width height provider account model model_version version review "
        "review_note flags attempts cost_microusd shared_with error seconds"
    )


@given(st.dictionaries(st.one_of(st.text(max_size=8), st.sampled_from([*FIELDS, "input.id"])), st.text(max_size=20)))
def test_no_column_hides_a_field_or_another_column(columns: dict[str, str]) -> None:
    row = msgspec.structs.replace(ROW, columns=columns)
    line = manifest_line(row)
    assert line == manifest_line(row)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    decoded = msgspec.json.decode(line)
    assert decoded["id"] == "sku-1.v2"
    assert list(decoded)[: len(FIELDS)] == list(FIELDS)
    assert list(decoded.values())[len(FIELDS) :] == list(columns.values())


def test_only_tasks_with_an_error_stand_in_errors() -> None:
    assert error_line(ROW) is None
    line = error_line(msgspec.structs.replace(ROW, status="failed", error="policy"))
    assert line == (
        b'{"id":"sku-1.v2","row":"sku-1","status":"failed","error":"policy","provider":"kie","account":"kie-eu",'
        b'"model":"nano-banana-2","attempts":1,"cost_microusd":60000,"Title":"Mug, blue","input.model":"M-7"}\n'
    )


# --- files ------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=50)), st.binary(max_size=20))
def test_a_file_is_written_whole_over_an_older_one_and_over_what_was_left(lines: list[bytes], left: bytes) -> None:
    disk = SimDisk()
    disk.make_dir(OUT)
    disk.append(OUT / "manifest.jsonl.part", left)
    write_lines(disk, OUT / "manifest.jsonl", [b"old\n"])
    assert disk.read(OUT / "manifest.jsonl") == b"old\n"
    write_lines(disk, OUT / "manifest.jsonl", lines)
    assert disk.read(OUT / "manifest.jsonl") == b"".join(lines)
    assert disk.names(OUT) == ("manifest.jsonl",)


def test_large_files_are_written_in_pieces() -> None:
    disk = SimDisk()
    write_lines(disk, OUT / "a", (bytes(1000) for _ in range(3000)))
    assert len(disk.read(OUT / "a")) == 3_000_000
    assert 5 < disk.operations < 12


@given(st.integers(0, 8), st.booleans(), st.sampled_from([DiskFull, DiskFailed]))
def test_killed_anywhere_the_old_file_or_the_new_one_is_there(
    cut: int, power: bool, error: type[DiskFull] | type[DiskFailed]
) -> None:
    """W13."""
    disk = SimDisk()
    write_lines(disk, OUT / "a", [b"old"])
    disk.fail(cut, "full" if error is DiskFull else "failed")
    try:
        write_lines(disk, OUT / "a", [b"new", b"er"])
        done = True
    except error:
        done = False
    content = disk.crash(power=power).read(OUT / "a")
    assert content == b"newer" if done else content in (b"old", b"newer")


def test_a_folder_knows_whose_it_is() -> None:
    disk = SimDisk()
    assert read_marker(disk, OUT) is None
    for _ in range(2):
        write_marker(disk, OUT, Marker(ledger="0a1b", batch=3))
    assert read_marker(disk.crash(), OUT) == Marker(ledger="0a1b", batch=3)


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff", b'{"ledger":"x"}', b'{"ledger":1,"batch":2}'])
def test_a_marker_that_cannot_be_read_is_nobodys_to_ignore(text: bytes) -> None:
    disk = SimDisk()
    disk.make_dir(OUT)
    disk.write_new(OUT / ".bydawn", text)
    with pytest.raises(MarkerDamaged):
        read_marker(disk, OUT)


# --- CSV --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "\0"])
def test_what_a_spreadsheet_would_run_is_text(start: str) -> None:
    """SEC-5."""
    assert csv_cell(f"{start}HYPERLINK(1)") == f"'{start}HYPERLINK(1)"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("-12.5", "-12.5"),
        ("+4e3", "+4e3"),
        ("-.5", "-.5"),
        ("-12.5-1", "'-12.5-1"),
        ("-", "'-"),
        ("+49 30 1234", "'+49 30 1234"),
        ("-١٢", "'-١٢"),
        ("a=1", "a=1"),
        ("", ""),
        (-3, -3),
        (2.5, 2.5),
        (float("nan"), ""),
        (None, ""),
        (True, "true"),
        (False, "false"),
        (("blank", "small"), "blank|small"),
        (("=1", "x"), "'=1|x"),
    ],
)
def test_cells(value: object, cell: object) -> None:
    assert csv_cell(value) == cell
    assert type(csv_cell(value)) is type(cell)


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2)))
def test_csv_is_read_back_and_no_cell_begins_a_formula(rows: list[list[str]]) -> None:
    """SEC-5."""
    text = b"".join(csv_lines(["a", "=b"], rows)).decode()
    header, *cells = csv.reader(io.StringIO(text, newline=""))
    assert header == ["a", "'=b"]
    for row, read in zip(rows, cells, strict=True):
        for value, cell in zip(row, read, strict=True):
            assert cell in (value, f"'{value}")
            assert not cell.startswith(("=", "@", "\t", "\r", "\n"))


def test_every_text_is_quoted_and_numbers_are_not() -> None:
    assert b"".join(csv_lines(["id", "cost"], [["a;=1+1", 5], ['say "x"', -1.5]])) == (
        b'"id","cost"\r\n"a;=1+1",5\r\n"say ""x""",-1.5\r\n'
    )
