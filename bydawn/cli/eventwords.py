"""Events in words: one line each, for a person who wants to know what happened.

Works for every event, those of later versions included, since it goes by the fields' names and units.  Addresses of
results are never told: they are as good as the image (SEC-1).
"""

from collections.abc import Callable

from bydawn.cli.formats import dollars, moment, size
from ledger.events import Fact, PayloadRef

_SECRET = frozenset({"url"})
_DULL = frozenset(
    {"attempt", "body_digest", "deadline_us", "device", "fingerprint", "inode", "ledger_id", "machine", "number"}
)


def short_name(event: Fact) -> str:
    """``attempt accepted`` for ``task.attempt_accepted.v1``."""
    return event.TYPE.split(".")[1].replace("_", " ")


def told_fields(event: Fact, text_of: Callable[[PayloadRef], str | None]) -> dict[str, str]:
    """The fields worth telling, in words; texts are looked up, and an erased one says so."""
    told = {}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if name in _SECRET or name in _DULL or value is None or value in ("", (), {}):
            continue
        if isinstance(value, PayloadRef):
            if name != "request":
                told[name] = text_of(value) or "[erased]"
        elif name.endswith("_microusd"):
            told[name.removesuffix("_microusd")] = dollars(value)
        elif name.endswith("_us"):
            if value:
                told[name.removesuffix("_us").removesuffix("_at")] = moment(value)
        elif name == "sha256":
            told[name] = f"{value[:12]}…"
        elif name == "size":
            told[name] = size(value)
        elif isinstance(value, tuple):
            told[name] = ", ".join(map(str, value))
        elif value != 0:
            told[name] = str(value)
    return told


def tell(event: Fact, text_of: Callable[[PayloadRef], str | None]) -> str:
    """One line: which attempt, then the fields."""
    number = getattr(event, "attempt", 0)
    parts = [f"{name.replace('_', ' ')} {text}" for name, text in told_fields(event, text_of).items()]
    head = f"{short_name(event)} #{number}" if number else short_name(event)
    return f"{head}: {', '.join(parts)}" if parts else head
