"""What the events of a batch say: its name and folder, how it is run, what was agreed, what was imported.

Total like every fold.  The tasks of a batch are streams of their own (:mod:`ledger.folds`).
"""

from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from ledger.events import (
    BatchCancelled,
    BatchConfigured,
    BatchEvent,
    BatchMoved,
    BatchOpened,
    BatchSealed,
    ImportDropped,
    ImportOpened,
    SpendAgreed,
)


class BatchSettings(msgspec.Struct, frozen=True):
    """How the batch is run; None means that it was never given and the default of the program holds."""

    providers: tuple[str, ...] | None = None
    budget_microusd: int | None = None
    max_at_risk_microusd: int | None = None
    max_duplicate_usd_micro: int | None = None
    attempts: int | None = None
    on_unknown: Literal["hold", "resubmit", "ask"] | None = None
    trust: Literal["documented", "assumed"] | None = None
    on_refused: Literal["fail", "reroute"] | None = None
    deadline_us: int | None = None
    limit: int | None = None
    sample: int | None = None
    strategy: str | None = None
    name_template: str | None = None
    webhook_url: str | None = None  # "off" = none
    webhook_listen: str | None = None
    sample_ppm: int | None = None


class ImportState(msgspec.Struct, frozen=True):
    """One import; ``last`` is its highest task number once it is sealed or dropped."""

    number: int
    first: int
    source: str
    input_digest: str
    phase: Literal["open", "sealed", "dropped"] = "open"
    last: int = 0
    rows: int = 0
    mapping: dict[str, str] = {}


class BatchState(msgspec.Struct, frozen=True):
    """``sealed_through`` is the highest task number that may be bought (LED-11)."""

    version: int = 0
    name: str = ""
    folder: str = ""
    sandbox: bool = False
    opened_at_us: int = 0
    settings: BatchSettings = BatchSettings()
    agreed: SpendAgreed | None = None
    imports: tuple[ImportState, ...] = ()
    sealed_through: int = 0
    cancelled: bool = False
    rerun_of: int = 0  # the batch of which it wants everything again; 0 = of none

    @property
    def open_import(self) -> ImportState | None:
        """The import that was killed or is under way."""
        return next((entry for entry in self.imports if entry.phase == "open"), None)


EMPTY_BATCH = BatchState()


def evolve_batch(state: BatchState, event: BatchEvent, *, at_us: int) -> BatchState:
    """Apply one fact.  Total."""
    state = replace(state, version=state.version + 1)
    match event:
        case BatchOpened():
            return replace(
                state,
                name=event.name,
                folder=event.folder,
                sandbox=event.sandbox,
                opened_at_us=at_us,
                rerun_of=event.rerun_of,
            )
        case BatchConfigured():
            return replace(state, settings=_configured(state.settings, event))
        case SpendAgreed():
            return replace(state, agreed=event)
        case ImportOpened():
            entry = ImportState(event.number, event.first, event.source, event.input_digest, mapping=event.mapping)
            return replace(state, imports=(*state.imports, entry))
        case BatchSealed():
            imports = _closed(state.imports, event.number, phase="sealed", last=event.tasks, rows=event.rows)
            return replace(state, imports=imports, sealed_through=max(state.sealed_through, event.tasks))
        case ImportDropped():
            return replace(state, imports=_closed(state.imports, event.number, phase="dropped", last=event.last))
        case BatchMoved():
            return replace(state, folder=event.folder)
        case BatchCancelled():
            return replace(state, cancelled=True)
        case _:
            assert_never(event)


def _configured(settings: BatchSettings, event: BatchConfigured) -> BatchSettings:
    given = {name: getattr(event, name) for name in BatchSettings.__struct_fields__}
    return replace(settings, **{name: value for name, value in given.items() if value is not None})


def _closed(imports: tuple[ImportState, ...], number: int, **changes: object) -> tuple[ImportState, ...]:
    return tuple(replace(entry, **changes) if entry.number == number else entry for entry in imports)
