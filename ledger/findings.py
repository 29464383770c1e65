"""What a verification finds: problems with a place, each kind named a few times and counted in full."""

from collections import Counter

import msgspec

from ledger.streams import stream_label

_NAMED = 20


class Problem(msgspec.Struct, frozen=True):
    """``code`` is one of seq, version, epoch, chain, event, transition, views, books, payload, head."""

    code: str
    place: str
    text: str


class Findings:
    """Gathers problems.  A thousand of one kind are counted, and the first ones named."""

    def __init__(self) -> None:
        self.named: list[Problem] = []
        self.counts: Counter[str] = Counter()

    def problem(self, code: str, place: str, text: str) -> None:
        self.counts[code] += 1
        if self.counts[code] <= _NAMED:
            self.named.append(Problem(code, place, text))

    def add(self, other: "Findings") -> None:
        """Take over what another part of the verification found."""
        self.named += other.named
        self.counts += other.counts


def named_stream(stream: int) -> str:
    """Name a stream for people, also one whose key is none of ours."""
    try:
        return stream_label(stream)
    except ValueError:
        return f"stream {stream}"


def named_event(seq: int, stream: int) -> str:
    """Name an event with its stream."""
    return f"event {seq} ({named_stream(stream)})"
