"""The end of a run in figures: the last JSON line, and what the person is told."""

import msgspec

from bydawn.buying import Ended
from bydawn.lines import Lines, lines_data, stored_lines
from ledger.reader import Reader


class Summary(msgspec.Struct, frozen=True):
    """Counts of tasks by state, and the dollars of the whole batch; only ``run_cost_microusd`` is this run's."""

    batch: str
    tasks: int
    succeeded: int
    failed: int
    held: int
    cancelled: int
    rejected: int
    flagged: int
    shared: int
    reused: int
    run_cost_microusd: int
    lines: Lines
    stopped_by: str
    seconds: float

    def data(self) -> dict[str, object]:
        """The fields for scripts.  Additive only; amounts in micro-dollars."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "lines"}
        return {**fields, "ambiguous": self.lines.ambiguous.n, **lines_data(self.lines)}


def summarise(reader: Reader, batch: int, ended: Ended) -> Summary:
    states: dict[str, int] = {}
    for row in reader.counts(batch):
        states[row.state] = states.get(row.state, 0) + row.n
    tallies = reader.tallies(batch)
    state = reader.batch(batch)
    return Summary(
        batch=state.name,
        tasks=state.sealed_through,
        succeeded=states.get("succeeded", 0),
        failed=states.get("failed", 0),
        held=states.get("held", 0),
        cancelled=states.get("cancelled", 0),
        rejected=tallies.get("rejected", 0),
        flagged=tallies.get("flagged", 0),
        shared=tallies.get("shared", 0),
        reused=0,
        run_cost_microusd=ended.run_cost_microusd,
        lines=stored_lines(reader.money(), batch),
        stopped_by=ended.stopped_by,
        seconds=round(ended.seconds, 3),
    )
