"""Kills while purchases are in the air: however fast the machine is, so many have arrived, and no answer has."""

import http.client
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.system.shop import PATIENCE_S, Done, Shop, wait, wait_until


def killed_in_the_air(shop: Shop, *command: str, least: int) -> Done:
    """Kill a run when the providers have taken at least so many purchases, whose answers it did not get.

    What was on its way is on the bill then, or never will be.
    """
    before = len(shop.bill())
    with withheld(shop.url) as way:
        shop.env["BYDAWN_SANDBOX_URL"] = way
        process = shop.start(*command)
        wait_until(lambda: len(shop.bill()) >= before + least)
        process.kill()
        killed = wait(process)
    shop.env["BYDAWN_SANDBOX_URL"] = shop.url
    assert killed.code == -signal.SIGKILL, killed.err
    return killed


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # at the end, what has come in is passed on first


@contextmanager
def withheld(url: str) -> Iterator[str]:
    """A way to a sandbox on which every request arrives, and no answer to a POST comes back."""
    over = threading.Event()
    sandbox = url.removeprefix("http://")

    class Way(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = self._passed_on()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self._passed_on()
            over.wait()

        def _passed_on(self) -> tuple[int, bytes]:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            ours = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
            there = http.client.HTTPConnection(sandbox, timeout=PATIENCE_S)
            try:
                there.request(self.command, self.path, body, ours)
                reply = there.getresponse()
                return reply.status, reply.read()
            finally:
                there.close()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's word
            """Keep the test's output to the test."""

    with _Server(("127.0.0.1", 0), Way) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            over.set()
            server.shutdown()
            serving.join()
