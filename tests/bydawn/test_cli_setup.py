"""doctor, explain, providers, sandbox: the commands around the work."""

import json
import os
import signal
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from adapters.base import HttpCall, HttpReply
from adapters.registry import PROVIDERS, Added, Entry, codec
from adapters.sandbox.server import webhook_key_of
from bydawn import doctor
from bydawn.accountcheck import standings
from bydawn.cli.main import main
from bydawn.config import load_config
from bydawn.explain import EXPLANATIONS
from bydawn.keys import chosen_accounts
from bydawn.runs import runs
from ledger.engine import EngineFacts
from ledger.journal import Ledger
from ledger.reader import Reader
from runtime.ports import WireError

ROOT = Path(__file__).resolve().parent.parent.parent
LOCAL = "/dev/sda1 / ext4 rw 0 0\n"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No keys and no settings of whoever runs the tests."""
    for provider in PROVIDERS:
        monkeypatch.delenv(codec(provider).capabilities.key_env, raising=False)
        monkeypatch.delenv(f"BYDAWN_{provider.upper()}_BASE_URL", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.chdir(tmp_path)


# --- doctor -----------------------------------------------------------------------------------------------


def examined(folder: Path, keys: dict[str, bool] | None = None, mounts: str = LOCAL) -> dict[str, doctor.Check]:
    engine = EngineFacts("3.51.3", wal_reset_fault=False)
    checks = doctor.examine(folder / "bydawn.db", keys or {}, engine=engine, mounts=mounts, packages=Added({}, {}, {}))
    return {check.name: check for check in checks}


def test_a_fresh_folder_is_fit(tmp_path: Path) -> None:
    assert {check.state for check in examined(tmp_path).values()} <= {"ok", "note"}
    assert list(tmp_path.iterdir()) == []  # the probe is gone


def test_an_engine_with_the_fault_is_named_with_the_reason_why_it_is_safe() -> None:
    check = doctor.sqlite_engine(EngineFacts("3.40.1", wal_reset_fault=True))
    assert check.state == "note"
    assert "WAL-reset" in check.text
    assert "one connection writes" in check.text


def test_a_network_file_system_is_refused(tmp_path: Path) -> None:
    check = examined(tmp_path, mounts="server:/x / nfs4 rw 0 0\n")["ledger"]
    assert (check.state, "nfs4" in check.text) == ("bad", True)


def test_a_ledger_that_others_can_read_is_noted(tmp_path: Path) -> None:
    ledger = tmp_path / "bydawn.db"
    ledger.touch(0o600)
    assert examined(tmp_path)["ledger"].state == "ok"
    ledger.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IROTH)
    assert examined(tmp_path)["ledger"].fix == f"chmod 600 {ledger}"


def test_a_missing_folder_and_a_full_disk_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert examined(tmp_path / "gone")["ledger"].state == "bad"
    monkeypatch.setattr(doctor, "SAFE_FREE_BYTES", 1 << 62)
    assert examined(tmp_path)["disk"].state == "note"


def test_a_clock_behind_the_ledger_is_told(tmp_path: Path) -> None:
    ledger = tmp_path / "bydawn.db"
    ledger.touch(0o600)
    later = ledger.stat().st_mtime + 3600
    os.utime(ledger, (later, later))
    assert examined(tmp_path)["clock"].state == "bad"


def test_of_keys_only_the_names_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("KIE_API_KEY", "very-secret-value")
    assert main(["doctor", "--json"]) == 0
    out = capsys.readouterr().out
    assert "very-secret-value" not in out
    keys = next(json.loads(line) for line in out.splitlines() if json.loads(line)["name"] == "keys")
    assert keys["text"].startswith("set: KIE_API_KEY")


def test_packages_that_add_a_provider_are_named_and_those_that_cannot() -> None:
    entry = Entry("acme:CODEC", "acme:Emulator")
    ok, note = doctor.provider_packages(
        Added({"acme": entry}, {}, {"other = gone:PROVIDER": "ModuleNotFoundError: gone"})
    )
    assert (ok.state, ok.text.endswith("and from packages: acme")) == ("ok", True)
    assert (note.state, note.text) == ("note", "left out: other = gone:PROVIDER: ModuleNotFoundError: gone")


def test_something_bad_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--ledger", str(tmp_path / "gone" / "bydawn.db")]) == 2
    said = capsys.readouterr()
    assert "mkdir -p" in said.out
    assert "BD-108" in said.err


# --- explain ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["BD-101", "bd-101", "101"])
def test_a_code_is_explained(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", code]) == 0
    assert EXPLANATIONS["BD-101"].fix in capsys.readouterr().out


def test_all_codes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--json"]) == 0
    assert [json.loads(line)["code"] for line in capsys.readouterr().out.splitlines()] == sorted(EXPLANATIONS)


def test_an_unknown_code_is_a_user_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "BD-999"]) == 2
    assert "BD-107" in capsys.readouterr().err


# --- providers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [["providers"], ["providers", "list"]])
def test_providers_stand_side_by_side(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 0
    shown = capsys.readouterr().out
    assert all(f"  {provider} " in shown for provider in PROVIDERS)


def test_prices_of_the_settings_come_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bydawn.toml").write_text('[prices.kie.nano-banana-2]\n"1K" = 0.0123\n')
    assert main(["providers", "--json"]) == 0
    shown = {line["provider"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert shown["kie"]["prices_usd"]["1K"] == 0.0123


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_fact_of_a_provider_is_told_with_its_source(provider: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["providers", provider]) == 0
    shown = capsys.readouterr().out
    assert "result life s" in shown
    assert "https://" in shown


def test_an_unknown_provider_is_a_user_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["providers", "list", "dalle"]) == 2
    assert "BD-040" in capsys.readouterr().err


def test_a_check_without_keys_is_exit_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["providers", "check"]) == 4
    assert "KIE_API_KEY" in capsys.readouterr().err


class OneReply:
    """A wire that gives one answer to everything."""

    def __init__(self, reply: HttpReply | None) -> None:
        self._reply = reply

    async def send(self, call: HttpCall, on_sent: Callable[[], None] | None = None) -> HttpReply:
        if self._reply is None:
            raise WireError("no route", sent=False)
        return self._reply

    async def fetch(self, *_: object) -> object:
        raise AssertionError("a check downloads nothing")

    async def stream(self, *_: object) -> object:
        raise AssertionError("a check reads no files")

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    ("reply", "state"),
    [
        (HttpReply(401, {}, b'{"detail":"no","error":"no","code":401,"msg":"no"}'), "rejected"),
        (HttpReply(503, {}, b""), "unreadable"),
        (None, "unreachable"),
    ],
)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_account_s_answer_is_told_apart(provider: str, reply: HttpReply | None, state: str, tmp_path: Path) -> None:
    environ = {codec(provider).capabilities.key_env: "k" * 20}
    accounts = chosen_accounts(load_config(tmp_path, environ), [provider])
    (answer,) = trio.run(standings, accounts, lambda: OneReply(reply))  # type: ignore[arg-type]
    assert answer.state == state


# --- sandbox ----------------------------------------------------------------------------------------------


def test_the_sandbox_serves_until_it_is_stopped_and_check_works_against_it(tmp_path: Path) -> None:
    start = [sys.executable, "-m", "bydawn.cli.main", "sandbox", "--json", "--dir", str(tmp_path / "practice")]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ) as served:
        assert served.stdout is not None
        told = json.loads(served.stdout.readline())
        with urllib.request.urlopen(f"{told['url']}/sandbox", timeout=60) as reply:
            assert json.load(reply)["bydawn_sandbox"] == 1
        good = checked(tmp_path, environ | told["environment"])
        wrong = {name: "sandbox-wrong" for name in told["environment"] if name.endswith(("_KEY", "_TOKEN"))}
        refused = checked(tmp_path, environ | told["environment"] | wrong)
        served.send_signal(signal.SIGTERM)
        assert served.wait(60) == 0
    assert good.returncode == 0, good.stderr
    assert {json.loads(line)["state"] for line in good.stdout.splitlines()} == {"ok"}
    assert refused.returncode == 4
    assert {json.loads(line)["state"] for line in refused.stdout.splitlines()} == {"rejected"}


def checked(folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    check = [sys.executable, "-m", "bydawn.cli.main", "providers", "check", "--json"]
    return subprocess.run(check, capture_output=True, text=True, env=environ, cwd=folder, check=False)


def test_the_sandbox_takes_its_webhook_key_from_a_place_that_the_list_of_processes_does_not_show(
    tmp_path: Path,
) -> None:
    """SEC-1: it stood on the command line."""
    (tmp_path / "key").write_text("whsec_cHJhY3RpY2U=\n")
    start = [sys.executable, "-m", "bydawn.cli.main", "sandbox", "--json", "--dir", str(tmp_path / "practice")]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    environ["BYDAWN_SANDBOX_WEBHOOK_KEY_FILE"] = str(tmp_path / "key")
    with subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ) as served:
        assert served.stdout is not None
        told = json.loads(served.stdout.readline())
        served.send_signal(signal.SIGTERM)
    assert told["environment"]["BYDAWN_WEBHOOK_SECRET_KIE"] == "whsec_cHJhY3RpY2U="


def test_a_sandbox_that_a_run_starts_has_no_key_on_its_command_line(tmp_path: Path) -> None:
    """SEC-1: ``ps`` shows it to every user of the machine."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "BYDAWN_SANDBOX_LATENCY": "0.25"}
    environ["BYDAWN_SANDBOX_WEBHOOK_KEY"] = "whsec_cHJhY3RpY2U="
    starts = "import sys, pathlib, bydawn.sandbox as it; print(it.find_or_start(pathlib.Path(sys.argv[1])).hello.pid)"
    started = subprocess.run(
        [sys.executable, "-c", starts, str(tmp_path / "night.db")],
        capture_output=True,
        text=True,
        env=environ,
        check=True,
    )
    pid = int(started.stdout)
    try:
        listed = subprocess.run(
            ["ps", "-ww", "-p", str(pid), "-o", "args="], capture_output=True, text=True, check=True
        ).stdout
    finally:
        os.kill(pid, signal.SIGTERM)
    assert "--latency 0.25" in listed
    assert "whsec" not in listed


@pytest.mark.parametrize(
    ("env", "key"),
    [
        ({}, ""),
        ({"BYDAWN_SANDBOX_WEBHOOK_KEY": " a "}, "a"),
        ({"BYDAWN_SANDBOX_WEBHOOK_KEY": "a", "BYDAWN_SANDBOX_WEBHOOK_KEY_FILE": "/nowhere"}, "a"),
    ],
)
def test_where_the_key_of_the_sandbox_stands(env: dict[str, str], key: str) -> None:
    assert webhook_key_of(env) == key


def test_a_key_that_cannot_be_read_is_a_user_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYDAWN_SANDBOX_WEBHOOK_KEY_FILE", "/nowhere")
    assert main(["sandbox"]) == 2
    assert "BYDAWN_SANDBOX_WEBHOOK_KEY_FILE" in capsys.readouterr().err


def test_a_chaos_profile_that_is_none_is_a_user_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandbox", "--chaos", "hurricane"]) == 2
    assert "BD-020" in capsys.readouterr().err


# --- runs -------------------------------------------------------------------------------------------------


def begin(ledger: Ledger, pid: int) -> None:
    ledger.start_epoch(machine="m", pid=pid, app_version="0", operator="ada", command="bydawn run", at_us=pid)


def test_a_run_is_running_while_its_process_lives_and_killed_when_it_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "bydawn.db"
    ledger = Ledger.create_or_open(path, create=True, mounts=lambda: LOCAL)
    begin(ledger, os.getpid())
    with Reader(path) as reader:
        assert [run.state for run in runs(reader)] == ["running"]
        begin(ledger, 2**22)
        assert [run.state for run in runs(reader)] == ["killed", "killed"]
        assert [run.epoch for run in runs(reader, last=1)] == [2]
    ledger.close()
