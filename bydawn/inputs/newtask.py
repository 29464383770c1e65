"""One task as the ledger's import takes it."""

import msgspec


class NewTask(msgspec.Struct, frozen=True, gc=False):
    row: str
    given: bool
    suffix: str
    request: str
    request_key: bytes
    model: str
    aspect: str
    resolution: str
    references: int
    variant: int
    line: int
    group: str = ""
