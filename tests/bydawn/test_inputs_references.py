"""Reference images of a table: found in order, known by their bytes, refused with the reason."""

import hashlib
import os
import random
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from adapters.base import ImageRequest
from adapters.capabilities import Capabilities, References
from adapters.fitting import misfit
from adapters.references import LocalFile, identity, local_file
from bydawn.errors import UserError
from bydawn.inputs import Checked, InputOptions, fit_for, localfiles, open_input
from bydawn.inputs.localfiles import BadReference, LocalFiles
from bydawn.inputs.references import parse_references
from ledger.imports import NewTask
from runtime.requests import decode_request, request_key
from tests.bydawn.tables import put
from tests.runtime.fakes import CAPS, FakeProvider, known
from tests.runtime.pictures import encode, picture, png_claiming

URL = "https://a.example/1.png"


class Taker(FakeProvider):
    """A provider that judges by its record alone."""

    def problem(self, request: ImageRequest) -> str | None:
        return misfit(self.capabilities, request)


def takes(**changes: object) -> Capabilities:
    references = msgspec.structs.replace(References(files="upload"), **changes)
    return msgspec.structs.replace(CAPS, references=known(references))


def read(table: str, options: InputOptions | None = None, **providers: Capabilities) -> tuple[Checked, list[NewTask]]:
    codecs = {name: Taker(caps=caps) for name, caps in (providers or {"fake": takes()}).items()}
    with open_input(table, options or InputOptions(skip_invalid=True)) as opened:
        checked = opened.check(codecs)
        return checked, list(opened.tasks())


def references(task: NewTask) -> tuple[str, ...]:
    return decode_request(task.request).request.references


def named(task: NewTask) -> list[str]:
    """The references of a task by file name or URL."""
    return [Path(file.path).name if (file := local_file(each)) else each for each in references(task)]


def put_pictures(folder: Path, *names: str) -> None:
    """Different pictures, each its own size."""
    folder.mkdir(exist_ok=True)
    for n, name in enumerate(names):
        kind = {"jpg": "image/jpeg", "webp": "image/webp"}.get(name.rpartition(".")[2], "image/png")
        (folder / name).write_bytes(picture(kind, 40 + n))


# --- what a cell may hold ---------------------------------------------------------------------------------


def test_urls_files_and_patterns_keep_their_order(tmp_path: Path) -> None:
    put_pictures(tmp_path / "pics", "b.png", "a.jpg", "mug-2.png", "mug-1.webp", ".mug-0.png", "mug.txt")
    table = put(tmp_path, "t.csv", f"prompt,images\nx,pics/b.png | {URL} ; pics/mug-*.[pw]* | pics/a.jpg |\n")
    checked, (task,) = read(table)
    assert named(task) == ["b.png", URL, "mug-1.webp", "mug-2.png", "a.jpg"]
    assert task.references == 5
    assert (checked.local_files, checked.bad_rows) == (4, 0)
    assert checked.local_bytes == sum((tmp_path / "pics" / name).stat().st_size for name in named(task) if name != URL)


def test_a_file_is_known_by_digest_size_and_its_real_type(tmp_path: Path) -> None:
    data = picture("image/webp")
    (tmp_path / "named.png").write_bytes(data)
    _, (task,) = read(put(tmp_path, "t.csv", "prompt,images\nx,named.png\n"))
    (reference,) = references(task)
    expected = LocalFile(hashlib.sha256(data).hexdigest(), len(data), "image/webp", str(tmp_path / "named.png"))
    assert local_file(reference) == expected


def test_a_list_may_hold_names_with_separators(tmp_path: Path) -> None:
    put_pictures(tmp_path, "a;b|c.png", "d.png")
    table = put(tmp_path, "t.jsonl", msgspec.json.encode({"prompt": "x", "images": ["a;b|c.png", "d.png"]}))
    assert named(read(table)[1][0]) == ["a;b|c.png", "d.png"]


def test_a_name_that_looks_like_a_pattern_is_a_name_where_there_is_one(tmp_path: Path) -> None:
    put_pictures(tmp_path, "mug[1].png", "mug1.png")
    table = put(tmp_path, "t.csv", "prompt,images\nx,mug[1].png\ny,mug[2].png\nz,mu?[1].png\n")
    checked, (first, third) = read(table)
    assert (named(first), named(third)) == (["mug[1].png"], ["mug1.png"])
    assert [(p.row, p.reason) for p in checked.problems] == [(2, "'mug[2].png' matches no file")]


def test_patterns_may_span_folders(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        put_pictures(tmp_path / folder, "x.png")
    assert len(LocalFiles().find("*/x.png", folder=tmp_path)) == 2


def test_rows_look_beside_the_table_and_options_where_the_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_pictures(tmp_path / "data", "a.png")
    put_pictures(tmp_path / "here", "a.png", "logo.png")
    monkeypatch.chdir(tmp_path / "here")
    table = put(tmp_path / "data", "t.csv", "prompt,images\nx,a.png\ny,\n")
    own = str(tmp_path / "data" / "a.png")
    options = InputOptions(references=("logo.png|a.png", f" {URL};v=1"))
    first, second = (references(task) for task in read(table, options)[1])
    assert [each.rpartition(":")[2] for each in first] == [
        str(tmp_path / "here" / "logo.png"),
        str(tmp_path / "here" / "a.png"),
        f"//{URL.partition('//')[2]};v=1",
        own,
    ]
    assert second == first[:3]
    assert decode_request(read(table, options)[1][1].request).request.aspect == "auto"


# --- identity ---------------------------------------------------------------------------------------------


def test_each_file_is_read_once(tmp_path: Path) -> None:
    put_pictures(tmp_path, "a.png", "b.png")
    table = put(tmp_path, "t.csv", "prompt,images\nx,a.png|b.png\ny,b.png\nz,./a.png\n")
    with open_input(table, InputOptions()) as opened:
        opened.check({"fake": Taker(caps=takes())})
        (tmp_path / "a.png").unlink()
        (tmp_path / "b.png").write_bytes(b"changed")
        first, second, third = opened.tasks()
    assert references(first) == (*references(third), *references(second))


def test_the_same_bytes_elsewhere_are_the_same_request(tmp_path: Path) -> None:
    put_pictures(tmp_path, "a.png")
    put_pictures(tmp_path / "moved", "b.png")
    table = put(tmp_path, "t.csv", f"prompt,images\nx,a.png|{URL}\nx,moved/b.png|{URL}\nx,{URL}\n")
    checked, (one, two, three) = read(table)
    assert references(one) != references(two)
    assert (one.request_key, one.row) == (two.request_key, two.row)
    assert one.request_key != three.request_key
    assert (checked.local_files, checked.groups[0].shared) == (1, 1)


def test_other_bytes_under_the_same_name_are_another_request(tmp_path: Path) -> None:
    table = put(tmp_path, "t.csv", "prompt,images\nx,a.png\n")
    put_pictures(tmp_path, "a.png")
    (before,) = read(table)[1]
    put_pictures(tmp_path, "b.png", "a.png")
    (after,) = read(table)[1]
    assert (before.request_key, before.row) != (after.request_key, after.row)


def test_a_request_of_urls_keeps_its_key() -> None:
    """Part of the ledger's format."""
    assert request_key(ImageRequest("a red mug", references=(URL,))).hex() == "9af9d987f32d29ed69616f562f077107"
    assert identity(URL) == URL


# --- what is not usable -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("gone.png", "'gone.png' is not there"),
        ("pics/*.png", "'pics/.*' matches no file"),
        ("C:\\x.png", "is not there"),
        ("folder", "is not a file"),
        ("pipe", "is not a file"),
        ("nul\0l", "is not a file name"),
        ("name\udcff.png", "not UTF-8"),
        ("loop", "cannot be read: "),
        ("text.png", "not an image that can be used: not a PNG, JPEG or WebP"),
        ("empty.png", "not an image that can be used: empty"),
        ("cut.jpg", "not an image that can be used: does not decode"),
        ("bomb.png", "more than 64000000"),
        ("huge.png", "bytes, at most 67,108,864 are taken"),
        ("many/*", "matches 101 files, 100 at most"),
        ("ftp://a.example/x", "not an http or https URL"),
        ("https://user:pw@a.example/x", "password"),
        ("https://a.example/with space", "not a valid URL"),
        ("data:image/png;base64,AAAA".replace(";", ""), "data: URL"),
        ('["https://a.example", 7]', "not a JSON list"),
        ("https://a.example/" + "x" * 5000, "longer than"),
        ("x" * 300, "xxx...xxx.*' cannot be read: File name too long"),
        ("x" * 300 + "/pot.png", "'xxx.*...xxx.*/pot.png' cannot be read: File name too long"),
    ],
)
def test_references_that_cannot_be_used(tmp_path: Path, cell: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    data = picture("image/jpeg")
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "bomb.png").write_bytes(png_claiming(60_000, 60_000))
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(localfiles.MAX_FILE_BYTES + 1)
    (tmp_path / "many").mkdir()
    for n in range(101):
        (tmp_path / "many" / f"{n}.png").touch()
    with pytest.raises(BadReference, match=reason):
        parse_references(cell, LocalFiles(), folder=tmp_path)


def test_a_bad_file_is_a_bad_row_with_its_column(tmp_path: Path) -> None:
    put_pictures(tmp_path, "a.png")
    table = put(tmp_path, "t.csv", "prompt,Photo\nx,a.png\ny,b.png\nz,a.png|gone/c.png\n")
    checked, tasks = read(table, InputOptions(maps={"images": "Photo"}, skip_invalid=True))
    assert [task.line for task in tasks] == [1]
    assert [(p.row, p.column, p.reason, p.value) for p in checked.problems] == [
        (2, "Photo", "'b.png' is not there", "b.png"),
        (3, "Photo", "'gone/c.png' is not there", "a.png|gone/c.png"),
    ]


def test_a_bad_reference_of_the_options_is_a_usage_error(tmp_path: Path) -> None:
    table = put(tmp_path, "t.csv", "prompt\nx\n")
    with pytest.raises(UserError, match="is not there") as caught:
        read(table, InputOptions(references=("gone.png",)))
    assert (caught.value.code, caught.value.where) == ("BD-020", "--reference")


def test_limits_are_judged_per_provider(tmp_path: Path) -> None:
    put_pictures(tmp_path, "a.png", "b.webp")
    size = (tmp_path / "a.png").stat().st_size
    table = put(tmp_path, "t.csv", f"prompt,images\nx,a.png\ny,b.webp\nz,{URL}\n")
    checked, tasks = read(
        table,
        all=takes(),
        small=takes(max_file_bytes=size - 1),
        png=takes(media_types=("image/png",)),
        files=takes(urls=False),
        urls=takes(files=""),
    )
    assert len(tasks) == 3
    assert {group.takers for group in checked.groups} == {
        ("all", "png", "files"),
        ("all", "small", "files"),
        ("all", "small", "png", "urls"),
    }
    assert checked.refusals["small"] == {f"reference 1: the file has {size:,} bytes, Kie takes {size - 1:,}": 1}
    assert checked.refusals["png"] == {"reference 1: Kie takes no image/webp, only image/png": 1}
    assert checked.refusals["files"] == {"reference 1: Kie takes no URLs, only files": 1}
    assert checked.refusals["urls"] == {"reference 1: Kie takes no local files, only URLs": 2}


def test_a_file_that_nobody_takes_is_a_bad_row(tmp_path: Path) -> None:
    put_pictures(tmp_path, "a.png")
    checked, tasks = read(put(tmp_path, "t.csv", "prompt,images\nx,a.png\ny,\n"), fake=takes(files=""))
    assert len(tasks) == 1
    assert [(p.row, p.column, p.reason) for p in checked.problems] == [
        (1, "images", "reference 1: Kie takes no local files, only URLs")
    ]


# --- copies that fit --------------------------------------------------------------------------------------


def fitted(table: str, folder: Path, **providers: Capabilities) -> tuple[Checked, list[NewTask]]:
    codecs = {name: Taker(caps=caps) for name, caps in providers.items()}
    fit = fit_for(codecs.values(), folder / "copies")
    with open_input(table, InputOptions(skip_invalid=True), fit=fit) as opened:
        checked = opened.check(codecs)
        return checked, list(opened.tasks())


def noise(side: int) -> bytes:
    """A picture that no encoder makes small."""
    return encode(Image.frombytes("RGB", (side, side), random.Random(1).randbytes(3 * side * side)))


def test_what_all_take_is_sent_as_it_is(tmp_path: Path) -> None:
    put_pictures(tmp_path, "a.png")
    table = put(tmp_path, "t.csv", "prompt,images\nx,a.png\n")
    _, (task,) = fitted(table, tmp_path, one=takes(max_file_bytes=10**6), urls=takes(files=""))
    assert named(task) == ["a.png"]
    assert not (tmp_path / "copies").exists()


def test_a_copy_is_made_that_every_provider_takes(tmp_path: Path) -> None:
    data = noise(400)
    (tmp_path / "a.png").write_bytes(data)
    table = put(tmp_path, "t.csv", "prompt,images\nx,a.png\n")
    limits = {"one": takes(max_file_bytes=60_000), "two": takes(media_types=("image/jpeg", "image/webp"))}
    checked, (task,) = fitted(table, tmp_path, **limits)
    file = local_file(references(task)[0])
    assert file is not None
    assert file.path == str(tmp_path / "copies" / f"{hashlib.sha256(data).hexdigest()}.jpg")
    assert (file.media_type, file.is_made_of(Path(file.path).read_bytes())) == ("image/jpeg", True)
    assert file.size <= 60_000
    assert Path(file.path).stat().st_mode & 0o777 == 0o600
    assert checked.refusals == {}
    assert (tmp_path / "a.png").read_bytes() == data

    made = Path(file.path).stat().st_mtime_ns
    assert references(fitted(table, tmp_path, **limits)[1][0]) == references(task)
    assert Path(file.path).stat().st_mtime_ns == made  # found again, not made again


@pytest.mark.parametrize(("media_type", "seen"), [("image/png", (255, 0, 0, 0)), ("image/jpeg", (255, 255, 255, 255))])
def test_a_copy_shows_what_the_file_shows(tmp_path: Path, media_type: str, seen: tuple[int, ...]) -> None:
    """Turned as its note says; transparent, or where that is not possible on white."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    Image.new("RGB", (100, 50), "red").save(tmp_path / "turned.webp", exif=exif)
    Image.new("RGBA", (100, 100), (255, 0, 0, 0)).save(tmp_path / "clear.webp", lossless=True, exact=True)
    table = put(tmp_path, "t.csv", "prompt,images\nx,turned.webp|clear.webp\n")
    _, (task,) = fitted(table, tmp_path, only=takes(media_types=(media_type,)))
    turned, clear = (file for each in references(task) if (file := local_file(each)) is not None)
    assert turned.media_type == clear.media_type == media_type
    with Image.open(turned.path) as one, Image.open(clear.path) as two:
        assert one.size == (50, 100)
        assert two.convert("RGBA").getpixel((50, 50)) == seen


@pytest.mark.parametrize("limits", [{"max_file_bytes": 100}, {"media_types": ("image/avif",)}])
def test_what_cannot_be_made_to_fit_stays_refused(tmp_path: Path, limits: dict[str, object]) -> None:
    (tmp_path / "a.png").write_bytes(noise(80))
    table = put(tmp_path, "t.csv", "prompt,images\nx,a.png\n")
    checked, tasks = fitted(table, tmp_path, one=takes(**limits))
    assert tasks == []
    assert checked.problems[0].column == "images"


def test_without_a_provider_that_takes_files_nothing_is_made_to_fit() -> None:
    assert fit_for([Taker(caps=takes(files=""))], Path("/nowhere")) is None
