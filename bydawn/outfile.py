"""A file that a person asks for by name (``-o``, ``--save``, ``--seal``): private, and whole or not at all."""

from collections.abc import Iterable
from pathlib import Path

from runtime.disk import RealDisk
from runtime.outputs import write_lines
from runtime.ports import DiskFailed


def write_out(path: Path, lines: Iterable[bytes]) -> None:
    """Write the file in the place of what was there.  A device or a pipe is written to and stays what it is: put in its
    place, a file would take ``/dev/null`` away from everybody, where the user may do so.

    Raises:
        DiskFull, DiskFailed: and what was there is as it was.
    """
    place = path.absolute()
    if place.is_relative_to("/dev") or (place.exists() and not place.is_file()):
        try:
            with place.open("wb") as out:
                out.writelines(lines)
        except OSError as exc:
            raise DiskFailed(f"write {path}: {exc.strerror or exc}") from exc
    else:
        write_lines(RealDisk(), place, lines)
