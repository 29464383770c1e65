"""The recorded replies of a provider: rows that the codec must read and that the emulator must resemble."""

from pathlib import Path
from typing import Literal

import msgspec

from adapters.base import Codec, HttpReply, Polls

DATA = Path(__file__).parent.parent / "data"


class Row(msgspec.Struct, frozen=True):
    """One exchange: what came, and what it means.  ``outcome`` names the fields that matter."""

    name: str
    kind: Literal["submit", "poll", "check"]
    source: str
    status: int
    body: dict[str, object]
    outcome: dict[str, object]
    headers: dict[str, str] = {}

    @property
    def reply(self) -> HttpReply:
        return HttpReply(self.status, self.headers, msgspec.json.encode(self.body))


class _Rows(msgspec.Struct, frozen=True):
    sources: dict[str, str]
    rows: list[Row]


def load(provider: str) -> dict[str, Row]:
    """Read the rows of a provider by name; each names a listed source."""
    file = msgspec.json.decode((DATA / provider / "replies.json").read_bytes(), type=_Rows)
    assert {row.source for row in file.rows} <= file.sources.keys()
    rows = {row.name: row for row in file.rows}
    assert len(rows) == len(file.rows)
    return rows


def read(codec: Codec, kind: str, reply: HttpReply) -> object:
    """Let the codec read the reply as the answer to a call of that kind."""
    match kind:
        case "submit":
            return codec.read_submit(reply)
        case "poll":
            assert isinstance(codec, Polls)
            return codec.read_poll(reply)
        case _:
            return codec.read_check(reply)


def shown(outcome: object, fields: dict[str, object]) -> dict[str, object]:
    """Give the type of an outcome and those of its fields that ``fields`` names."""
    named = {field: getattr(outcome, field) for field in fields if field != "type"}
    return {"type": type(outcome).__name__} | named
