"""``bydawn doctor``: is this machine fit for a night's run?"""

import os
from pathlib import Path

import click

from adapters.registry import added, codec, entries
from bydawn.cli.options import json_option, ledger_options
from bydawn.cli.output import bad, doubtful, faint, good, json_line, line, talk
from bydawn.config import load_config
from bydawn.doctor import Check, examine
from bydawn.selection import ledger_path
from ledger.engine import engine_facts, read_mounts


@click.command()
@ledger_options
@json_option
def doctor(ledger: Path | None, sandbox: bool, as_json: bool) -> int:
    """Check this machine: Python, SQLite, disk, clock, keys."""
    place = ledger_path(ledger, sandbox=sandbox)
    marks = {"ok": good("ok  "), "note": doubtful("note"), "bad": bad("BAD ")}
    found: list[Check] = []
    for check in examine(place, key_variables(), engine=engine_facts(), mounts=read_mounts(), packages=added()):
        found.append(check)
        if as_json:
            json_line("check", **check._asdict())
            continue
        line(f"{marks[check.state]}  {check.name:<10}  {check.text}")
        if check.fix:
            line(f"      {faint(f'{chr(32) * 10}  fix: {check.fix}')}")
    broken = sum(check.state == "bad" for check in found)
    if broken:
        talk(f"{broken} to put right before a run (BD-108)")
    return 2 if broken else 0


def key_variables() -> dict[str, bool]:
    """Whether the key variable of each provider, and of each account of the settings, is set directly or as a file."""
    names = [codec(provider).capabilities.key_env for provider in entries()]
    names += [table.key_env for table, _ in load_config(Path.cwd(), os.environ).accounts.values() if table.key_env]
    return {name: bool(os.environ.get(name) or os.environ.get(f"{name}_FILE")) for name in names}
