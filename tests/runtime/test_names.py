"""File names: laws over hostile ids, then examples."""

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtime.names import TemplateError, folder, image_name, render, safe_name, with_ending

DEVICES = ["con", "prn", "aux", "nul", "com1", "lpt9", "com¹"]

hostile = st.one_of(
    st.text(max_size=200),
    st.text(alphabet="aA.-_/\\:* \x00\n", max_size=12),
    st.sampled_from(
        [*DEVICES, "CON.png", "..", ".", "", "-", "a" * 300, "../../etc/passwd", "é", "e\u0301", "ﬁ", "ß", "ss"]
    ),
    st.sampled_from(DEVICES).flatmap(
        lambda name: st.sampled_from([name, name + ".", name + ".x", "." + name, name + " "])
    ),
    st.from_regex(r"[a-c.-]{1,3}-[0-9a-f]{8}", fullmatch=True),
)


@settings(max_examples=1000)
@given(hostile)
@example("a\u0300" * 60)
@example("\ud800")
def test_any_text_gives_a_name_that_every_file_system_takes(text: str) -> None:
    """SEC-2: nothing of a text can lead out of the folder of images."""
    name = safe_name(text)
    assert name == safe_name(text)
    assert 0 < len(name.encode()) <= 100
    assert not set(name) & set('/\\:*?"<>| \t\r\n\0')
    assert name[0] not in ".- "
    assert name[-1] not in ". "
    assert name.partition(".")[0].casefold() not in DEVICES
    assert unicodedata.is_normalized("NFC", name)
    assert all(not unicodedata.category(char).startswith(("C", "Z")) for char in name)
    assert Path("images", name).name == name


@settings(max_examples=400)
@given(st.lists(hostile, unique=True, min_size=2, max_size=10))
def test_distinct_texts_give_names_that_differ_by_more_than_case(texts: list[str]) -> None:
    names = {unicodedata.normalize("NFKC", safe_name(text)).casefold() for text in texts}
    assert len(names) == len(texts)


@given(hostile, hostile)
def test_a_name_does_not_depend_on_other_names(one: str, other: str) -> None:
    alone = safe_name(one)
    safe_name(other)
    assert safe_name(one) == alone


@given(hostile)
def test_a_name_is_never_taken_by_the_text_that_spells_it(text: str) -> None:
    name = safe_name(text)
    assert name == text or safe_name(name) != name


@pytest.mark.parametrize("text", ["sku-1", "a", "0", "mug.v2", "red_mug-12.16", "x" * 100, "console", "a-1234567"])
def test_plain_texts_are_used_as_they_are(text: str) -> None:
    assert safe_name(text) == text


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("SKU-1", "SKU-1-"),
        ("Blue Mug / large", "Blue-Mug-large-"),
        ("../../etc/passwd", "etc-passwd-"),
        ("sku-1.16:9:1", "sku-1.16-9-1-"),
        ("sku-1.16x9", "sku-1.16x9-"),  # taken by sku-1.16:9
        ("sku-1.2k", "sku-1.2k-"),
        ("Käse", "Käse-"),
        ("猫の写真", "猫の写真-"),
        ("", "task-"),
        ("…", "task-"),
        ("con", "_con-"),
        ("NUL.txt", "_NUL.txt-"),
        ("x" * 101, "x" * 91 + "-"),
        ("sku-0123abcd", "sku-0123abcd-"),
        (".hidden", "hidden-"),
        ("a.", "a-"),
    ],
)
def test_other_texts_are_cleaned_and_told_apart(text: str, start: str) -> None:
    name = safe_name(text)
    assert name.startswith(start)
    assert re.fullmatch(r"[0-9a-f]{8}", name.removeprefix(start))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sku-1.16:9", "sku-1.16x9"),
        ("sku-1.16:9.2K.v3", "sku-1.16x9.2k.v3"),
        ("sku-1.0.5K", "sku-1.0.5k"),
    ],
)
def test_the_parts_of_a_fan_out_are_spelt_for_files(text: str, name: str) -> None:
    assert safe_name(text) == name


def test_names_are_a_format_and_do_not_change() -> None:
    assert safe_name("Blue Mug / large") == "Blue-Mug-large-6381f2c7"


# --- folders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "first_total", "where"),
    [
        (1, 1, "images"),
        (1000, 1000, "images"),
        (1001, 1000, "images/00001"),
        (1, 1001, "images/00000"),
        (1000, 1001, "images/00000"),
        (1001, 1001, "images/00001"),
        (50_000, 50_000, "images/00049"),
        (1_000_000, 1_000_000, "images/00999"),
    ],
)
def test_a_thousand_tasks_share_a_folder(n: int, first_total: int, where: str) -> None:
    assert folder(n, first_total) == Path(where)


@settings(max_examples=30)
@given(st.integers(1, 5000), st.integers(1, 3000))
def test_no_folder_holds_more_than_a_thousand_however_a_batch_grows(total: int, first_total: int) -> None:
    counts: dict[Path, int] = {}
    for n in range(1, total + 1):
        where = folder(n, first_total)
        counts[where] = counts.get(where, 0) + 1
    assert max(counts.values()) <= 1000


def test_an_image_is_named_by_folder_and_text() -> None:
    assert image_name("mug.v1", n=1500, first_total=2000) == Path("images/00001/mug.v1")
    assert with_ending(Path("images/00001/mug.v1"), "image/jpeg") == Path("images/00001/mug.v1.jpg")


# --- templates --------------------------------------------------------------------------------------------

FIELDS = {"row": "sku-1", "aspect": "16:9", "resolution": "1K", "variant": "2", "version": "1", "Product Title": "Mug"}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{row}-{variant}", "sku-1-2"),
        ("{Product Title} {resolution}", "Mug 1K"),
        ("{{{row}}}", "{sku-1}"),
        ("plain", "plain"),
    ],
)
def test_a_template_is_filled(template: str, text: str) -> None:
    assert render(template, FIELDS) == text


@pytest.mark.parametrize("template", ["{nothing}", "{row", "row}", "{}", "{ro{w}}"])
def test_a_template_that_cannot_be_filled_says_so(template: str) -> None:
    with pytest.raises(TemplateError):
        render(template, FIELDS)


def test_what_a_value_holds_is_not_a_template() -> None:
    assert render("{row}", {"row": "{secret}", "secret": "x"}) == "{secret}"
