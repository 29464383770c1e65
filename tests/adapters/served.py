"""A sandbox as its own process, for clients that want a socket."""

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
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


Heard = queue.Queue[tuple[dict[str, str], bytes]]  # headers by lower-case name, and the body


@contextmanager
def called_back() -> Iterator[tuple[str, Heard]]:
    """Take callbacks; gives the address and where they arrive."""
    heard: Heard = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.put(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's word
            """Keep the test's output to the test."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/heard?attempt=1", heard
        finally:
            server.shutdown()
            thread.join()
