"""Checking: every bad row is named with row, column and reason, before anything is sent."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import ImageRequest
from bydawn.errors import UserError
from bydawn.inputs import InputOptions, bad_rows_error, open_input
from bydawn.inputs.building import Problem
from bydawn.inputs.judging import Judge
from bydawn.inputs.rejected import RejectedFile
from bydawn.inputs.repeats import Repeats
from tests.bydawn.tables import CODECS, check, ids, put, read

# --- laws -------------------------------------------------------------------------------------------------

requests_of_any_length = st.builds(
    ImageRequest,
    prompt=st.builds(lambda text, times: text * times, st.sampled_from(["a", "é", "🍌"]), st.integers(1, 21_000)),
    model=st.sampled_from(["nano-banana", "nano-banana-2", "nano-banana-pro", "no-such"]),
    aspect=st.sampled_from(["1:1", "1:8", "auto", "7:5"]),
    resolution=st.sampled_from(["1K", "2K", "9K"]),
    seed=st.sampled_from([None, 7]),
    references=st.sampled_from([(), ("https://a.example/1.png",)]),
)


@given(st.lists(requests_of_any_length, min_size=1, max_size=12))
def test_what_the_judge_remembers_is_what_the_codecs_say(requests: list[ImageRequest]) -> None:
    judge = Judge(CODECS)
    for request in requests:
        said = tuple(name for name, codec in CODECS.items() if codec.problem(request) is None)
        assert judge.takers(request) == said
        assert set(judge.reasons(request)) == set(CODECS) - set(said)


@given(st.lists(st.integers(0, 30)))
def test_repeats_are_suspected_and_counted(values: list[int]) -> None:
    repeats = Repeats()
    for value in values:
        repeats.add(value)
    assert repeats.suspects() == {hash(value) for value in values if values.count(value) > 1}
    assert repeats.distinct() == len(set(values))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_of_the_rejected_file_is_a_formula(tmp_path: Path, start: str) -> None:
    """SEC-5; the rule itself is that of all exports."""
    with RejectedFile(tmp_path / "rejected.csv") as rejected:
        rejected.write(Problem(7, "prompt", "empty prompt", f"{start}HYPERLINK(1)"))
    with (tmp_path / "rejected.csv").open(newline="", encoding="utf-8") as file:
        _, row = csv.reader(file)
    assert row == ["7", "prompt", "empty prompt", f"'{start}HYPERLINK(1)"]


# --- many bad rows ----------------------------------------------------------------------------------------

BREAKS = [
    ("", "", "", "", "prompt", "empty prompt"),
    ("   ", "", "", "", "prompt", "empty prompt"),
    ("ok", "7:5", "", "", "aspect_ratio", "7:5"),
    ("ok", "1:1", "9K", "", "resolution", "9K"),
    ("ok", "", "", "photos/mug.png", "images", "'photos/mug.png' is not there"),
    ("ok", "", "", "ftp://a.example/x", "images", "not an http or https URL"),
    ("ok", "", "", "https://", "images", "not a valid URL"),
    ("x" * 20_001, "", "", "https://a.example/1|" * 15, "images", "characters"),  # one of them takes any prompt
]


def test_40_broken_rows_among_1000_are_all_named(tmp_path: Path) -> None:
    broken = {25 * n: BREAKS[n % len(BREAKS)] for n in range(1, 40)}
    lines = ["id,prompt,aspect_ratio,resolution,images"]
    for row in range(1, 1001):
        prompt, aspect, resolution, images, *_ = broken.get(row, ("fine", "", "", ""))
        lines.append(f"r{row},{prompt},{aspect},{resolution},{images}")
    lines[999] = "r999,one,field,too,many,here"
    path = put(tmp_path, "t.csv", "\n".join(lines) + "\n")
    rejected = tmp_path / "out" / "rejected.csv"
    checked = check(path, rejected=rejected)

    expected = {row: (column, reason) for row, (*_, column, reason) in broken.items()}
    expected[999] = ("", "6 fields, the header has 5")
    assert {p.row: p.column for p in checked.problems} == {row: column for row, (column, _) in expected.items()}
    assert all(expected[p.row][1] in p.reason for p in checked.problems)
    assert (checked.rows, checked.bad_rows, checked.problem_count, checked.tasks) == (1000, 40, 40, 960)

    assert rejected.stat().st_mode & 0o777 == 0o600
    with rejected.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [int(line["row"]) for line in table] == sorted(expected)
    assert all(expected[int(line["row"])][1] in line["reason"] for line in table)

    error = bad_rows_error(checked, where=path)
    assert (error.code, error.exit_code) == ("BD-016", 2)
    assert all(f"row {row}, " in error.why for row in expected)


def test_bad_rows_stop_everything_unless_they_are_left_out(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", "id,prompt\na,one\nb,\nc,three\n")
    with pytest.raises(UserError, match="1 of 3 rows"):
        read(path)
    checked, tasks = read(path, InputOptions(skip_invalid=True))
    assert ids(tasks) == ["a", "c"]
    assert checked.tasks == 2
    with pytest.raises(UserError):
        read(put(tmp_path, "u.csv", "id,prompt\nb,\n"), InputOptions(skip_invalid=True))


def test_a_repeated_id_is_a_bad_row_that_names_the_first(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", "id,prompt\na,one\nb,two\na,three\n a ,four\n,five\n,five\n")
    checked = check(path)
    assert [(p.row, p.column, p.reason) for p in checked.problems] == [
        (3, "id", "row 1 has the same id"),
        (4, "id", "row 1 has the same id"),
    ]
    checked, tasks = read(path, InputOptions(skip_invalid=True))
    assert [task.line for task in tasks] == [1, 2, 5, 6]
    assert checked.tasks == sum(group.count for group in checked.groups) == 4
    assert sum(group.shared for group in checked.groups) == 1


def test_everything_wrong_with_a_row_is_said_at_once(tmp_path: Path) -> None:
    header = "id,prompt,images,seed,n,output_format,grounding\n"
    row = f"{'x' * 201},,mug.png,1.5,0,gif,perhaps\n"
    columns = [p.column for p in check(put(tmp_path, "t.csv", header + row)).problems]
    assert columns == ["prompt", "id", "images", "seed", "n", "output_format", "grounding"]


def test_a_row_that_one_provider_takes_is_good_and_the_others_reasons_are_counted(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", "prompt,seed\na,\nb,7\nc,8\n")
    checked = check(path)
    assert checked.bad_rows == 0
    assert {group.takers: group.count for group in checked.groups} == {
        ("kie", "replicate", "segmind"): 1,
        ("segmind",): 2,
    }
    assert {name: sum(reasons.values()) for name, reasons in checked.refusals.items()} == {"kie": 2, "replicate": 2}
    with open_input(path, InputOptions()) as table:
        alone = table.check({"kie": CODECS["kie"]})
    assert [(p.row, p.column) for p in alone.problems] == [(2, "seed"), (3, "seed")]


def test_a_row_may_ask_for_its_provider(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", "prompt,provider,seed\na,segmind,7\nb,kie,7\nc,kai,\nd,replicate,\n")
    checked = check(path)
    assert [(p.row, p.column) for p in checked.problems] == [(2, "seed"), (3, "provider")]
    assert {group.takers for group in checked.groups} == {("segmind",), ("replicate",)}


def test_an_option_that_nobody_takes_is_one_error_not_a_million(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", "prompt\na\n")
    for options in (
        InputOptions(aspects=("7:5",)),
        InputOptions(resolutions=("9K",)),
        InputOptions(models=("dall-e",)),
    ):
        with pytest.raises(UserError) as caught:
            check(path, options)
        assert caught.value.code == "BD-018"
        assert "Kie" in caught.value.why


def test_only_the_first_thousand_problems_are_kept(tmp_path: Path) -> None:
    rejected = tmp_path / "rejected.csv"
    path = put(tmp_path, "t.csv", "id,prompt\n" + "a,\n" * 1500)
    checked = check(path, rejected=rejected)
    assert (len(checked.problems), checked.problem_count) == (1000, 1500)
    assert len(rejected.read_text().splitlines()) == 1501
    assert "500 more in" in bad_rows_error(checked, where=path).why


def test_an_old_list_of_bad_rows_goes_when_there_are_none(tmp_path: Path) -> None:
    rejected = tmp_path / "rejected.csv"
    check(put(tmp_path, "t.csv", "id,prompt\na,=1+1\nb,\n"), rejected=rejected)
    assert rejected.exists()
    checked = check(put(tmp_path, "t.csv", "id,prompt\na,=1+1\n"), rejected=rejected)
    assert not rejected.exists()
    assert checked.rejected is None


def test_values_in_the_list_of_bad_rows_are_no_formulas(tmp_path: Path) -> None:
    """SEC-5."""
    rejected = tmp_path / "rejected.csv"
    check(put(tmp_path, "t.csv", 'prompt,seed\na,"=HYPERLINK(""http://evil"")"\n'), rejected=rejected)
    with rejected.open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["value"] == '\'=HYPERLINK("http://evil")'
