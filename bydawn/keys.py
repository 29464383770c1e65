"""From settings and environment to accounts: which ones are meant, their keys, their limits, where they are reached.

A key is read from the environment or from a file that the environment or the settings name, goes into a
:class:`~adapters.base.Secret` at once, and is never shown: errors name the variable.
"""

import contextlib
import functools
import ipaddress
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from adapters import registry
from adapters.base import Secret
from bydawn import values
from bydawn.config import AccountTable, Config
from bydawn.errors import UserError
from runtime.accounts import Account

_log = logging.getLogger(__name__)


def chosen_accounts(config: Config, names: Sequence[str], *, need_keys: bool = True) -> list[Account]:
    """Return the accounts that ``names`` mean, each with its key.

    A name is an account or a provider, which means all its accounts; a provider without a table in the settings
    has one account of the same name.  Without names: every account of the settings, and every provider whose
    key is set, except those that join a batch only when they are named.

    Without ``need_keys`` (a plan sends nothing) an account may have an empty key.  The accounts are those that a run
    would buy from, so that what is planned and approved is what is run; where no key is set at all, all of them.

    Raises:
        UserError: an unknown name (exit 2); missing keys, all named together (exit 4).
    """
    warn_of_left_out()
    tables = _all_tables(config)
    known = registry.entries()
    for name, (table, path) in config.accounts.items():
        if table.provider not in known:
            raise UserError(
                "BD-040",
                f"there is no provider {table.provider!r}",
                where=f"accounts.{name} in {path}",
                fix="there are " + ", ".join(known),
            )
    chosen = dict.fromkeys(account for name in names for account in _meant(name, tables))
    wanted = chosen or [name for name in tables if name in config.accounts or not known[name].named_only]
    keys = {name: _key(name, *tables[name], config.env) for name in wanted}
    if not names:
        usable = {name: key for name, key in keys.items() if isinstance(key, Secret) or name in config.accounts}
        keys = usable if usable or need_keys else keys
    if not need_keys:
        keys = {name: key if isinstance(key, Secret) else Secret("") for name, key in keys.items()}
    missing = [(name, key) for name, key in keys.items() if isinstance(key, str)]
    if missing or not keys:
        raise _missing(missing or [(name, _variable(tables[name][0])) for name in tables])
    return [_account(name, *tables[name], key, config.env) for name, key in keys.items() if isinstance(key, Secret)]


def providers_with_keys(config: Config) -> frozenset[str]:
    """Name the providers of which an account has a key that can be read."""
    found = set()
    for name, (table, path) in _all_tables(config).items():
        with contextlib.suppress(UserError):
            if table.provider in registry.entries() and isinstance(_key(name, table, path, config.env), Secret):
                found.add(table.provider)
    return frozenset(found)


@functools.cache
def warn_of_left_out() -> None:
    """Say once per process which packages promise a provider and cannot keep it."""
    for point, reason in registry.added().left_out.items():
        _log.warning("the provider %s of a package is left out: %s (bydawn doctor tells more)", point, reason)


def _all_tables(config: Config) -> dict[str, tuple[AccountTable, Path | None]]:
    """All accounts there could be: those of the settings, and one per provider that has none."""
    tables: dict[str, tuple[AccountTable, Path | None]] = dict(config.accounts)
    served = {table.provider for table, _ in tables.values()}
    for provider in registry.entries():
        if provider not in served:
            tables[provider] = (AccountTable(provider=provider), None)
    return tables


def _meant(name: str, tables: Mapping[str, tuple[AccountTable, Path | None]]) -> list[str]:
    """A provider's name means all its accounts, also when one of them has the same name."""
    of_provider = [account for account, (table, _) in tables.items() if table.provider == name]
    if of_provider:
        return of_provider
    if name in tables:
        return [name]
    raise UserError(
        "BD-040",
        f"there is no provider or account {name!r}",
        where="--provider",
        fix="there are " + ", ".join(dict.fromkeys((*registry.entries(), *tables))),
    )


def _variable(table: AccountTable) -> str:
    return table.key_env or registry.codec(table.provider).capabilities.key_env


def _key(name: str, table: AccountTable, path: Path | None, env: Mapping[str, str]) -> Secret | str:
    """Return the key, or the name of the variable (or file) that should give it."""
    if table.key_file:
        if table.key_env:
            raise UserError(
                "BD-030",
                f"accounts.{name} has both key_env and key_file",
                where=str(path or ""),
                fix="keep one of them",
            )
        file = Path(table.key_file).expanduser()
        return _from_file(file if path is None else path.parent / file, name)
    variable = _variable(table)
    value = env.get(variable, "").strip()
    if value:
        return key_of(value, variable)
    file_variable = f"{variable}_FILE"
    if env.get(file_variable, "").strip():
        return _from_file(Path(env[file_variable].strip()).expanduser(), file_variable)
    return variable


def _from_file(path: Path, where: str) -> Secret:
    try:
        return key_of(path.read_text(encoding="utf-8").strip(), f"{where} ({path})")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise UserError(
            "BD-043",
            f"the key file {path} cannot be read",
            where=where,
            why=str(reason),
            fix="check the path",
            exit_code=4,
        ) from None


def key_of(value: str, where: str) -> Secret:
    """Wrap a key, refusing what could not stand in a header; the message must not show it."""
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise UserError(
            "BD-043",
            "the key is empty, or holds characters that no key has",
            where=where,
            fix="copy it again, without quotes or line breaks",
            exit_code=4,
        )
    return Secret(value)


def _account(name: str, table: AccountTable, path: Path | None, key: Secret, env: Mapping[str, str]) -> Account:
    where = f"accounts.{name}" + (f" in {path}" if path else "")
    base_url, loopback = base_url_of(table.provider, env)
    if table.max_inflight is not None and table.max_inflight < 1:
        raise UserError("BD-020", "max_inflight is at least 1", where=where)
    return Account(
        name=name,
        provider=table.provider,
        codec=registry.codec(table.provider),
        key=key,
        base_url=base_url,
        loopback=loopback,
        max_inflight=table.max_inflight,
        rate=values.rate(table.rate, where=f"{where}: rate") if table.rate else None,
        poll_rate=values.rate(table.poll_rate, where=f"{where}: poll_rate") if table.poll_rate else None,
        budget_microusd=_money(table.budget, f"{where}: budget"),
        budget_day_microusd=_money(table.budget_day, f"{where}: budget_day"),
        models=table.models,
    )


def _money(value: str | int | float | None, where: str) -> int | None:
    return None if value is None else values.money(str(value), where=where)


def base_url_of(provider: str, env: Mapping[str, str]) -> tuple[str, bool]:
    """Return the override of a provider's base URL, and whether it is a loopback address.

    Plain http would send the key in the clear, so it is for loopback only.
    """
    variable = f"BYDAWN_{provider.upper().replace('-', '_')}_BASE_URL"
    text = env.get(variable, "").strip().rstrip("/")
    if not text:
        return "", False
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    loopback = is_loopback(host)
    clean = not (parts.query or parts.fragment or parts.username or parts.password) and not any(map(str.isspace, text))
    if not host or not clean or parts.scheme not in (("http", "https") if loopback else ("https",)):
        raise UserError(
            "BD-042",
            "this base URL cannot be used",
            where=variable,
            why="it must be https, or plain http to this machine, without login, query or fragment",
            fix="for example https://gateway.example/kie or http://127.0.0.1:8700/kie",
        )
    return text, loopback


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _missing(missing: Sequence[tuple[str, str]]) -> UserError:
    listed = ", ".join(f"{variable} ({name})" for name, variable in missing)
    return UserError(
        "BD-041",
        "keys are missing: " + listed if len(missing) > 1 else "a key is missing: " + listed,
        why="neither the variable nor its _FILE form is set",
        fix=f"export {missing[0][1]}=..., or {missing[0][1]}_FILE=PATH; or leave it out with --provider; "
        "to practise without keys: --sandbox",
        exit_code=4,
    )
