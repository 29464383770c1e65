"""Name templates are judged before anything is bought."""

from collections.abc import Iterable

import pytest

from adapters.base import ImageRequest
from bydawn.errors import UserError
from bydawn.naming import check_template
from ledger.imports import NewTask
from runtime.requests import encode_request, request_key


def task(line: int, row: str, aspect: str = "1:1", *, given: bool = True, title: str = "Mug") -> NewTask:
    request = ImageRequest(prompt=title, aspect=aspect)
    return NewTask(
        row=row,
        given=given,
        suffix=f".{aspect}",
        request=encode_request(request, {"title": title}),
        request_key=request_key(request, variant=1),
        model=request.model,
        aspect=aspect,
        resolution="1K",
        references=0,
        variant=1,
        line=line,
    )


def judge(template: str, *tasks: NewTask) -> None:
    def anew() -> Iterable[NewTask]:
        return iter(tasks)

    check_template(template, anew, where="rows.csv")


TALL_AND_WIDE = (task(1, "mug", "9:16"), task(1, "mug", "16:9"), task(2, "cup", "9:16"))


@pytest.mark.parametrize("template", ["{id}", "{row}_{aspect}", "{row}-{aspect}-{title}-v{version}"])
def test_a_template_that_tells_all_tasks_apart_is_taken(template: str) -> None:
    judge(template, *TALL_AND_WIDE)


def test_two_tasks_of_one_name_are_named() -> None:
    with pytest.raises(UserError) as caught:
        judge("{row}", *TALL_AND_WIDE)
    assert caught.value.code == "BD-021"
    assert caught.value.why == "mug.9:16 (row 1) and mug.16:9 (row 1) would both be mug"


def test_equal_rows_are_told_apart_by_their_ids_alone() -> None:
    equal = task(1, "k", given=False), task(2, "k", given=False)
    judge("{row}", *equal)
    with pytest.raises(UserError, match="same file name"):
        judge("{title}", *equal)


@pytest.mark.parametrize("template", ["{colour}", "{row", "row}"])
def test_what_cannot_be_filled_is_refused(template: str) -> None:
    with pytest.raises(UserError, match="cannot be used"):
        judge(template, *TALL_AND_WIDE)
