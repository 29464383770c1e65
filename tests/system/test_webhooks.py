"""Callbacks over real sockets: used, missed, forged, and taken while no run is going."""

import base64
import hashlib
import hmac
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bydawn.opening import keyed_by
from bydawn.webhooks import secret_variable
from ledger.reader import Reader
from runtime.callbacks import Addresses
from runtime.inbox import hints, inbox_of
from tests.ports import free_port
from tests.system.shop import PATIENCE_S, Shop, kill, prompts, sandbox, wait, wait_until
from tests.system.test_storm import check_books
from tests.system.withheld import killed_in_the_air

TASKS = 40
KEY = "whsec_cHJhY3RpY2U="
CALLERS = "kie,replicate"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A shop whose providers sign their callbacks, and which knows the secrets."""
    with sandbox(tmp_path / "sandbox", latency=1.0, webhook_key=KEY) as url, Shop(tmp_path, url) as shop:
        know_secrets(shop)
        yield shop


def know_secrets(shop: Shop) -> None:
    """Set the secrets as the user would, with one that was rotated out."""
    for provider in ("kie", "replicate", "toapis", "wavespeed"):
        shop.env[secret_variable(provider)] = f"whsec_b2xk {KEY}"


def callbacks_of(shop: Shop) -> list[str]:
    """The attempts of the hints that wait."""
    return [path.name.partition(".")[0] for path, _ in hints(inbox_of(shop.ledger))]


def adopted(shop: Shop) -> list[str]:
    """By which evidence attempts were adopted."""
    return [attempt.adopted_by for state in shop.tasks("pots") for attempt in state.attempts if attempt.adopted_by]


def until_healthy(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as reply:
                assert reply.read() == b"ok\n"
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_batch_is_called_back(shop: Shop) -> None:
    """And nothing of it stays behind: no hint, no token on record, none in what is printed."""
    port = free_port()
    table = shop.table("pots.jsonl", prompts("called", TASKS))
    url = f"http://127.0.0.1:{port}/a/prefix"
    done = shop.run("run", table, "--sandbox", "--provider", CALLERS, "--webhook-url", url, "-vv")
    assert done.code == 0, done.err
    assert "callbacks: kie (signature checked), replicate (signature checked) to" in done.err
    assert len(re.findall(r"a callback for \w+/1-\d+-1 was taken", done.err)) >= TASKS // 2
    assert " was refused" not in done.err
    assert shop.run("run", "pots", "--sandbox").code == 0
    assert callbacks_of(shop) == [], "what came when all was over is no news"
    verdict = shop.verdict("pots")
    assert verdict.agrees, verdict
    assert all(attempt.callback for state in shop.tasks("pots") for attempt in state.attempts)
    assert re.search(r"[0-9a-f]{32}", done.out + done.err) is None
    with Reader(shop.ledger) as reader:
        assert not [text for row in range(1, 500) if "/callback/" in (text := reader.payload(row) or "")]
    planned = shop.run("plan", "pots", "--sandbox")
    assert "callbacks: kie" in planned.out  # the batch remembers


def test_what_is_called_while_nobody_runs_is_used_by_the_next_run(shop: Shop) -> None:
    """W4 at class C: killed with submits in the air, and no task is held whose job had arrived."""
    assert "callback" in die_and_be_called(shop, CALLERS)


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["apipass", "kie", "replicate", "toapis", "wavespeed"])
def test_so_it_is_at_every_provider_that_calls(shop: Shop, provider: str) -> None:
    assert die_and_be_called(shop, provider)


def die_and_be_called(shop: Shop, providers: str) -> list[str]:
    """Killed, called while away, and run again; returns by which evidence attempts were adopted."""
    port = free_port()
    table = shop.table("pots.jsonl", prompts("while away", TASKS))
    url = f"http://127.0.0.1:{port}"
    command = ("run", table, "--sandbox", "--provider", providers, "--webhook-url", url, "--max-at-risk", "50")
    assert shop.run(*command, "--limit", "1").code == 0
    receiver = shop.start("serve", "--sandbox", "--port", str(port))
    until_healthy(port)

    first = killed_in_the_air(shop, *command, least=5)
    assert "another process of this ledger takes the callbacks" in first.err
    with Reader(shop.ledger) as reader:
        doubtful = {live.n: f"1-{live.n}-{live.attempt}" for live in reader.live() if live.phase == "intended"}
    arrived = {int(job["prompt"].rpartition(" ")[2]) for job in shop.bill()}
    called = {doubtful[n] for n in doubtful.keys() & arrived}
    assert len(called) >= 5
    wait_until(lambda: called <= set(callbacks_of(shop)))

    done = shop.run(*command)
    verdict = shop.verdict("pots")
    held = {row.id for row in shop.manifest("pots") if row.status == "held"}
    assert verdict.agrees, verdict
    assert held == set(verdict.never), "only what never arrived may be held"
    assert done.code == (3 if held else 0), done.err
    assert callbacks_of(shop) == []
    assert shop.strangers("pots") == []
    assert shop.run("verify", "--sandbox").code == 0
    assert receiver.poll() is None
    receiver.terminate()
    told = wait(receiver)
    assert told.code == 0
    assert re.search(r"\d+ callbacks taken, 0 refused", told.err), told.err
    return adopted(shop)


@pytest.mark.slow
def test_a_held_task_goes_on_when_its_provider_calls_after_all(tmp_path: Path) -> None:
    """Nobody listened in time, and the tasks were held; then the calls come all the same."""
    with sandbox(tmp_path / "sandbox", latency=0.2, webhook_key=KEY) as url, Shop(tmp_path, url) as shop:
        port, command = killed_unheard(shop, "after all")
        assert shop.run(*command).code == 3
        held = held_rows(shop)
        jobs = {int(job["prompt"].rpartition(" ")[2]): job["job"] for job in shop.bill()}
        assert held & jobs.keys()

        call_late(shop, port, {n: jobs[n] for n in held & jobs.keys()})
        done = shop.run(*command)
        assert {int(row.row.removeprefix("t")) for row in shop.manifest("pots") if row.status == "held"} == held - set(
            jobs
        )
        assert done.code == (3 if held - set(jobs) else 0), done.err
        assert adopted(shop) == ["callback"] * len(held & jobs.keys())
        verdict = shop.verdict("pots")
        assert verdict.agrees, verdict
        assert shop.strangers("pots") == []
        assert shop.run("verify", "--sandbox").code == 0


@pytest.mark.slow
def test_a_first_purchase_that_calls_after_the_second_is_a_spare(tmp_path: Path) -> None:
    """MON-7, MON-9, MON-10: bought again by the batch's policy, and then the calls about the first ones come."""
    with sandbox(tmp_path / "sandbox", latency=0.2, webhook_key=KEY) as url, Shop(tmp_path, url) as shop:
        again = ("--on-unknown", "resubmit", "--max-duplicate-usd", "10")
        port, command = killed_unheard(shop, "after the second", *again)
        assert shop.run(*command).code == 0
        bound = {attempt.job for state in shop.tasks("pots") for attempt in state.attempts}
        late = [job for job in shop.bill() if job["job"] not in bound]
        assert late
        call_late(shop, port, {int(job["prompt"].rpartition(" ")[2]): job["job"] for job in late})
        done = shop.run(*command, "--json")
        assert done.code == 0, done.err
        assert callbacks_of(shop) == []
        summary = done.json()[-1]
        charged = sum(job["charged_microusd"] for job in shop.bill())
        late_charged = sum(job["charged_microusd"] for job in late)
        assert (summary["surplus"], summary["surplus_microusd"]) == (len(late), late_charged)
        assert (summary["cost_microusd"], summary["succeeded"]) == (charged, 10)
        assert shop.run("verify", "--sandbox").code == 0
        assert shop.strangers("pots") == []


def held_rows(shop: Shop) -> set[int]:
    return {int(row.row.removeprefix("t")) for row in shop.manifest("pots") if row.status == "held"}


def killed_unheard(shop: Shop, what: str, *options: str) -> tuple[int, tuple[str, ...]]:
    """A batch at Kie that died, and whose callbacks nobody took; gives the port to listen at later, and the run."""
    know_secrets(shop)
    nobody, port = free_port(), free_port()
    table = shop.table("pots.jsonl", prompts(what, 10))
    hooks = ("--webhook-url", f"http://127.0.0.1:{nobody}", "--webhook-listen", f"127.0.0.1:{port}")
    command = ("run", table, "--sandbox", "--provider", "kie", "--max-at-risk", "50", *hooks, *options)
    assert shop.run(*command, fault="reply_read:4").code == -9
    return port, command


def call_late(shop: Shop, port: int, jobs: Mapping[int, str]) -> None:
    """Let Kie call about the first attempts of tasks, by their numbers, now that somebody listens."""
    shop.start("serve", "--sandbox", "--port", str(port))
    until_healthy(port)
    addresses = Addresses(f"http://127.0.0.1:{port}", keyed_by(shop.ledger))
    for n, job in jobs.items():
        call(addresses.url("kie", 1, n, 1), job)


def call(address: str, job: str) -> None:
    """Call back as Kie does."""
    stamp = str(int(time.time()))
    mac = hmac.digest(KEY.encode(), f"{job}.{stamp}".encode(), hashlib.sha256)
    headers = {"x-webhook-timestamp": stamp, "x-webhook-signature": base64.b64encode(mac).decode()}
    body = json.dumps({"code": 200, "data": {"taskId": job}}).encode()
    with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=30) as reply:
        assert reply.status == 200


def test_strangers_learn_nothing(shop: Shop) -> None:
    port = free_port()
    shop.run("run", shop.table("pots.jsonl", prompts("strangers", 1)), "--sandbox", "--provider", "kie")
    shop.start("serve", "--sandbox", "--port", str(port))
    until_healthy(port)
    answers = set()
    for path in ("/", "/callback/kie/1-1-1/" + "0" * 32, "/callback/nobody/1-1-1/" + "0" * 32, "/admin"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data=b"{}", timeout=30)
        with refused.value as answer:
            answers.add((answer.code, answer.read()))
    assert answers == {(404, b"")}


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_callbacks_in_a_storm(tmp_path: Path, killed: bool) -> None:
    """REC-7: lost, late, repeated and forged calls, and all the other faults: the books agree."""
    with sandbox(tmp_path / "sandbox", chaos="storm", webhook_key=KEY) as url, Shop(tmp_path, url) as shop:
        know_secrets(shop)
        port = free_port()
        table = shop.table("pots.jsonl", prompts("storm", TASKS))
        url = f"http://127.0.0.1:{port}"
        command = ("run", table, "--sandbox", "--provider", CALLERS, "--webhook-url", url, "--max-at-risk", "50")
        if killed:
            process = shop.start(*command)
            shop.wait_phases(process, "pots", "succeeded", least=TASKS // 3)
            kill(process)
        done = shop.run(*command, timeout=300)
        assert done.code in (0, 3), done.err
        rows = shop.manifest("pots")
        assert {row.status for row in rows} <= {"succeeded", "failed", "held"}
        assert all(row.error for row in rows if row.status != "succeeded")
        assert shop.strangers("pots") == []
        check_books(shop)
        assert shop.run("verify", "--sandbox").code == 0
