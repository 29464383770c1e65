"""Readers: what is in the file is what the provider gets, byte for byte; what cannot be read is one bad row."""

import gzip
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bydawn.errors import UserError
from bydawn.inputs import InputOptions, open_input
from bydawn.inputs.jsons import split_array
from tests.bydawn.tables import CODECS, check, csv_text, put, read, requests

PARTI = Path(__file__).parents[2] / "examples" / "parti-prompts.tsv"

# Any text a prompt may be: no lone surrogates, no NUL, not blank.
prompts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=40).filter(
    lambda text: bool(text.strip())
)
in_one_line = prompts.filter(lambda text: not set(text) & set("\t\r\n"))


def read_back(name: str, data: str | bytes, options: InputOptions | None = None) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        _, tasks = read(put(Path(folder), name, data), options)
    return [task.request.prompt for task in requests(tasks)]


# --- laws -------------------------------------------------------------------------------------------------


@given(st.lists(prompts, min_size=1, max_size=8))
@example(["a\nb", 'say "hi"', "=1+1", " padded "])
def test_csv_gives_back_every_prompt(texts: list[str]) -> None:
    data = csv_text(("prompt", "n°"), [(text, str(n)) for n, text in enumerate(texts)])
    assert read_back("t.csv", data) == texts


@given(st.lists(in_one_line, min_size=1, max_size=8))
@example(['"G I G G L E" painted', "plain"])
@example(['"a" and "b"'])
def test_tsv_with_a_half_quoted_field_is_not_unquoted(texts: list[str]) -> None:
    texts = ['"Half" quoted', *texts]
    assert read_back("t.tsv", "prompt\tx\n" + "".join(f"{text}\t1\n" for text in texts)) == texts


@given(st.lists(in_one_line, min_size=1, max_size=8))
@example(['say "hi"'])
def test_tsv_with_all_quotes_in_pairs_is_unquoted(texts: list[str]) -> None:
    data = csv_text(("prompt", "x"), [(text, "1") for text in texts], delimiter="\t")
    assert read_back("t.tsv", data) == texts


@given(st.lists(prompts, min_size=1, max_size=8), st.booleans())
def test_jsonl_gives_back_every_prompt(texts: list[str], blank_lines: bool) -> None:
    lines = [msgspec.json.encode({"prompt": text, "price": 1.5}) for text in texts]
    assert read_back("t.jsonl", (b"\n\n" if blank_lines else b"\n").join(lines)) == texts


@given(st.lists(prompts, min_size=1, max_size=8))
def test_a_json_array_gives_back_every_prompt(texts: list[str]) -> None:
    data = msgspec.json.format(msgspec.json.encode([{"prompt": text, "more": [1, {"]": "}"}]} for text in texts]))
    assert read_back("t.json", data) == texts


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(json_values, max_size=5), st.integers(1, 9))
def test_an_array_is_cut_at_its_elements_wherever_the_chunks_end(values: list[object], size: int) -> None:
    text = msgspec.json.encode(values).decode()
    chunks = (text[at : at + size] for at in range(0, len(text), size))
    assert [msgspec.json.decode(element) for element in split_array(chunks, where="t")] == values


@given(st.lists(prompts, min_size=1, max_size=5), st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]))
def test_a_mark_at_the_start_tells_the_encoding(texts: list[str], encoding: str) -> None:
    data = csv_text(("prompt", "x"), [(text, "1") for text in texts])
    assert read_back("t.csv", data.encode(encoding)) == texts
    assert read_back("t.csv.gz", gzip.compress(data.encode(encoding))) == texts


# A cell that began with a comma or a line break would close the open quote by accident, as it looks to any reader.
@given(
    st.lists(in_one_line.filter(lambda text: text[0].isalnum() and '"' not in text), min_size=4, max_size=8), st.data()
)
def test_an_unclosed_quote_costs_its_own_row_only(texts: list[str], data: st.DataObject) -> None:
    records = [csv_text((text,), ()) for text in texts]
    broken = data.draw(st.integers(0, len(texts) - 1))
    records[broken] = '"never closed\n'
    with tempfile.TemporaryDirectory() as folder:
        path = put(Path(folder), "t.csv", "prompt\n" + "".join(records))
        checked, tasks = read(path, InputOptions(skip_invalid=True))
    del texts[broken]
    assert [task.request.prompt for task in requests(tasks)] == texts
    (problem,) = checked.problems
    assert problem.row == broken + 1
    assert "a quote is opened and not closed" in problem.reason


# --- the real file ----------------------------------------------------------------------------------------


def test_parti_prompts_reach_the_request_byte_for_byte() -> None:
    lines = PARTI.read_bytes().decode().split("\n")[1:-1]
    checked, tasks = read(str(PARTI), InputOptions(maps={"prompt": "Prompt"}))
    assert checked.rows == checked.tasks == 1632
    assert [task.request.prompt for task in requests(tasks)] == [line.split("\t")[0] for line in lines]
    assert requests(tasks)[1560].request.prompt.startswith('"G I G G L E" painted')
    assert [task.line for task in tasks] == list(range(1, 1633))


# --- examples ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "prompts"),
    [
        ("prompt;x\na, b;1\nc;2\n", ["a, b", "c"]),
        ("prompt|x\na|1\n", ["a"]),
        ("prompt\tx\na, b\t1\n", ["a, b"]),
        ("prompt\na cat\n", ["a cat"]),
        ('prompt,x\n"a;b;c",1\n"d;e;f",2\n', ["a;b;c", "d;e;f"]),
        ("prompt,x\r\na,1\r\n\r\nb,2", ["a", "b"]),
    ],
)
def test_the_delimiter_is_found(tmp_path: Path, data: str, prompts: list[str]) -> None:
    _, tasks = read(put(tmp_path, "t.csv", data))
    assert [task.request.prompt for task in requests(tasks)] == prompts


def test_all_cells_are_text_as_spelled(tmp_path: Path) -> None:
    row = '{"prompt":"a","price":1.50,"big":123456789012345678901,"no":null,"yes":true,"list":[1, 2],"t":"x"}\n'
    for name, data in (("t.jsonl", row), ("t.json", f"[{row}]")):
        _, tasks = read(put(tmp_path, name, data))
        assert requests(tasks)[0].columns == {
            "price": "1.50",
            "big": "123456789012345678901",
            "no": "",
            "yes": "true",
            "list": "[1, 2]",
            "t": "x",
        }


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b'prompt,x\n"a\tb",1\n', 1),
        (b"prompt\tx\na\t1\nb\t2\n", 2),
        (b'  [{"prompt":"a"}]', 1),
        (b'{"prompt":"a"}\n{"prompt":"b"}', 2),
        (gzip.compress(b"prompt,x\na,1\n", mtime=0), 1),
    ],
)
def test_standard_input_is_sniffed_and_its_copy_removed(data: bytes, count: int, tmp_path: Path) -> None:
    tempfile.tempdir, before = str(tmp_path), tempfile.tempdir
    try:
        with open_input("-", InputOptions(), stdin=io.BytesIO(data)) as table:
            (copy,) = tmp_path.iterdir()
            assert copy.stat().st_mode & 0o777 == 0o600
            assert table.check(CODECS).tasks == count
            assert len(list(table.tasks())) == count
    finally:
        tempfile.tempdir = before
    assert list(tmp_path.iterdir()) == []


def test_a_byte_that_is_not_utf8_is_one_bad_row(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", b"prompt,x\ngood,1\ncaf\xe9,2\nfine,3\n")
    checked = check(path)
    assert [(p.row, p.column) for p in checked.problems] == [(2, "prompt")]
    _, tasks = read(path, InputOptions(encoding="cp1252"))
    assert requests(tasks)[1].request.prompt == "café"
    jsonl = put(tmp_path, "t.jsonl", b'{"prompt":"good"}\n{"prompt":"caf\xe9"}\n{"prompt":"\\ud800"}\n')
    assert [p.row for p in check(jsonl).problems] == [2, 3]


def test_the_digest_is_of_the_bytes_and_a_change_is_seen(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", "prompt,x\na,1\nb,2\n")
    with open_input(path, InputOptions()) as table:
        digest = table.check(CODECS).digest
        put(tmp_path, "t.csv", "prompt,x\na,1\nc,2\n")
        with pytest.raises(UserError) as caught:
            list(table.tasks())
    assert caught.value.code == "BD-017"
    assert check(put(tmp_path, "u.csv", "prompt,x\na,1\nb,2\n")).digest == digest


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("t.xlsx", b"PK", "BD-011"),
        ("table", b"", "BD-011"),
        ("t.csv", b"", "BD-013"),
        ("t.csv", b"prompt,prompt\na,b\n", "BD-013"),
        ("t.csv", b"prompt\n", "BD-016"),
        ("t.csv", "prompt\na".encode("utf-16")[:-1], "BD-012"),
        ("t.csv.gz", gzip.compress(b"prompt\na\n" * 100, mtime=0)[:-9], "BD-012"),
        ("t.json", b'{"prompt":"a"}', "BD-016"),
        ("t.json", b'[{"prompt":"a"}', "BD-016"),
        ("t.json", b'[{"prompt":"a"}] x', "BD-016"),
        ("t.json", b" ", "BD-016"),
        ("t.csv", b"text\na\n", "BD-015"),
        ("t.jsonl", b'{"text":"a"}\n', "BD-015"),
    ],
)
def test_what_is_no_table_is_said_so(tmp_path: Path, name: str, data: bytes, code: str) -> None:
    with pytest.raises(UserError) as caught:
        check(put(tmp_path, name, data))
    assert caught.value.code == code
    assert caught.value.exit_code == 2
    assert caught.value.fix


def test_a_missing_file_and_an_unknown_encoding_are_said_so(tmp_path: Path) -> None:
    for path, encoding, code in ((tmp_path / "no.csv", "", "BD-010"), (tmp_path, "", "BD-010")):
        with pytest.raises(UserError) as caught:
            open_input(str(path), InputOptions(encoding=encoding))
        assert caught.value.code == code
    with pytest.raises(UserError) as caught:
        open_input(put(tmp_path, "t.csv", "prompt\na\n"), InputOptions(encoding="klingon"))
    assert caught.value.code == "BD-020"


def test_broken_json_rows_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    lines = ['{"prompt":"a"}', "{oops}", "[1]", '{"prompt":"b"}']
    assert [p.row for p in check(put(tmp_path, "t.jsonl", "\n".join(lines))).problems] == [2, 3]
    checked = check(put(tmp_path, "t.json", "[" + ",".join(lines) + "]"))
    assert [p.row for p in checked.problems] == [2, 3]
    assert checked.tasks == 2


def test_an_endless_element_does_not_fill_the_memory() -> None:
    taken = 0

    def chunks() -> Iterator[str]:
        nonlocal taken
        yield "["
        while True:
            taken += 1
            yield '{"a":[' * 20_000

    with pytest.raises(UserError, match="never ends"):
        list(split_array(chunks(), where="t"))
    assert taken < 50
