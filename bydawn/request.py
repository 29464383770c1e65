"""The command line of ``run`` and ``plan`` as one value, its options as they apply (flag, environment, files), and what
they change in how a batch is run."""

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from bydawn import values
from bydawn.config import Config
from bydawn.inputs import InputOptions, parse_maps
from bydawn.onunknown import on_unknown
from bydawn.opening import operator
from bydawn.trusting import trust
from ledger.events import BatchConfigured, BatchEvent
from ledger.folds import BatchState, evolve_batch


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The command line, as it was given; empty or None = not given."""

    target: str
    yes: bool
    dry_run: bool
    new: bool
    approved: Path | None = None
    tolerance: str | None = None
    save: Path | None = None
    quotes: bool = False
    name: str = ""
    to: Path | None = None
    providers: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    aspects: tuple[str, ...] = ()
    resolutions: tuple[str, ...] = ()
    variants: str | None = None
    limit: str | None = None
    sample: str | None = None
    budget: str | None = None
    max_at_risk: str | None = None
    deadline: str | None = None
    attempts: str | None = None
    name_template: str | None = None
    webhook_url: str | None = None
    webhook_listen: str | None = None
    encoding: str | None = None
    dedupe: str | None = None
    on_change: str | None = None
    on_unknown: str | None = None
    max_duplicate_usd: str | None = None
    trust: str | None = None
    skip_invalid: bool = False
    fit_references: bool = False
    new_ledger: bool = False
    as_json: bool = False
    quiet: bool = False
    verbose: int = 0
    ledger: Path | None = None
    sandbox: bool = False


class Settings:
    """The options of this run, from flag, environment and files."""

    def __init__(self, request: Request, config: Config) -> None:
        self.config = config
        self._request = request

    def text(self, name: str, default: str = "") -> str:
        flag: str | bool | None = getattr(self._request, name, None)
        return self.config.setting(name, flag or None, default).value

    def many(self, name: str, flags: Sequence[str]) -> tuple[str, ...]:
        found, _ = self.config.many(name, flags)
        return tuple(part for text in found for part in values.listed(text))

    def whole(self, name: str, *, least: int = 1) -> int | None:
        setting = self.config.setting(name, getattr(self._request, name))
        return values.whole(setting.value, where=setting.origin, least=least) if setting.value else None

    def part(self, name: str) -> tuple[int, int]:
        """So many, or so many millionths of all; (0, 0) where not given."""
        setting = self.config.setting(name, getattr(self._request, name))
        return values.part(setting.value, where=setting.origin) if setting.value else (0, 0)

    def money(self, name: str) -> int | None:
        setting = self.config.setting(name, getattr(self._request, name))
        return values.money(setting.value, where=setting.origin) if setting.value else None

    def moment_us(self, name: str) -> int | None:
        setting = self.config.setting(name, getattr(self._request, name))
        if not setting.value:
            return None
        zone = datetime.now().astimezone().tzinfo
        assert zone is not None
        return values.moment_us(setting.value, where=setting.origin, now_us=now_us(), zone=zone)

    def input_options(self) -> InputOptions:
        request = self._request
        return InputOptions(
            maps=self.config.maps(parse_maps(request.maps)),
            references=self.config.many("reference", request.references)[0],
            aspects=self.many("aspect", request.aspects),
            resolutions=self.many("resolution", request.resolutions),
            models=self.many("model", request.models),
            variants=self.whole("variants"),
            encoding=self.text("encoding"),
            skip_invalid=values.yes(self.text("skip_invalid"), where="skip_invalid"),
        )


def now_us() -> int:
    """UTC microseconds."""
    return time.time_ns() // 1000


def changed_settings(state: BatchState, request: Request, settings: Settings) -> BatchConfigured | None:
    """What the options of this call change in how the batch is run; None when nothing, and the rest stays as it was."""
    sample, sample_ppm = settings.part("sample")
    given = BatchConfigured(
        operator=operator(),
        providers=settings.many("provider", request.providers) or None,
        budget_microusd=settings.money("budget"),
        max_at_risk_microusd=settings.money("max_at_risk"),
        max_duplicate_usd_micro=settings.money("max_duplicate_usd"),
        on_unknown=on_unknown(settings.text("on_unknown")),
        trust=trust(settings.text("trust")),
        attempts=settings.whole("attempts"),
        deadline_us=settings.moment_us("deadline"),
        limit=settings.whole("limit", least=1) or 0,
        sample=sample,
        sample_ppm=sample_ppm or (0 if state.settings.sample_ppm else None),
        name_template=settings.text("name_template") or None,
        webhook_url=settings.text("webhook_url") or None,
        webhook_listen=settings.text("webhook_listen") or None,
    )
    changes = {
        name: value
        for name in state.settings.__struct_fields__
        if (value := getattr(given, name)) is not None and value != getattr(state.settings, name)
    }
    return BatchConfigured(operator=given.operator, **changes) if changes else None


def supposing(state: BatchState, event: BatchEvent | None) -> BatchState:
    """The batch as it will be with an event that is not on record yet."""
    return state if event is None else evolve_batch(state, event, at_us=now_us())


def settings_now(state: BatchState, request: Request, settings: Settings) -> BatchState:
    """The batch as it will be run with the options of this call."""
    return supposing(state, changed_settings(state, request, settings))
