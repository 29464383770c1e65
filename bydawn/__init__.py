"""bydawn buys large batches of images overnight from many providers and never silently pays twice.

This is the only package that users import from; the others may change without notice.  Names are loaded when they
are first used, since ``import bydawn`` is also the first step of every command.
"""

import os.path

import adapters as _adapters

TYPE_CHECKING = False  # importing typing for it would cost every start 10 ms
if TYPE_CHECKING:
    from bydawn.errors import UserError as UserError
    from ledger.errors import LedgerError as LedgerError
    from ledger.reader import Reader as Reader

__version__ = "0.1.0"

_NAMES = {
    "LedgerError": "ledger.errors",
    "Reader": "ledger.reader",
    "UserError": "bydawn.errors",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted((*globals(), *_NAMES))


def _root(path: str | None) -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(path or "")))


# A package on the index has this name too.  Found first, it would fail later and far from the cause.
if _root(_adapters.__file__) != _root(__file__):
    raise ImportError(
        f"another package named 'adapters' hides bydawn's own: {_adapters.__file__}\n"
        "  fix: install bydawn in an environment of its own, or uninstall that package there"
    )
