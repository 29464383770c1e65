"""Options that several commands share, with the same words everywhere."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

F = TypeVar("F", bound=Callable[..., object])


def ledger_options(command: F) -> F:
    """``--ledger`` and ``--sandbox``: which ledger is meant."""
    command = click.option(
        "--sandbox", is_flag=True, help="Practice: emulated providers, and a ledger of its own, bydawn-sandbox.db."
    )(command)
    return click.option(
        "--ledger",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="BYDAWN_LEDGER",
        metavar="FILE",
        help="The ledger; else bydawn.db beside the nearest bydawn.toml or bydawn.db upwards.",
    )(command)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")(command)
