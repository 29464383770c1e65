"""What a capability record rules out by itself; the codecs' tests have the rest."""

import msgspec
import pytest

from adapters.base import ImageRequest
from adapters.capabilities import Known
from adapters.fitting import misfit
from adapters.replicate_record import CAPABILITIES


@pytest.mark.parametrize(("length", "fits"), [(10, True), (11, False)])
def test_a_documented_prompt_limit_is_kept(length: int, fits: bool) -> None:
    models = CAPABILITIES.models
    short = tuple(msgspec.structs.replace(model, max_prompt_chars=10) for model in models.value)
    record = msgspec.structs.replace(CAPABILITIES, models=msgspec.structs.replace(models, value=short))
    found = misfit(record, ImageRequest("ü" * length))
    assert found == (None if fits else "the prompt has 11 characters, Replicate takes 10 for nano-banana-2")


@pytest.mark.parametrize(("value", "fits"), [(True, True), (False, False), (None, False)])
def test_a_version_is_taken_only_where_the_record_says_so(value: bool | None, fits: bool) -> None:
    pin = None if value is None else Known(value, "a page", "2026-11-22", "confirmed")
    record = msgspec.structs.replace(CAPABILITIES, version_pin=pin)
    found = misfit(record, ImageRequest("x", model_version="ab" * 32))
    assert found == (None if fits else "Replicate has no version pins")
