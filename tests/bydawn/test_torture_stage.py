"""``bydawn serve`` beside the lives of a torture: killed with them on purpose, and noticed when it ends by itself."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.sandbox.faults import PROFILES
from bydawn.torture.judging import Cut
from bydawn.torture.planning import Kill, Round, Target
from bydawn.torture.stage import Calls, Input, Life, Stage
from tests.ports import free_port

SERVE = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"


class Servers:
    """Starts a process that listens, or one that ends at once."""

    def __init__(self, program: str) -> None:
        self.port = free_port()
        self._program = program
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen([sys.executable, "-c", self._program, str(self.port)])
        self.started.append(process)
        return process


@pytest.fixture
def servers() -> Iterator[Servers]:
    made = Servers(SERVE)
    yield made
    for process in made.started:
        process.kill()
        process.wait()


def test_calls_are_taken_from_when_it_is_asked_and_again_after_a_kill(servers: Servers) -> None:
    calls = Calls(servers.port, servers.start)
    calls.kill()  # nobody is there yet
    calls.take()
    calls.take()
    assert len(servers.started) == 1
    socket.create_connection(("127.0.0.1", servers.port)).close()
    calls.kill()
    assert servers.started[0].poll() is not None
    calls.take()
    assert len(servers.started) == 2
    calls.close()
    assert servers.started[1].poll() is not None
    assert not calls.failed


@pytest.mark.parametrize("again", ["take", "kill"])
def test_one_that_ends_by_itself_is_noticed(again: str) -> None:
    made = Servers("")
    calls = Calls(made.port, made.start)
    calls.take()
    made.started[0].wait()
    assert not calls.failed
    calls.take() if again == "take" else calls.kill()
    assert calls.failed


def test_only_a_life_that_was_told_to_stop_may_end_before_its_kill() -> None:
    """LIVE-5: it drained; or SIGTERM came while it read its input, and it ended at once."""
    for code in (130, -signal.SIGTERM):
        assert Life(Kill("drain", 3, 10), code, 0.5, Cut(0)).stopped
        assert not Life(Kill("random", 3, 10), code, 0.5, Cut(0)).stopped
        assert not Life(None, code, 0.5, Cut(0)).stopped
    assert not Life(Kill("drain", 3, 10), 1, 0.5, Cut(0)).stopped
    assert not Life(Kill("drain", 3, 10), -signal.SIGSEGV, 0.5, Cut(0)).stopped


def test_each_round_has_a_ledger_of_its_own(tmp_path: Path) -> None:
    stage = Stage(tmp_path, Input(tmp_path / "in.csv"), chaos="none", profile=PROFILES["none"], seed=0)
    places = {stage.ledger(Round(name, (Target(name, "sync", "none"),), 1, ())).parent for name in ("kie", "google")}
    assert places == {tmp_path / "kie", tmp_path / "google"}
