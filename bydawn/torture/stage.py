"""The processes of a torture: a sandbox per round, the runs that are killed in it, and a look at what is left.

Each round has a folder of its own with an empty ``bydawn.toml``, and its processes an environment without settings of
bydawn: nothing of the user's is read but the input, and no account of theirs can be reached.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path

import msgspec

from adapters.sandbox.faults import ChaosProfile
from bydawn.errors import UserError
from bydawn.torture.evidence import BATCH, bought_again, calls_wait, cut
from bydawn.torture.judging import Broken, Cut, Terms, Verdict, judge, read_manifest
from bydawn.torture.planning import Kill, Round, Target
from bydawn.torture.served import bill_of, requests, served, settled_bill

_PATIENCE_S = 600.0  # of one life
_LISTEN_S = 20.0  # until bydawn serve listens
_LOOK_S = 0.005
_LATE_CALLS = 3
_DRAINED = 130
_SPENT = 5
# What is wrong with an input at one provider may be right at another: rows, options, prices.
_NOT_FOR_ALL = ("BD-016", "BD-018", "BD-050")


class Life(msgspec.Struct, frozen=True):
    """One process, from its start to its end.  ``first_s``: from its start to the first request at a provider."""

    kill: Kill | None
    code: int
    first_s: float | None
    cut: Cut

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def stopped(self) -> bool:
        """It was told to stop before it was to be killed, and was faster: it drained, or it did not listen and
        ended at once."""
        return self.kill is not None and self.kill.at == "drain" and self.code in (_DRAINED, -signal.SIGTERM)


class Outcome(msgspec.Struct, frozen=True):
    """A round that was played to its end."""

    played: Round
    lives: tuple[Life, ...]
    verdict: Verdict

    @property
    def kills(self) -> int:
        return sum(life.killed for life in self.lives)

    @property
    def kills_with_open(self) -> int:
        """Kills in the middle of a paid request that the dying process had sent, or was about to."""
        return sum(life.killed and bool(life.cut.open) for life in self.lives)

    @property
    def open_submits(self) -> int:
        """Paid requests that the kills left without an answer on record: no more than these can be held."""
        return sum(len(life.cut.open) for life in self.lives if life.killed)

    @property
    def restarts_s(self) -> tuple[float, ...]:
        """Of the lives after a kill."""
        pairs = pairwise(self.lives)
        return tuple(life.first_s for before, life in pairs if before.killed and life.first_s is not None)


class Input(msgspec.Struct, frozen=True):
    """What is bought: the file, and the options that say how it is read, as ``run`` takes them."""

    path: Path
    options: tuple[str, ...] = ()
    columns: Mapping[str, str] = {}


class Stage:
    """Where a torture takes place.  ``seed`` is that of the sandbox's faults and latencies.

    ``buying``: options for each run about what it may buy.
    """

    def __init__(
        self,
        folder: Path,
        source: Input,
        *,
        chaos: str,
        profile: ChaosProfile,
        seed: int,
        buying: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._source = source
        self._chaos = chaos
        self._seed = seed
        self._buying = tuple(buying)
        self._terms = Terms(
            loses_answers=any((profile.error_before, profile.error_after, profile.reset_after, profile.cut_reply)),
            spoils=any((profile.fail_job, profile.policy_job, profile.truncated, profile.wrong_bytes)),
        )

    def available(self, rounds: Mapping[str, Sequence[Target]]) -> tuple[dict[str, int], dict[str, UserError]]:
        """Ask ``bydawn plan`` how many tasks the input has for each round; or why that round cannot be.

        Raises:
            UserError: the input is no good for anybody.
        """
        found: dict[str, int] = {}
        refused: dict[str, UserError] = {}
        place = self._place("rehearsal")
        with served(place / "sandbox", "none", 0) as url:
            for name, targets in rounds.items():
                process = self._start(place, url, "plan", targets, *self._buying, "--json")
                out, err = _ended(process)
                if process.returncode == 0:
                    found[name] = msgspec.json.decode(out.splitlines()[-1], type=_Planned).tasks
                else:
                    refused[name] = _told(err, process.returncode, place)
                    if refused[name].code not in _NOT_FOR_ALL:
                        raise refused[name]
        return found, refused

    def play(self, played: Round, tell: Callable[[int], None]) -> Outcome:
        """Live through all kills of a round, then let it finish, and judge; ``tell`` hears of each life."""
        place = self._place(played.name)
        ledger = self.ledger(played)
        lives: list[Life] = []
        trouble: list[Broken] = []
        with served(place / "sandbox", self._chaos, self._seed) as url, ExitStack() as beside:
            # One port for all lives: providers call back where they were told to when they were bought from.
            port = _free_port()
            hooks = ("--webhook-url", f"http://127.0.0.1:{port}") if played.wants_calls else ()
            calls = Calls(port, lambda: self._start(place, url, "serve", (), "--port", str(port), "--no-dashboard"))
            beside.enter_context(closing(calls))
            ends = (0, 3, _SPENT) if "resubmit" in self._buying else (0, 3)

            def live(kill: Kill | None) -> bool:
                tasks = kill.limit if kill else played.tasks
                options = (*hooks, *self._buying, "--limit", str(tasks), "--max-at-risk", "1000000", "--quiet")
                life = self._live(place, url, played, kill, options, calls)
                lives.append(life)
                tell(len(lives))
                if hooks and life.killed and ledger.exists():
                    calls.take()
                if life.killed or life.code in ends or life.stopped:
                    return True
                log = (place / "run.log").read_text("utf-8", "replace").strip().splitlines()
                trouble.append(Broken("every run ends as it should", (), f"exit {life.code}: {' '.join(log[-4:])}"))
                return False

            going = all(live(kill) for kill in (*played.kills, None))
            bill = settled_bill(url)
            for _ in range(_LATE_CALLS):
                if not going or not calls_wait(ledger):
                    break
                going = live(None)  # calls came after the run had ended: the next one uses them
                bill = settled_bill(url)
            (place / "bill.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in bill))
            checked = self._start(place, url, "verify", (), "--json")
            _ended(checked)
            calls.close()
            if calls.failed:
                trouble.append(Broken("every run ends as it should", (), "bydawn serve ended by itself"))
        manifest = place / "out" / "manifest.jsonl"
        wanted = read_manifest(place / "out", self._source.columns) if manifest.exists() else []
        verdict = judge(
            played,
            wanted[: played.tasks],
            bill,
            [life.cut for life in lives if life.killed],
            terms=self._terms,
            verified=checked.returncode == 0,
            again=bought_again(ledger) if ledger.exists() else None,
        )
        verdict = msgspec.structs.replace(verdict, broken=(*trouble, *verdict.broken))
        return Outcome(played, tuple(lives), verdict)

    def ledger(self, played: Round) -> Path:
        return self._folder / played.name / "bydawn-sandbox.db"

    # --- one process --------------------------------------------------------------------------------------

    def _live(
        self, place: Path, url: str, played: Round, kill: Kill | None, options: Sequence[str], calls: "Calls"
    ) -> Life:
        fault = f"{kill.at}:{kill.nth}" if kill and not kill.by_chance else ""
        before = requests(url).requests
        started_us = time.time_ns() // 1000
        process = self._start(place, url, "run", played.targets, *options, fault=fault)
        deadline = time.monotonic() + _PATIENCE_S
        try:
            while process.poll() is None and time.monotonic() < deadline:
                if kill and kill.by_chance and requests(url).requests - before >= kill.nth:
                    if kill.at == "drain":
                        process.terminate()
                    time.sleep(kill.pause_s)
                    process.kill()
                    if kill.at == "machine":
                        calls.kill()
                    break
                time.sleep(_LOOK_S)
        finally:
            in_time = time.monotonic() < deadline
            if process.poll() is None:
                process.kill()
            process.wait()
        code = process.returncode if in_time else 1
        first_us = requests(url, after=before).first_us
        first_s = (first_us - started_us) / 1e6 if first_us else None
        return Life(kill, code, first_s, cut(self.ledger(played), len(bill_of(url))))

    def _start(
        self, place: Path, url: str, command: str, targets: Sequence[Target], *options: str, fault: str = ""
    ) -> "subprocess.Popen[bytes]":
        words = [sys.executable, "-m", "bydawn.cli.main", command]
        if command in ("run", "plan"):
            names = ",".join(target.provider for target in targets)
            words += [str(self._source.path), *self._source.options, "--name", BATCH, "--provider", names]
            words += ["--to", str(place / "out")]
        words += [*options, "--sandbox", "--ledger", str(place / "bydawn-sandbox.db")]
        env = {name: value for name, value in os.environ.items() if not name.startswith("BYDAWN_")}
        env |= {"BYDAWN_SANDBOX_URL": url, "XDG_CONFIG_HOME": str(place), "BYDAWN_OPERATOR": "torture"}
        if fault:
            env["BYDAWN_FAULT"] = fault
        with (place / "run.log").open("ab") as log:
            piped = subprocess.PIPE if command == "plan" else log
            return subprocess.Popen(  # noqa: S603 (our own module)
                words,
                cwd=place,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=piped,
                stderr=piped,
                start_new_session=True,  # Ctrl-C is for the torturer, who ends its children itself
            )

    def _place(self, name: str) -> Path:
        place = self._folder / name
        place.mkdir(mode=0o700, parents=True)
        (place / "bydawn.toml").touch()
        return place


class Calls:
    """``bydawn serve`` beside the runs of a round, as a user would have it who relies on callbacks.  It needs a
    ledger, so it begins after the first kill."""

    def __init__(self, port: int, start: Callable[[], "subprocess.Popen[bytes]"]) -> None:
        self._port = port
        self._start = start
        self._process: subprocess.Popen[bytes] | None = None
        self.failed = False

    def take(self) -> None:
        """Serve, from now on; nothing happens when it does already."""
        self._look()
        if self._process is None:
            self._process = self._start()
            deadline = time.monotonic() + _LISTEN_S
            while self._process.poll() is None and time.monotonic() < deadline and not _listens(self._port):
                time.sleep(_LOOK_S)

    def kill(self) -> None:
        self._look()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    close = kill

    def _look(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self.failed = True
            self._process = None


class _Planned(msgspec.Struct, frozen=True):
    tasks: int


class _Error(msgspec.Struct, frozen=True):
    code: str
    what: str
    exit_code: int
    where: str = ""
    why: str = ""
    fix: str = ""


def _ended(process: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
    """What a process says until it ends; it ends with us, however long it would take (Ctrl-C)."""
    try:
        return process.communicate()
    finally:
        process.kill()
        process.wait()


def _told(err: bytes, code: int, place: Path) -> UserError:
    """What a command said went wrong, as our own word; ``place`` and what was written there will be gone."""
    lines = err.splitlines() or [b""]
    try:
        told = msgspec.json.decode(lines[-1], type=_Error)
    except msgspec.MsgspecError:
        text = err.decode("utf-8", "replace").strip()
        return UserError("BD-900", "bydawn plan failed", why=text[-500:], exit_code=code)
    fix = told.fix if str(place) not in told.fix else "bydawn plan lists what is wrong; or leave it out: --skip-invalid"
    return UserError(told.code, told.what, where=told.where, why=told.why, fix=fix, exit_code=told.exit_code)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
