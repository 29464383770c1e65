"""Every recorded reply means what its row says, and a field that nobody knew yet changes nothing.

The rows of a provider stand in ``tests/data/<provider>/replies.json`` with their sources.  Kie, ApiPass, NewportAI and
Google's batches tell more in a row than the others, and read theirs in their own tests.
"""

import msgspec
import pytest

from adapters.base import HttpReply
from adapters.registry import codec
from tests.adapters.replies import Row, load, read, shown

PROVIDERS = ("apertis", "byteplus", "google", "replicate", "segmind", "toapis", "together", "wavespeed")
ROWS = [pytest.param(name, row, id=f"{name}-{row.name}") for name in PROVIDERS for row in load(name).values()]


@pytest.mark.parametrize(("provider", "row"), ROWS)
def test_recorded_replies_mean_what_they_say(provider: str, row: Row) -> None:
    assert shown(read(codec(provider), row.kind, row.reply), row.outcome) == row.outcome


@pytest.mark.parametrize(("provider", "row"), ROWS)
def test_unknown_fields_change_nothing(provider: str, row: Row) -> None:
    body = msgspec.json.encode({**row.body, "brand_new": {"deep": [1, None]}})
    more = HttpReply(row.status, row.headers, body)
    assert shown(read(codec(provider), row.kind, more), row.outcome) == row.outcome
