"""Attacks on the dashboard: from other sites in the user's browser, from other users of the machine, and from names
that were chosen to be shown there (SEC-6, SEC-5)."""

import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from bydawn.cli.formats import plain
from bydawn.dashboard.app import Dashboard
from bydawn.dashboard.board import Board, board
from bydawn.dashboard.door import Door
from bydawn.dashboard.metrics import metrics
from bydawn.dashboard.page import page
from bydawn.dashboard.serving import opening
from bydawn.errors import UserError
from bydawn.overview import AccountLine
from ledger.reader import LaneRow
from tests.bydawn.a_night import START_US, tell
from tests.ports import free_port

BYDAWN = Path(sys.executable).with_name("bydawn")
TOKEN = "a-token-of-this-test"
HERE = "http://127.0.0.1:8788"
WITH_TOKEN = {"cookie": f"bydawn-8788={TOKEN}"}
PATHS = ("/", "/status.json", "/metrics", "/dashboard.css", "/dashboard.js", "/nothing")
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One night for all tests: nobody can change it here, which is the point."""
    folder = tmp_path_factory.mktemp("night")
    tell(folder / "bydawn.db", folder / "out")
    return folder / "bydawn.db"


def asked(ledger: Path, *requests: httpx.Request, open_metrics: bool = False) -> list[httpx.Response]:
    door = Door(Dashboard(ledger).application(), port=8788, token=TOKEN, open_metrics=open_metrics)

    async def go() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=door)
        async with httpx.AsyncClient(transport=transport) as client:
            return [await client.send(request) for request in requests]

    return trio.run(go)


def get(path: str, **headers: str) -> httpx.Request:
    return httpx.Request("GET", HERE + path, headers={name.replace("_", "-"): text for name, text in headers.items()})


# --- who gets in ------------------------------------------------------------------------------------------------


def test_the_token_opens_and_is_exchanged_for_a_cookie(ledger: Path) -> None:
    """SEC-6."""
    (first,) = asked(ledger, get(f"/?token={TOKEN}"))
    assert (first.status_code, first.headers["location"]) == (303, "/")
    cookie = first.headers["set-cookie"]
    assert {part.strip().lower() for part in cookie.split(";")[1:]} == {"httponly", "path=/", "samesite=strict"}
    shown = asked(ledger, *(get(path, **WITH_TOKEN) for path in PATHS))
    assert [reply.status_code for reply in shown] == [200, 200, 200, 200, 200, 404]
    assert "teapots" in shown[0].text
    assert shown[1].json()[0]["batch"] == "teapots"
    assert [reply.status_code for reply in asked(ledger, get(f"/metrics?token={TOKEN}"))] == [200]
    assert all(TOKEN not in reply.text for reply in shown)


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_told(ledger: Path, path: str) -> None:
    """SEC-6: also not whether there is such a path."""
    tries = [
        get(path),
        get(f"{path}?token="),
        get(f"{path}?token={TOKEN[:-1]}"),
        get(f"{path}?token={TOKEN}x"),
        get(f"{path}?token={TOKEN.upper()}"),
        get(f"{path}?token=wrong&token={TOKEN}"),
        get(f"{path}?TOKEN={TOKEN}"),
        get(f"{path}?token=%ff%00{TOKEN}"),
        get(path, authorization=f"Bearer {TOKEN}"),
        get(path, cookie=f"bydawn-8788={TOKEN[:-1]}"),
        get(path, cookie=f"bydawn-8789={TOKEN}"),
        get(path, cookie=f"token={TOKEN}"),
        get(path, cookie="bydawn-8788=;=;,\x7f"),
        get(path, cookie=f'bydawn-8788="{TOKEN}\\"'),
    ]
    replies = asked(ledger, *tries)
    assert {reply.status_code for reply in replies} == {403}
    assert len({(reply.content, tuple(sorted(reply.headers.items()))) for reply in replies}) == 1
    assert "teapots" not in replies[0].text


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8788", "127.0.0.1", "127.0.0.1:80", "127.0.0.1:8788.evil.example", "localhost"),
        *("LOCALHOST:8788", "[::1]:8788", "127.1:8788", "2130706433:8788", "0.0.0.0:8788", "127.0.0.1:8788, evil", ""),
    ],
)
def test_a_name_that_was_made_to_lead_here_does_not(ledger: Path, host: str) -> None:
    """SEC-6: DNS rebinding gives an attacker's page our address, and its own name in Host."""
    replies = asked(ledger, get("/", host=host, **WITH_TOKEN), get(f"/?token={TOKEN}", host=host))
    assert [reply.status_code for reply in replies] == [403, 403]
    assert all("set-cookie" not in reply.headers for reply in replies)


def test_two_hosts_are_none_and_both_names_of_the_address_are_good(ledger: Path) -> None:
    twice = httpx.Request(
        "GET", HERE + "/", headers=[("host", "127.0.0.1:8788"), ("host", "evil"), *WITH_TOKEN.items()]
    )
    replies = asked(ledger, twice, get("/", host="localhost:8788", **WITH_TOKEN))
    assert [reply.status_code for reply in replies] == [403, 200]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "X"])
def test_it_only_shows(ledger: Path, method: str) -> None:
    """SEC-6: read-only, whoever asks."""
    (reply,) = asked(ledger, httpx.Request(method, HERE + "/", headers=WITH_TOKEN))
    assert reply.status_code == 405


@pytest.mark.parametrize("site", ["cross-site", "same-site", "x"])
def test_no_other_page_of_the_browser_may_ask(ledger: Path, site: str) -> None:
    """Another port of 127.0.0.1 is the same site to a browser, and cookies go there and back."""
    refused, typed, own = asked(
        ledger,
        get("/status.json", sec_fetch_site=site, **WITH_TOKEN),
        get("/", sec_fetch_site="none", **WITH_TOKEN),
        get("/", sec_fetch_site="same-origin", **WITH_TOKEN),
    )
    assert [refused.status_code, typed.status_code, own.status_code] == [403, 200, 200]


def test_every_answer_forbids_framing_sniffing_keeping_and_telling(ledger: Path) -> None:
    """SEC-6: the refusals too."""
    for reply in asked(ledger, get("/"), *(get(path, **WITH_TOKEN) for path in PATHS)):
        policy = dict(part.strip().split(" ", 1) for part in reply.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in reply.headers


def test_metrics_are_open_only_where_that_was_asked_for(ledger: Path) -> None:
    metrics_reply, page_reply, elsewhere = asked(
        ledger, get("/metrics"), get("/"), get("/metrics", host="evil.example"), open_metrics=True
    )
    assert [metrics_reply.status_code, page_reply.status_code, elsewhere.status_code] == [200, 403, 403]
    assert 'bydawn_tasks{batch="teapots",state="held"} 1\n' in metrics_reply.text


def test_asking_changes_nothing(ledger: Path) -> None:
    """SEC-6: not a byte of the ledger."""
    before = ledger.read_bytes()
    asked(ledger, *(get(path, **WITH_TOKEN) for path in PATHS))
    assert ledger.read_bytes() == before


def test_a_ledger_that_went_away_is_told_and_not_fatal(tmp_path: Path) -> None:
    first, second = asked(tmp_path / "gone.db", get("/", **WITH_TOKEN), get("/dashboard.css", **WITH_TOKEN))
    assert (first.status_code, second.status_code) == (503, 200)


# --- what is shown ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(ledger: Path) -> Board:
    return board(ledger, now_us=START_US + 60_000_000)


def a_board(real: Board, text: str) -> Board:
    """A board on which every text from outside is this one."""
    (view,) = real.batches
    view = view._replace(name=text, sandbox=True, providers={text: {"succeeded": 3}}, rate_per_s=0.5, eta_s=10.0)
    assert real.run is not None
    run = real.run._replace(stopped_by=text)
    return real._replace(
        path=Path("/") / plain(text).replace("/", "_"),
        run=run,
        batches=[view],
        more=3,
        accounts=[AccountLine(text, text, 1, 2, text, 3, 4), AccountLine(text, text, 1, 2, "")],
        lanes=[LaneRow(text, text, 3, "half_open", text)],
        runs=[run],
    )


class Parsed(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.shape: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.shape.append((tag, tuple(name for name, _ in attrs)))
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action", "content")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def parsed(real: Board, text: str) -> Parsed:
    parser = Parsed()
    parser.feed(page(a_board(real, text)))
    parser.close()
    return parser


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "</title><script>alert(1)</script>",
        '" onmouseover="alert(1)" x=\'',
        "' autofocus onfocus='alert(1)",
        "<img src=x onerror=alert(1)>",
        "--><svg/onload=alert(1)>",
        "]]><script>",
        "&lt;script&gt;&#60;script&#62;",
        "javascript:alert(1)",
        "\x00<\x00script>",
        "\x1b[2J\u202egnp.exe",
        "<meta http-equiv=refresh content=0;url=//evil.example>",
        "</main></body><base href=//evil.example>",
    ],
)
def test_a_name_is_text_wherever_it_is_shown(real: Board, text: str) -> None:
    """SEC-5: the page has the same elements and attributes for any name, and the name stands there as it is."""
    found, harmless = parsed(real, text), parsed(real, "x")
    assert found.shape == harmless.shape
    assert found.links == harmless.links
    assert plain(text) in found.texts


@given(text=st.text(min_size=1, max_size=40))
def test_no_text_is_anything_but_text(real: Board, text: str) -> None:
    """SEC-5."""
    assert parsed(real, text).shape == parsed(real, "x").shape


def test_the_page_loads_nothing_from_elsewhere_and_holds_no_script(real: Board) -> None:
    document = page(a_board(real, "x"))
    assert re.findall(r"<script[^>]*>[^<]", document) == []
    assert re.findall(r"<style|style=|\son\w+=", document) == []
    assert set(parsed(real, "x").links) - {"5", "width=device-width, initial-scale=1"} == {
        "data:,",
        "/dashboard.css",
        "/dashboard.js",
    }


@given(text=st.text(min_size=1, max_size=40))
def test_no_name_makes_a_metric(real: Board, text: str) -> None:
    """SEC-5: a line of the metrics is ours, or a name within its quotes."""
    lines = metrics(a_board(real, text)).split("\n")
    assert len(lines) == len(metrics(a_board(real, "x")).split("\n"))
    sample = re.compile(r'bydawn_\w+(\{(\w+="(?:[^"\\\n]|\\.)*",?)*\})? -?[0-9.e+-]+', re.DOTALL)
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in lines if line)


def test_a_new_ledger_has_a_page_too() -> None:
    empty = Board(Path("/x"), START_US, None, [], 0, [], [], [])
    assert "No batch has been started" in page(empty)
    assert "bydawn_run_going 0" in metrics(empty)


# --- where it listens -------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_told_or_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError) as refused:
            opening(taken.getsockname()[1])
        assert refused.value.code == "BD-112"
    found = [opening(None) for _ in range(2)]
    assert len({each.port for each in found}) == len({each.token for each in found}) == 2
    assert all(each.listener.family == socket.AF_INET for each in found)
    for each in found:
        each.listener.close()


@pytest.fixture
def served(ledger: Path) -> Iterator[tuple[str, int, "subprocess.Popen[str]"]]:
    """`bydawn serve` as a process: the address of its dashboard, the port of its receiver."""
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("BYDAWN_")}
    command = [str(BYDAWN), "serve", "--port", str(port), "--ledger", str(ledger)]
    with subprocess.Popen(
        command, cwd=ledger.parent, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            told = ledger.with_name("bydawn.db.dashboard")
            deadline = time.monotonic() + PATIENCE_S
            while not (told.exists() and is_open(port)):
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield told.read_text().strip(), port, process
        finally:
            process.kill()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_process_shows_it_on_loopback_alone_and_tells_its_address_to_nobody_else(
    served: tuple[str, int, "subprocess.Popen[str]"], ledger: Path
) -> None:
    """SEC-6, SEC-7, SEC-1: the address is in a file of the user's own, not in a log, and ends with the process."""
    address, receiver, process = served
    told = ledger.with_name("bydawn.db.dashboard")
    assert stat.S_IMODE(told.stat().st_mode) == 0o600
    url = httpx.URL(address)
    assert url.host == "127.0.0.1"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", url.port or 0)) != 0, "127.0.0.1 and no other address of this machine"
    with httpx.Client(trust_env=False) as client:
        assert client.get(address, follow_redirects=True).status_code == 200
        # What a proxy passes on to the receiver never reaches the dashboard, nor the other way round.
        public = f"http://127.0.0.1:{receiver}"
        for path in ("/", "/status.json", "/metrics", f"/?token={url.params['token']}"):
            reply = client.get(public + path, headers={"host": f"127.0.0.1:{url.port}"})
            assert (reply.status_code, reply.content) == (404, b"")
        assert client.post(f"http://127.0.0.1:{url.port}/callback/kie/1-1-1/{'0' * 32}").status_code == 405
    process.terminate()
    _, said = process.communicate(timeout=PATIENCE_S)
    assert str(told) in said
    assert url.params["token"] not in said
    assert not told.exists()
