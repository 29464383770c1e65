"""The results of a run as JSON lines, one per task when it is settled, while the night goes on."""

import json
import time
from collections import Counter
from collections.abc import Iterator

from bydawn.moneylines import lines_data, stored_lines
from ledger.events import AttemptUnknown, TaskCancelled, TaskCompleted, TaskFailed, TaskShared
from ledger.reader import Reader
from ledger.streams import stream_parts

_PAGE = 2000
_STATUS_S = 30.0
_SETTLING = {
    TaskCompleted: "succeeded",
    TaskShared: "succeeded",
    TaskFailed: "failed",
    TaskCancelled: "cancelled",
    AttemptUnknown: "held",
}


class ResultLines:
    """Turns what became durable behind a place in the ledger into lines; call :meth:`lines` now and then."""

    def __init__(self, reader: Reader, batch: int) -> None:
        self._reader = reader
        self._batch = batch
        self._after = reader.head().seq
        self._status_at = time.monotonic() + _STATUS_S

    def lines(self) -> Iterator[str]:
        """Yield a ``result`` for each task settled since the last call, and a ``status`` every 30 s."""
        while page := self._reader.events(after=self._after, limit=_PAGE):
            self._after = page[-1].seq
            for recorded in page:
                place = stream_parts(recorded.stream)
                status = _SETTLING.get(type(recorded.event))
                if status is not None and place.kind == "task" and place.batch == self._batch:
                    yield self._result(place.n, status, recorded.seq)
        if time.monotonic() >= self._status_at:
            self._status_at = time.monotonic() + _STATUS_S
            yield self._status()

    def _result(self, n: int, status: str, seq: int) -> str:
        row = self._reader.task(self._batch, n)
        assert row is not None  # an event of its stream was just read
        return json.dumps(
            {
                "type": "result",
                "seq": seq,
                "id": row.id,
                "status": status,
                "provider": row.provider,
                "account": row.account,
                "sha256": row.sha256,
                "media_type": row.media_type,
                "attempts": row.attempts,
                "cost_microusd": row.cost_microusd,
                "reason": row.reason,
            }
        )

    def _status(self) -> str:
        states: Counter[str] = Counter()
        for row in self._reader.counts(self._batch):
            states[row.state] += row.n
        lines = lines_data(stored_lines(self._reader.money(), self._batch))
        return json.dumps({"type": "status", "counts": dict(states), **lines})
