"""From rows to tasks: mapping, fan-out, ids that stay."""

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import ImageRequest
from bydawn.errors import UserError
from bydawn.inputs import InputOptions, parse_maps
from ledger.imports import NewTask
from runtime.requests import TaskRequest, decode_request, encode_request, request_key
from tests.bydawn.tables import check, csv_text, ids, put, read, requests

texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(str.strip)
aspects = st.lists(st.sampled_from(["1:1", "9:16", "16:9", "4:3"]), max_size=3, unique=True).map(tuple)
resolutions = st.lists(st.sampled_from(["1K", "2K", "4K"]), max_size=3, unique=True).map(tuple)
models = st.lists(st.sampled_from(["nano-banana-2", "nano-banana-pro"]), max_size=2, unique=True).map(tuple)
wanted = st.builds(
    ImageRequest,
    prompt=texts,
    model=st.sampled_from(["nano-banana-2", "nano-banana-pro"]),
    aspect=st.sampled_from(["1:1", "auto"]),
    resolution=st.sampled_from(["1K", "2K"]),
    references=st.lists(texts, max_size=2).map(tuple),
    output_format=st.sampled_from(["", "png"]),
    seed=st.none() | st.integers(0, 9),
    model_version=st.sampled_from(["", "a"]),
    grounding=st.booleans(),
)


def tasks_of(records: list[tuple[str, str]], options: InputOptions) -> list[NewTask]:
    with tempfile.TemporaryDirectory() as folder:
        return read(put(Path(folder), "t.csv", csv_text(("prompt", "x"), records)), options)[1]


# --- laws -------------------------------------------------------------------------------------------------


@given(st.lists(texts, min_size=1, max_size=5), aspects, resolutions, models, st.none() | st.integers(1, 3))
def test_every_row_is_fanned_out_over_every_axis(
    prompts: list[str],
    aspects: tuple[str, ...],
    resolutions: tuple[str, ...],
    models: tuple[str, ...],
    variants: int | None,
) -> None:
    options = InputOptions(aspects=aspects, resolutions=resolutions, models=models, variants=variants)
    tasks = tasks_of([(prompt, "1") for prompt in prompts], options)
    each = max(1, len(aspects)) * max(1, len(resolutions)) * max(1, len(models)) * (variants or 1)
    assert len(tasks) == len(prompts) * each
    assert len({(task.line, task.suffix) for task in tasks}) == len(tasks)
    assert len({task.request_key for task in tasks}) == len(set(prompts)) * each


@given(st.permutations(["a", "b", "c", "d"]), st.integers(1, 3))
def test_ids_without_an_id_column_do_not_depend_on_the_order(prompts: list[str], variants: int) -> None:
    options = InputOptions(variants=variants)
    by_prompt = {
        decode_request(task.request).request.prompt + task.suffix: task.row + task.suffix
        for task in tasks_of([(prompt, "1") for prompt in prompts], options)
    }
    usual = tasks_of([(prompt, "other") for prompt in "abcd"], options)
    assert sorted(by_prompt.values()) == sorted(ids(usual))
    assert by_prompt["a.v1"] == usual[0].row + ".v1"


@given(aspects, aspects)
def test_more_aspects_keep_every_earlier_id(first: tuple[str, ...], more: tuple[str, ...]) -> None:
    if first:
        both = InputOptions(aspects=(*first, *more))
        before = tasks_of([("a", "1")], InputOptions(aspects=first))
        assert set(ids(before)) <= set(ids(tasks_of([("a", "1")], both)))


@given(wanted, st.dictionaries(texts, texts, max_size=3), st.sampled_from(["", "kie"]))
def test_a_payload_is_read_back(request: ImageRequest, columns: dict[str, str], provider: str) -> None:
    text = encode_request(request, columns, provider=provider)
    assert decode_request(text) == TaskRequest(request, columns, provider)
    assert msgspec.json.decode(text)["request"]["prompt"] == request.prompt


@given(wanted, wanted, st.integers(1, 2), st.integers(1, 2))
def test_a_request_key_tells_requests_apart(one: ImageRequest, two: ImageRequest, v1: int, v2: int) -> None:
    assert (request_key(one, variant=v1) == request_key(two, variant=v2)) == ((one, v1) == (two, v2))
    assert len(request_key(one)) == 16


def test_the_request_key_is_part_of_the_ledger_format() -> None:
    assert request_key(ImageRequest("a red mug")).hex() == "005903eed6c648b5009bfb65b7dd6c07"


# --- examples ---------------------------------------------------------------------------------------------


def test_ids_have_the_parts_the_user_gave(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", "id,prompt\nmug,a mug\n")
    options = InputOptions(aspects=("1:1", "9:16"), resolutions=("2k",), models=("nano-banana-pro",), variants=2)
    assert ids(read(path, options)[1]) == [
        "mug.1:1.2K.nano-banana-pro.v1",
        "mug.1:1.2K.nano-banana-pro.v2",
        "mug.9:16.2K.nano-banana-pro.v1",
        "mug.9:16.2K.nano-banana-pro.v2",
    ]
    (task,) = read(path)[1]
    assert (task.row, task.suffix, task.given, task.variant) == ("mug", "", True, 1)


def test_defaults_and_every_standard_column(tmp_path: Path) -> None:
    lines = [
        {"prompt": "plain"},
        {"prompt": "edit", "images": ["https://a.example/1;x.png", "https://a.example/2.png"]},
        {
            "id": " 7 ",
            "prompt": " kept as it is ",
            "aspect_ratio": "9:16",
            "resolution": "2k",
            "model": "nano-banana-2",
            "provider": "segmind",
            "seed": 7,
            "output_format": "JPEG",
            "n": 2,
            "grounding": True,
            "group": "g1",
            "sku": "S",
            "metadata.a": "b",
        },
    ]
    path = put(tmp_path, "t.jsonl", b"\n".join(map(msgspec.json.encode, lines)))
    _, tasks = read(path, InputOptions(aspects=("3:4",)))
    plain, edit, full, full2 = requests(tasks)
    assert plain.request == ImageRequest("plain", aspect="3:4")
    assert requests(read(path)[1])[0].request == ImageRequest("plain", "nano-banana-2", "1:1", "1K")
    assert requests(read(path)[1])[1].request.aspect == "auto"
    assert edit.request.references == ("https://a.example/1;x.png", "https://a.example/2.png")
    assert full.request == ImageRequest(
        " kept as it is ", aspect="9:16", resolution="2K", output_format="jpg", seed=7, grounding=True
    )
    assert full == full2
    assert full.provider == "segmind"
    assert full.columns == {"sku": "S", "metadata.a": "b"}
    assert [task.row + task.suffix for task in tasks[2:]] == ["7.9:16.v1", "7.9:16.v2"]
    assert [task.group for task in tasks] == ["", "", "g1", "g1"]
    assert tasks[1].references == 2


def test_references_of_the_options_come_first_in_order(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", "prompt,images\na,https://b.example/2 | http://c.example/3\nb,\n")
    options = InputOptions(references=("https://a.example/1",))
    first, second = requests(read(path, options)[1])
    assert first.request.references == ("https://a.example/1", "https://b.example/2", "http://c.example/3")
    assert second.request.references == ("https://a.example/1",)
    assert second.request.aspect == "auto"
    # A reference of the options changes what is wanted, not which row it is.
    assert [t.row for t in read(path, options)[1]] == [t.row for t in read(path)[1]]
    with pytest.raises(UserError, match="is not there"):
        read(path, InputOptions(references=("mug.png",)))


def test_templates_read_columns_and_leave_them_to_the_outputs(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", "Title,Colour name,SKU\nMug,red,7\n")
    maps = parse_maps(["prompt=Photo of {Title} in {Colour name}, {{really}}", "id=SKU", "metadata.c=Colour name"])
    (task,) = read(path, InputOptions(maps=maps))[1]
    got = decode_request(task.request)
    assert got.request.prompt == "Photo of Mug in red, {really}"
    assert got.columns == {"Title": "Mug", "Colour name": "red", "metadata.c": "red"}
    assert task.row == "7"


def test_a_column_whose_name_has_braces_is_a_column(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", "a {b},x\nhello,1\n")
    (task,) = read(path, InputOptions(maps={"prompt": "a {b}"}))[1]
    assert decode_request(task.request).request.prompt == "hello"


@pytest.mark.parametrize(
    ("maps", "says"),
    [
        ({"prompt": "{Titel}"}, "'Titel'"),
        ({"prompt": "Titel"}, "'Titel'"),
        ({"prompt": "Title", "color": "Title"}, "'color'"),
        ({"prompt": "{Title"}, "unpaired"),
        ({"prompt": "Title", "metadata.": "Title"}, "'metadata.'"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_mapping_that_does_not_fit_names_what_there_is(
    tmp_path: Path, name: str, maps: dict[str, str], says: str
) -> None:
    data = "Title,Size\nMug,1\n" if name == "t.csv" else '{"Title":"Mug","Size":"1"}\n'
    with pytest.raises(UserError) as caught:
        check(put(tmp_path, name, data), InputOptions(maps=maps))
    assert caught.value.code == "BD-014"
    assert says in caught.value.what
    if "Titel" in says:
        assert "'Size', 'Title'" in caught.value.why


@pytest.mark.parametrize("options", [["prompt"], ["=x"], ["prompt="], ["prompt=a", "prompt=b"]])
def test_maps_are_field_equals_column(options: list[str]) -> None:
    with pytest.raises(UserError):
        parse_maps(options)


def test_a_column_that_looks_like_the_prompt_is_offered(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        check(put(tmp_path, "t.csv", "Prompt,x\na,1\n"))
    assert '--map prompt="Prompt"' in caught.value.fix


@pytest.mark.parametrize("variants", [0, 1001])
def test_variants_are_bounded(tmp_path: Path, variants: int) -> None:
    with pytest.raises(UserError):
        check(put(tmp_path, "t.csv", "prompt\na\n"), InputOptions(variants=variants))
