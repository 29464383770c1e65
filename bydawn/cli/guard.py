"""The one place where an exception becomes words and an exit code.

Expected trouble arrives as a :class:`~bydawn.errors.UserError` or an error of the ledger; anything else is a bug
and says so.  With ``--json`` the trouble is one JSON line on stderr, so that stdout stays pure data.
"""

import os
import sys
from collections.abc import Callable

import click

from bydawn.cli.formats import harmless, harmless_json
from bydawn.errors import UserError

INTERRUPTED = 130


def guarded(args: list[str], body: Callable[[], object]) -> int:
    """Call ``body`` and return the exit code; an int that it returns is the code."""
    as_json = "--json" in args
    try:
        outcome = body()
        sys.stdout.flush()  # here, where a reader that went away is no error
    except UserError as error:
        report(error, as_json=as_json)
        return error.exit_code
    except click.exceptions.Exit as end:  # after a command's --help
        return end.exit_code
    except click.ClickException as error:
        report_usage(error, as_json=as_json)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # `bydawn tasks | head` is normal use.  Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _other(error, as_json=as_json)
    return outcome if isinstance(outcome, int) else 0


def report(error: UserError, *, as_json: bool) -> None:
    """Print what, where, why and the fix to stderr."""
    parts = {"where": error.where, "why": error.why, "fix": error.fix}
    if as_json:
        line: dict[str, str | int] = {
            "type": "error",
            "code": error.code,
            "what": error.what,
            **parts,
            "exit_code": error.exit_code,
        }
        _write_json(line)
        return
    sys.stderr.write(f"{click.style('error', fg='red', bold=True) if _coloured() else 'error'} {error.code}: ")
    sys.stderr.write(f"{harmless(error.what)}\n")
    for name, text in parts.items():
        if text:
            sys.stderr.write(f"  {name + ':':<6} {harmless(text).replace(chr(10), chr(10) + ' ' * 9)}\n")


def report_usage(error: click.ClickException, *, as_json: bool) -> None:
    message = error.format_message()
    if as_json:
        line: dict[str, str | int] = {"type": "error", "code": "BD-100", "what": message, "exit_code": error.exit_code}
        _write_json(line)
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None and context.parent is not None:
        sys.stderr.write(f"{context.get_usage()}\n")
    sys.stderr.write(f"error BD-100: {harmless(message)}\n")
    if context is not None and context.parent is not None:
        sys.stderr.write(f"  fix:   {context.command_path} --help\n")


def _other(error: Exception, *, as_json: bool) -> int:
    from ledger.errors import LedgerError

    if isinstance(error, LedgerError):
        known = ledger_trouble(error)
        report(known, as_json=as_json)
        return known.exit_code
    import traceback

    where = traceback.extract_tb(error.__traceback__)[-1]
    report(
        UserError(
            code="BD-900",
            what=f"internal error: {type(error).__name__}: {error}",
            where=f"{os.path.basename(where.filename)}:{where.lineno} in {where.name}",
            why="this is a fault of bydawn, not of your input; what is in the ledger is safe",
            fix="run the same command again: it goes on where it stopped; BYDAWN_DEBUG=1 shows the trace",
            exit_code=1,
        ),
        as_json=as_json,
    )
    if os.environ.get("BYDAWN_DEBUG"):
        sys.stderr.write(harmless("".join(traceback.format_exception(error))))
    return 1


def ledger_trouble(error: Exception) -> UserError:
    """Put an error of the ledger into the user's words: its code is explained in :mod:`bydawn.explain`."""
    from bydawn.explain import EXPLANATIONS

    code = getattr(error, "code", "BD-500")
    told = EXPLANATIONS[code]
    return UserError(code=code, what=str(error) or told.what, why=told.why, fix=told.fix, exit_code=told.exit_code)


def _write_json(line: dict[str, str | int]) -> None:
    import json

    sys.stderr.write(harmless_json(json.dumps(line, ensure_ascii=False)) + "\n")


def _coloured() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ
