"""The commands.  One file per command, listed in :mod:`bydawn.cli.table` and imported only when called."""
