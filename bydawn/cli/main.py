"""Entry of the program: finds the command, and turns whatever goes wrong into a sentence and an exit code.

Start-up is part of the interface: ``--help`` and ``--version`` are answered before click is imported, and a
command's module is imported only when it is called.
"""

import os
import sys

TYPE_CHECKING = False  # importing typing for it would cost every start 10 ms
if TYPE_CHECKING:
    import click


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return the exit code of ``docs/reference/errors.md``."""
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("--help", "-h"):
        from bydawn.cli.table import help_text

        sys.stdout.write(help_text() + "\n")
        return 0
    if args == ["--version"]:
        from bydawn import __version__

        sys.stdout.write(f"bydawn {__version__}\n")
        return 0
    from bydawn.cli.guard import guarded

    # Whatever is made from here on, by us, by a library or by a process that we start, is this user's alone from its
    # first byte (SEC-7).  Modules that say so themselves do it for those who call them in another way.
    before = os.umask(0o077)
    try:
        return guarded(args, lambda: _called(args))
    finally:
        os.umask(before)


def _called(args: list[str]) -> object:
    """What ``click.Group.main`` does, without its own idea of exit codes and broken pipes."""
    group = _group()
    with group.make_context("bydawn", list(args)) as context:
        return group.invoke(context)


def _group() -> "click.Group":
    import click

    from bydawn.cli.table import entries, help_text

    class Commands(click.Group):
        """Imports a command when it is asked for."""

        def list_commands(self, ctx: click.Context) -> list[str]:
            return list(entries())

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            entry = entries().get(cmd_name)
            if entry is None:
                return None
            from importlib import import_module

            module, _, attribute = entry[1].partition(":")
            command = getattr(import_module(module), attribute)
            assert isinstance(command, click.Command)
            return command

        def resolve_command(
            self, ctx: click.Context, args: list[str]
        ) -> tuple[str | None, click.Command | None, list[str]]:
            if args and args[0] not in entries() and not args[0].startswith("-"):
                from difflib import get_close_matches

                near = get_close_matches(args[0], entries(), n=1, cutoff=0.5)
                hint = f" Did you mean '{near[0]}'?" if near else " 'bydawn --help' lists the commands."
                ctx.fail(f"No such command '{args[0]}'.{hint}")
            return super().resolve_command(ctx, args)

        def get_help(self, ctx: click.Context) -> str:
            return help_text()

    return Commands("bydawn", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})


if __name__ == "__main__":
    raise SystemExit(main())
