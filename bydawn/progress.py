"""Progress of a running batch: a bar with rate, ETA and spend on a terminal, else a plain line now and then.

It reads the views and nothing else, a few times a second, so that what it shows is what is durable.
"""

import sys
import time
from collections import Counter, deque
from collections.abc import Callable

import trio

from bydawn.cli.formats import count, dollars, duration, percent
from bydawn.overview import IN_FLIGHT, SETTLED
from ledger.money import Balance, batch_money
from ledger.reader import Reader

_BAR_S = 0.25
_LINE_S = 30.0
_RATE_WINDOW_S = 30.0


class Progress:
    """``wanted`` is how many tasks this run is to settle; ``note`` gets a line for the person."""

    def __init__(self, reader: Reader, batch: int, *, wanted: int, note: Callable[[str], None], bar: bool) -> None:
        self._reader = reader
        self._batch = batch
        self._wanted = wanted
        self._note = note
        self._bar = bar
        self._seen: deque[tuple[float, int]] = deque()

    async def run(self) -> None:
        """Show until cancelled."""
        shown = False
        try:
            while True:
                await trio.sleep(_BAR_S if self._bar else _LINE_S)
                text = self.line()
                if self._bar:
                    sys.stderr.write(f"\r\x1b[2K{text}")
                    sys.stderr.flush()
                    shown = True
                else:
                    self._note(text)
        finally:
            if shown:
                sys.stderr.write("\r\x1b[2K")
                sys.stderr.flush()

    def line(self) -> str:
        """One line: settled of wanted, rate, ETA, spend, what is in flight, failed and held."""
        states: Counter[str] = Counter()
        for row in self._reader.counts(self._batch):
            states[row.state] += row.n
        money = self._reader.money(batch_money(self._batch)).get(batch_money(self._batch), Balance())
        settled = sum(states[state] for state in SETTLED)
        in_flight = sum(states[state] for state in IN_FLIGHT)
        rate = self._rate(settled)
        left = max(0, self._wanted - settled)
        eta = f"  ETA {duration(left / rate)}" if rate > 0 and left else ""
        parts = [
            f"{count(settled)}/{count(self._wanted)}  {percent(settled, self._wanted)}",
            f"{rate:.1f}/s{eta}" if rate > 0 else "",
            dollars(money.captured),
            f"in flight {count(in_flight)}" if in_flight else "",
            f"failed {count(states['failed'])}" if states["failed"] else "",
            f"held {count(states['held'])}" if states["held"] else "",
        ]
        text = "  ".join(part for part in parts if part)
        return f"{_drawn(settled, self._wanted)}  {text}" if self._bar else text

    def _rate(self, settled: int) -> float:
        moment = time.monotonic()
        self._seen.append((moment, settled))
        while self._seen[0][0] < moment - _RATE_WINDOW_S:
            self._seen.popleft()
        first_moment, first = self._seen[0]
        return (settled - first) / (moment - first_moment) if moment - first_moment > 1 else 0.0


def _drawn(settled: int, wanted: int, cells: int = 24) -> str:
    filled = cells * min(settled, wanted) // wanted if wanted else cells
    return "█" * filled + "░" * (cells - filled)
