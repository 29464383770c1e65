"""The processes of a torture: a sandbox per round, the run that is killed in it, and a look at what is left.

Each round has a folder of its own with an empty ``bydawn.toml``, and its processes an environment without settings of
bydawn: nothing of the user's is read but the input, and no account of theirs can be reached.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import msgspec

from adapters.sandbox.faults import ChaosProfile
from adapters.sandbox.house import BillLine
from bydawn.errors import UserError
from bydawn.torture.judging import Broken, Cut, Terms, Verdict, judge, read_manifest
from bydawn.torture.planning import Kill, Round, Target
from ledger.errors import LedgerError
from ledger.reader import Reader

BATCH = "torture"
_LATENCY_S, _RATE_FACTOR, _IDLE_EXIT_S = 0.2, 50, 300
_PATIENCE_S = 600.0  # of one life
_LOOK_S = 0.005
_SETTLE_S = 20.0  # for jobs at the sandbox that nobody waits for any more
# What is wrong with an input at one provider may be right at another: rows, options, prices.
_NOT_FOR_ALL = ("BD-016", "BD-018", "BD-050")
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Life(msgspec.Struct, frozen=True):
    """One process, from its start to its end.  ``first_s``: from its start to the first request at a provider."""

    kill: Kill | None
    code: int
    first_s: float | None
    cut: Cut

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


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
        return sum(life.killed and life.cut.began for life in self.lives)

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
    """Where a torture takes place.  ``seed`` is that of the sandbox's faults and latencies."""

    def __init__(self, folder: Path, source: Input, *, chaos: str, profile: ChaosProfile, seed: int) -> None:
        self._folder = folder
        self._source = source
        self._chaos = chaos
        self._seed = seed
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
        with _sandbox(place / "sandbox", "none", 0) as url:
            for name, targets in rounds.items():
                process = self._start(place, url, "plan", targets, "--json")
                out, err = process.communicate()
                if process.returncode == 0:
                    found[name] = msgspec.json.decode(out.splitlines()[-1], type=_Planned).tasks
                else:
                    refused[name] = _told(err, process.returncode)
                    if refused[name].code not in _NOT_FOR_ALL:
                        raise refused[name]
        return found, refused

    def play(self, played: Round, tell: Callable[[int], None]) -> Outcome:
        """Live through all kills of a round, then let it finish, and judge; ``tell`` hears of each life."""
        place = self._place(played.name)
        lives: list[Life] = []
        trouble: list[Broken] = []
        with _sandbox(place / "sandbox", self._chaos, self._seed) as url, ExitStack() as beside:
            # One port for all lives: providers call back where they were told to when they were bought from.
            port = _free_port()
            hooks = ("--webhook-url", f"http://127.0.0.1:{port}") if played.wants_calls else ()
            serving = not hooks
            for kill in (*played.kills, None):
                tasks = kill.limit if kill else played.tasks
                options = (*hooks, "--limit", str(tasks), "--max-at-risk", "1000000", "--quiet")
                life = self._live(place, url, played, kill, options)
                lives.append(life)
                tell(len(lives))
                if not serving and life.killed and (place / "bydawn-sandbox.db").exists():
                    beside.enter_context(self._receiver(place, url, port))
                    serving = True
                if not life.killed and life.code not in (0, 3):
                    log = (place / "run.log").read_text("utf-8", "replace").strip().splitlines()
                    trouble.append(Broken("every run ends as it should", (), f"exit {life.code}: {' '.join(log[-4:])}"))
                    break
            bill = _settled_bill(url)
            (place / "bill.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in bill))
            checked = self._start(place, url, "verify", (), "--json")
            checked.communicate()
        manifest = place / "out" / "manifest.jsonl"
        wanted = read_manifest(place / "out", self._source.columns) if manifest.exists() else []
        bought = wanted[: played.tasks]
        verdict = judge(
            played,
            bought,
            bill,
            [life.cut for life in lives if life.killed],
            terms=self._terms,
            verified=checked.returncode == 0,
        )
        verdict = msgspec.structs.replace(verdict, broken=(*trouble, *verdict.broken))
        return Outcome(played, tuple(lives), verdict)

    def ledger(self, played: Round) -> Path:
        return self._folder / played.name / "bydawn-sandbox.db"

    # --- one process --------------------------------------------------------------------------------------

    def _live(self, place: Path, url: str, played: Round, kill: Kill | None, options: Sequence[str]) -> Life:
        fault = f"{kill.point}:{kill.nth}" if kill and kill.point else ""
        before = _requests(url).requests
        started_us = time.time_ns() // 1000
        process = self._start(place, url, "run", played.targets, *options, fault=fault)
        deadline = time.monotonic() + _PATIENCE_S
        try:
            while process.poll() is None and time.monotonic() < deadline:
                if kill and not kill.point and _requests(url).requests - before >= kill.nth:
                    time.sleep(kill.pause_s)
                    process.kill()
                    break
                time.sleep(_LOOK_S)
        finally:
            in_time = time.monotonic() < deadline
            if process.poll() is None:
                process.kill()
            process.wait()
        code = process.returncode if in_time else 1
        first_us = _requests(url, after=before).first_us
        first_s = (first_us - started_us) / 1e6 if first_us else None
        return Life(kill, code, first_s, _cut(place / "bydawn-sandbox.db", len(_bill(url))))

    @contextmanager
    def _receiver(self, place: Path, url: str, port: int) -> Iterator[None]:
        """Take callbacks while no run is going, as a user would who relies on them."""
        process = self._start(place, url, "serve", (), "--port", str(port))
        try:
            deadline = time.monotonic() + _SETTLE_S
            while process.poll() is None and time.monotonic() < deadline and not _listens(port):
                time.sleep(_LOOK_S)
            yield
        finally:
            process.kill()
            process.wait()

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


class _Planned(msgspec.Struct, frozen=True):
    tasks: int


class _Error(msgspec.Struct, frozen=True):
    code: str
    what: str
    exit_code: int
    where: str = ""
    why: str = ""
    fix: str = ""


def _told(err: bytes, code: int) -> UserError:
    """What a command said went wrong, as our own word."""
    lines = err.splitlines() or [b""]
    try:
        told = msgspec.json.decode(lines[-1], type=_Error)
    except msgspec.MsgspecError:
        text = err.decode("utf-8", "replace").strip()
        return UserError("BD-900", "bydawn plan failed", why=text[-500:], exit_code=code)
    return UserError(told.code, told.what, where=told.where, why=told.why, fix=told.fix, exit_code=told.exit_code)


def _cut(ledger: Path, billed: int) -> Cut:
    """How the ledger stands; empty before there is a batch."""
    try:
        with Reader(ledger) as reader:
            batch = reader.batch_by_name(BATCH)
            if batch is None:
                return Cut(billed)
            finished: set[str] = set()
            after = 0
            while page := reader.tasks(batch, after=after, limit=1000, states=("succeeded",)):
                finished |= {row.id for row in page}
                after = page[-1].n
            doubtful = [each for each in reader.live() if each.phase in ("intended", "ambiguous")]
            open_ids = {each.state.queued.id for each in doubtful if each.state.queued}
            epoch = reader.epoch()
            began = any(each.phase == "intended" and each.epoch == epoch for each in doubtful)
            return Cut(billed, frozenset(finished), frozenset(open_ids), began)
    except LedgerError:  # it was about to be made
        return Cut(billed)


# --- the sandbox ------------------------------------------------------------------------------------------


class _Hello(msgspec.Struct, frozen=True):
    url: str


class _Requests(msgspec.Struct, frozen=True):
    requests: int
    first_us: int


@contextmanager
def _sandbox(folder: Path, chaos: str, seed: int) -> Iterator[str]:
    """Serve all providers from a process of its own; gives its address, and ends it."""
    command = [sys.executable, "-m", "adapters.sandbox", "--dir", str(folder), "--chaos", chaos, "--seed", str(seed)]
    command += ["--latency", str(_LATENCY_S), "--rate-factor", str(_RATE_FACTOR), "--idle-exit", str(_IDLE_EXIT_S)]
    folder.mkdir(mode=0o700, parents=True)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 (our own module)
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise UserError(
                "BD-061",
                "the sandbox could not be started",
                where=str(folder / "log"),
                why=(folder / "log").read_text("utf-8", "replace")[-500:],
                fix="try it by hand: bydawn sandbox",
                exit_code=6,
            )
        yield msgspec.json.decode(line, type=_Hello).url
    finally:
        process.kill()
        process.communicate()


def _requests(url: str, after: int = 0) -> _Requests:
    with _DIRECT.open(f"{url}/sandbox/requests?after={after}", timeout=60) as reply:
        return msgspec.json.decode(reply.read(), type=_Requests)


def _bill(url: str) -> list[BillLine]:
    with _DIRECT.open(f"{url}/sandbox/bill", timeout=60) as reply:
        return [msgspec.json.decode(line, type=BillLine) for line in reply]


def _settled_bill(url: str) -> list[BillLine]:
    """The bill once every job has ended: one that is held by us runs on there, and may still be charged."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        bill = _bill(url)
        if time.monotonic() > deadline or not any(line.state == "running" for line in bill):
            return bill
        time.sleep(0.1)


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
