"""Where settings come from: flag, environment, project file, user file, default, in this order.

``bydawn.toml`` is looked for upwards from the working directory, the user's file lies where the platform keeps
settings.  Every option has one name: ``--max-at-risk``, ``BYDAWN_MAX_AT_RISK`` and ``max_at_risk`` in a file.
Unknown keys are refused with their path, since a misspelt limit would silently be no limit.

A setting is text with its origin; ``bydawn.values`` reads the text, so that it means the same wherever it stood.
"""

import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

import msgspec
import platformdirs

from adapters import registry
from adapters.capabilities import Mark
from adapters.prices import Price, PriceBook, PriceKey
from bydawn.errors import UserError
from bydawn.values import money

PROJECT_NAME = "bydawn.toml"
USER_NAME = "config.toml"

# What may stand in a file.  Consent and one-off switches (yes, approved, dry_run, new ...) are left out on purpose:
# money is not agreed to by a file that somebody forgot.
OPTIONS = frozenset(
    (
        *("to", "ledger", "provider", "model", "reference", "aspect", "resolution", "variants", "encoding"),
        *("limit", "sample", "budget", "max_at_risk", "max_duplicate_usd", "deadline", "strategy", "keep_together"),
        *("attempts", "on_unknown", "trust", "on_refused", "on_change", "on_missing", "dedupe", "name_template"),
        *("webhook_url", "webhook_listen", "skip_invalid", "fit_references", "operator"),
    )
)

_T = TypeVar("_T")


class AccountTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[accounts.NAME]``.  ``key_env`` names an environment variable, ``key_file`` a file relative to this one."""

    provider: str
    key_env: str = ""
    key_file: str = ""
    max_inflight: int | None = None
    rate: str = ""
    poll_rate: str = ""
    budget: str | int | float | None = None
    budget_day: str | int | float | None = None
    models: tuple[str, ...] = ()


class _PriceTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    price: str | int | float
    with_references: str | int | float | None = None
    source: str = ""


class ConfigFile(msgspec.Struct, frozen=True):
    """One settings file, checked."""

    path: Path
    options: dict[str, tuple[str, ...]]
    maps: dict[str, str]
    accounts: dict[str, AccountTable]
    prices: dict[PriceKey, Price]


class Setting(msgspec.Struct, frozen=True):
    """``value`` is empty when nobody set it; ``origin`` is for ``config show --origin`` and error messages."""

    value: str
    origin: str


class Config(msgspec.Struct, frozen=True):
    """All sources but the flags.  ``files`` come in order of precedence."""

    files: tuple[ConfigFile, ...]
    env: Mapping[str, str]

    def setting(self, name: str, flag: str | bool | None = None, default: str = "") -> Setting:
        """Return what applies for an option.  An empty text counts as given, ``None`` and ``False`` as not given: a
        switch that is off on the command line does not override one that is on elsewhere."""
        flags = () if flag is None or flag is False else (_text(flag),)
        parts, origin = self.many(name, flags)
        return Setting(",".join(parts), origin) if origin else Setting(default, "default")

    def many(self, name: str, flags: Iterable[str] = ()) -> tuple[tuple[str, ...], str]:
        """Return the values of an option that may be given several times, and their origin (empty: nobody set it)."""
        given = tuple(flags)
        if given:
            return given, "--" + name.replace("_", "-")
        variable = "BYDAWN_" + name.upper()
        if variable in self.env:
            return (self.env[variable],), variable
        for file in self.files:
            if name in file.options:
                return file.options[name], f"{name} in {file.path}"
        return (), ""

    def maps(self, flags: Mapping[str, str]) -> dict[str, str]:
        """Return ``[map]`` of the files under the ``--map`` flags, field by field."""
        merged: dict[str, str] = {}
        for file in reversed(self.files):
            merged |= file.maps
        return merged | dict(flags)

    @property
    def accounts(self) -> dict[str, tuple[AccountTable, Path]]:
        """Account tables by name, each with the file it stands in."""
        merged: dict[str, tuple[AccountTable, Path]] = {}
        for file in reversed(self.files):
            merged |= {name: (table, file.path) for name, table in file.accounts.items()}
        return merged

    def price_book(self) -> PriceBook:
        """Return the default prices, and those that packages add, under those of the files."""
        book = registry.price_book()
        for file in reversed(self.files):
            book = book.with_prices(file.prices)
        return book


def load_config(start: Path, env: Mapping[str, str], *, user_file: Path | None = None) -> Config:
    """Read the project file above ``start`` and the user's file, where there are any."""
    user = user_file or platformdirs.user_config_path("bydawn") / USER_NAME
    start = start.absolute()
    project = next(
        (folder / PROJECT_NAME for folder in (start, *start.parents) if (folder / PROJECT_NAME).is_file()), None
    )
    paths = [path for path in (project, user) if path is not None and path.is_file()]
    return Config(tuple(read_file(path) for path in paths), dict(env))


def refuse_stray_ledger(
    ledger: Path, config: Config, *, named: bool, asked: bool, terminal: bool, sandbox: bool
) -> None:
    """Refuse to begin a new ledger by accident: a script in the wrong folder would buy everything a second time.

    Args:
        named: ``--ledger`` was given.
        asked: ``--new-ledger`` was given.
        sandbox: practice costs nothing, so it may begin anywhere.

    Raises:
        UserError: off a terminal, where nothing says that a new ledger is wanted.
    """
    project = ledger.parent / PROJECT_NAME
    if ledger.exists() or named or asked or terminal or sandbox or any(file.path == project for file in config.files):
        return
    raise UserError(
        "BD-031",
        "there is no ledger here, and nobody at a terminal to ask whether to begin one",
        where=str(ledger),
        why="in the wrong folder, a new ledger would know nothing of what was bought already",
        fix="--new-ledger the first time, --ledger FILE, or a bydawn.toml in the folder",
    )


def read_file(path: Path) -> ConfigFile:
    """Read and check one settings file.

    Raises:
        UserError: it is no TOML, or holds something that bydawn does not know.
    """
    try:
        tree: dict[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise UserError(
            "BD-030", "the settings cannot be read", where=str(path), why=str(exc), fix="correct the file"
        ) from exc
    options: dict[str, tuple[str, ...]] = {}
    tables = {"map", "accounts", "prices"}
    for key, value in tree.items():
        if key in tables:
            continue
        name = key.replace("-", "_")
        if name not in OPTIONS:
            raise _unknown_key(path, key, OPTIONS | tables)
        options[name] = tuple(_scalar(path, key, part) for part in (value if isinstance(value, list) else [value]))
    accounts: dict[str, AccountTable] = {}
    for name, table in _convert(path, "accounts", tree.get("accounts", {}), dict[str, dict[str, object]]).items():
        accounts[name] = _convert(path, f"accounts.{name}", table, AccountTable)
    return ConfigFile(
        path=path,
        options=options,
        maps=_convert(path, "map", tree.get("map", {}), dict[str, str]),
        accounts=accounts,
        prices=_prices(path, tree.get("prices", {})),
    )


def _prices(path: Path, tree: object) -> dict[PriceKey, Price]:
    """Read ``[prices.PROVIDER.MODEL]`` with ``"1K" = 0.06`` or ``"1K" = { price = 0.06, with_references = 0.07 }``."""
    prices: dict[PriceKey, Price] = {}
    mark: Mark = "confirmed"
    kind = dict[str, dict[str, dict[str, object]]]
    for provider, models in _convert(path, "prices", tree, kind).items():
        for model, sizes in models.items():
            for size, value in sizes.items():
                where = f"prices.{provider}.{model}.{size}"
                table = (
                    _convert(path, where, value, _PriceTable)
                    if isinstance(value, dict)
                    else _PriceTable(_scalar(path, where, value))
                )
                for references, amount in ((False, table.price), (True, table.with_references)):
                    amount = table.price if amount is None else amount
                    cost = money(_text(amount), where=f"{where} in {path}")
                    source = table.source or f"set in {path.name}"
                    prices[(provider, model, size.upper(), references)] = Price(cost, source, "", mark)
    return prices


def _convert(path: Path, key: str, value: object, kind: type[_T]) -> _T:
    """Check one part of a file; what is wrong is named with its whole path, which msgspec alone cannot know."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        text, _, inner = str(exc).partition(" - at ")
        if text.startswith("Object contains unknown field "):
            unknown = text.removeprefix("Object contains unknown field ").strip("`")
            raise _unknown_key(path, f"{key}.{unknown}", getattr(kind, "__struct_fields__", ())) from exc
        place = key + inner.strip("`").removeprefix("$")
        raise UserError("BD-030", f"{place}: {text}", where=str(path), fix="correct the value") from exc


def _unknown_key(path: Path, key: str, known: Iterable[str]) -> UserError:
    names = sorted(known)
    near = get_close_matches(key.rpartition(".")[2].replace("-", "_"), names, n=1)
    return UserError(
        "BD-030",
        f"the key {key!r} is not known",
        where=str(path),
        why=f"did you mean {near[0]!r}?" if near else "known are " + ", ".join(names),
        fix="correct or remove it",
    )


def _scalar(path: Path, key: str, value: object) -> str:
    if isinstance(value, str | int | float):
        return _text(value)
    raise UserError(
        "BD-030",
        f"{key}: expected a text, a number, true or false",
        where=str(path),
        why=f"it holds a {type(value).__name__}",
        fix="put it in quotes",
    )


def _text(value: str | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
