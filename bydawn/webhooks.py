"""Where providers call back: the public address, where bydawn listens for it, and the secrets that callbacks are
signed with.  Settings only; who listens is :mod:`bydawn.receiver`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from adapters.base import Secret
from bydawn.errors import UserError
from bydawn.keys import is_loopback, key_of
from runtime.accounts import Account

OFF = "off"
_PORT = 8787


class Place(msgspec.Struct, frozen=True):
    """Where bydawn listens."""

    host: str
    port: int

    @property
    def text(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def public_url(text: str, *, where: str) -> str:
    """Check the address that providers are told; empty for ``off``.

    Raises:
        UserError: it is no address that a provider could call without telling others what it says.
    """
    text = text.strip().rstrip("/")
    if text in ("", OFF):
        return ""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    clean = not (parts.query or parts.fragment or parts.username or parts.password) and text.isascii()
    schemes = ("http", "https") if is_loopback(host) else ("https",)
    if not host or not clean or " " in text or parts.scheme not in schemes:
        raise UserError(
            "BD-046",
            "providers cannot be told this webhook URL",
            where=where,
            why="it must be https, or plain http to this machine, without login, query or fragment",
            fix="for example https://hooks.example.org, where a proxy passes it on to this machine",
        )
    return text


def listening_place(text: str, url: str, *, where: str) -> Place:
    """Where to listen: as it was given, else at the loopback address of the URL itself, else at port 8787 here."""
    if text.strip():
        host, colon, port = text.strip().rpartition(":")
        host = host.removeprefix("[").removesuffix("]") if colon else "127.0.0.1"
        if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536 or not host:
            raise UserError("BD-020", f"{text!r} is no HOST:PORT", where=where, fix="for example 127.0.0.1:8787")
        return Place(host, int(port))
    parts = urlsplit(url)
    if is_loopback(parts.hostname or ""):
        return Place(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    return Place("127.0.0.1", _PORT)


def secret_variable(provider: str) -> str:
    """The environment variable of the secrets that a provider signs with."""
    return f"BYDAWN_WEBHOOK_SECRET_{provider.upper().replace('-', '_')}"


def webhook_secrets(providers: Iterable[str], env: Mapping[str, str]) -> dict[str, tuple[Secret, ...]]:
    """Read ``BYDAWN_WEBHOOK_SECRET_<PROVIDER>`` (or ``..._FILE``) of each provider; several after a rotation, between
    spaces, line ends or commas.

    Raises:
        UserError: a file cannot be read, or a secret holds what none does.
    """
    found: dict[str, tuple[Secret, ...]] = {}
    for provider in dict.fromkeys(providers):
        variable = secret_variable(provider)
        text, where = env.get(variable, ""), variable
        file = env.get(f"{variable}_FILE", "").strip()
        if not text.strip() and file:
            text, where = _read(Path(file).expanduser(), f"{variable}_FILE"), f"{variable}_FILE ({file})"
        secrets = tuple(key_of(part, where) for part in text.replace(",", " ").split())
        if secrets:
            found[provider] = secrets
    return found


def _read(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UserError(
            "BD-043",
            f"the file of webhook secrets {path} cannot be read",
            where=where,
            why=(exc.strerror or "") if isinstance(exc, OSError) else "it is not text",
            fix="check the path",
            exit_code=4,
        ) from None


class Calling(msgspec.Struct, frozen=True):
    """How this run is called back: the address that providers are told, where it is listened to, and the secrets by
    provider."""

    url: str
    place: Place
    secrets: dict[str, tuple[Secret, ...]]

    def lines(self, accounts: Sequence[Account]) -> tuple[str, ...]:
        """Say which of the accounts call back, and which of those calls are checked by their signature."""
        callers = [account for account in accounts if account.calls_back]
        others = ", ".join(account.name for account in accounts if not account.calls_back)
        if not callers:
            return (f"callbacks: none of these providers calls back, they are polled: {others}",)
        named = ", ".join(
            f"{account.name} (signature checked)" if self._checked(account) else account.name for account in callers
        )
        return (f"callbacks: {named} to {self.url}", *([f"  polled: {others}"] if others else []))

    def _checked(self, account: Account) -> bool:
        record = account.codec.capabilities.callback
        return record is not None and record.value != "unsigned" and bool(self.secrets.get(account.provider))


def calling_of(url: str, listen: str, accounts: Sequence[Account], env: Mapping[str, str]) -> Calling | None:
    """Put the settings together; None when no webhook URL is set.

    Raises:
        UserError: one of them cannot be used.
    """
    checked = public_url(url, where="--webhook-url")
    if not checked:
        return None
    place = listening_place(listen, checked, where="--webhook-listen")
    return Calling(checked, place, webhook_secrets((account.provider for account in accounts), env))
