"""A port that a process of a test may listen at later, and that nobody takes until then."""

import random
import socket

# Below those that a system gives to whoever asks for any: none of the suite's many connections is made from there.
_PORTS = range(10_000, 30_000)
_draws = random.SystemRandom()


def free_port() -> int:
    while True:
        port = _draws.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:  # somebody listens there
                continue
            return port
