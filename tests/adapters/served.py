"""A sandbox as its own process, for clients that want a socket."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent.parent


class _Line(msgspec.Struct, frozen=True):
    url: str


@contextmanager
def served(directory: Path, provider: str, *arguments: str) -> Iterator[str]:
    """Serve one provider; gives its base URL."""
    command = [sys.executable, "-m", "adapters.sandbox", "--dir", str(directory), "--providers", provider, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            line = msgspec.json.decode(process.stdout.readline(), type=_Line)
            yield f"{line.url}/{provider}"
        finally:
            process.terminate()


def always(directory: Path, fate: str) -> str:
    """Write a chaos profile under which every job ends as ``fate``; gives its path."""
    path = directory / f"{fate}.toml"
    path.write_text(f"{fate} = 1.0\n")
    return str(path)
