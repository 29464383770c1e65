"""The official ``wavespeed`` client against the sandbox process, and its requests against those of our codec.

The client has no list, cancel, balance or verification of callbacks; those paths are asked with our codec here, about
what the client has bought.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
import requests
from wavespeed.api.client import Client  # type: ignore[import-untyped]  # it has no types

from adapters.base import Context, Failed, FileBytes, Finished, HttpCall, HttpReply, ImageRequest, Secret
from adapters.sandbox.picture import read_digest, request_digest
from adapters.wavespeed import WAVESPEED
from tests.adapters.served import always, called_back, served

KEY = "sandbox-ultra-sdk"
MODEL = "google/nano-banana-2/text-to-image"
INPUT: dict[str, Any] = {"prompt": "a red mug", "aspect_ratio": "9:16", "resolution": "0.5k"}
DIGEST = request_digest("a red mug", (), "9:16", "0.5K")


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("sandbox"), "wavespeed", "--latency", "0.2") as url:
        yield url


def connected(base_url: str, key: str = KEY) -> Client:
    return Client(api_key=key, base_url=base_url)


@pytest.fixture
def client(base_url: str) -> Client:
    return connected(base_url)


def run(client: Client, model: str = MODEL, fields: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = client.run_no_throw(model, fields or INPUT, poll_interval=0.05, **more)
    return told


def send(call: HttpCall) -> HttpReply:
    """Send what our codec built."""
    reply = httpx.request(call.method, call.url, headers=call.headers, content=call.body)
    return HttpReply(reply.status_code, dict(reply.headers), reply.content)


def context(base_url: str, key: str = KEY) -> Context:
    return Context(key=Secret(key), base_url=base_url)


# --- create and poll ----------------------------------------------------------------------------------------


@pytest.mark.conformance(sdk="wavespeed", operation="create")
def test_run_and_fetch(client: Client) -> None:
    (url,) = client.run(MODEL, INPUT, poll_interval=0.05)["outputs"]
    reply = httpx.get(url, timeout=60)
    assert reply.headers["content-type"] == "image/png"  # their default
    assert read_digest(reply.content) == DIGEST


@pytest.mark.conformance(sdk="wavespeed", operation="poll")
def test_what_the_client_bought_our_codec_reads_and_the_other_way_round(client: Client, base_url: str) -> None:
    told, ctx = run(client), context(base_url)
    outcome = WAVESPEED.read_poll(send(WAVESPEED.build_poll(told["task_id"], ctx)))
    assert isinstance(outcome, Finished)
    assert [outcome.url] == told["outputs"]
    created = msgspec.json.decode(send(WAVESPEED.build_submit(ImageRequest("a blue mug"), ctx)).body)
    shown = client.get_result(created["data"]["id"])
    assert (shown["code"], shown["data"]["model"]) == (200, MODEL)


@pytest.mark.conformance(sdk="wavespeed", operation="create")
def test_sync_mode_answers_with_the_end(client: Client) -> None:
    told = run(client, enable_sync_mode=True)
    assert told["status"] == "completed"
    assert read_digest(httpx.get(told["outputs"][0], timeout=60).content) == DIGEST


@pytest.mark.conformance(sdk="wavespeed", operation="upload")
def test_an_upload_is_referred_to(client: Client, tmp_path: Path) -> None:
    picture = tmp_path / "mug.png"
    picture.write_bytes(b"png bytes")
    url = client.upload(str(picture))
    told = run(client, "google/nano-banana-2/edit", {"prompt": "the same mug", "images": [url]})
    image = httpx.get(told["outputs"][0], timeout=60).content
    assert read_digest(image) == request_digest("the same mug", (url,), "auto", "1K")
    assert client.upload(str(picture)) == url


# --- what goes wrong ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.conformance(sdk="wavespeed", operation="error")
@pytest.mark.parametrize(
    ("key", "model", "fields", "words"),
    [
        ("wrong", MODEL, INPUT, "HTTP 401"),
        ("sandbox-broke", MODEL, INPUT, "Insufficient balance"),
        ("sandbox-locked", MODEL, INPUT, "HTTP 403"),
        (KEY, "google/nano-banana-9/text-to-image", INPUT, "HTTP 404"),
        (KEY, MODEL, {**INPUT, "resolution": "8k"}, "resolution must be one of"),
    ],
)
def test_what_is_refused_has_its_words(base_url: str, key: str, model: str, fields: dict[str, Any], words: str) -> None:
    told = run(connected(base_url, key), model, fields)
    assert (told["status"], told["outputs"], told["task_id"]) == ("failed", None, "unknown")
    assert words in told["error"]


@pytest.mark.slow
@pytest.mark.conformance(sdk="wavespeed", operation="error")
@pytest.mark.parametrize(("fate", "buys"), [("fail_job", 2), ("policy_job", 1)])
def test_the_client_runs_again_what_our_codec_calls_retryable(
    tmp_path: Path, fate: str, buys: int, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--latency", "0.1", "--chaos", always(tmp_path, fate))
    with served(tmp_path / "box", "wavespeed", *arguments) as url:
        made = Client(api_key=KEY, base_url=url, max_retries=1, retry_interval=0.01)
        told = run(made)
        bill = httpx.get(url.removesuffix("/wavespeed") + "/sandbox/bill", timeout=60).text.splitlines()
        outcome = WAVESPEED.read_poll(send(WAVESPEED.build_poll(told["task_id"], context(url))))
    assert told["status"] == "failed"
    assert len(bill) == buys
    assert isinstance(outcome, Failed)
    assert outcome.retryable == (buys > 1)
    assert ("Retrying" in capsys.readouterr().out) == outcome.retryable


# --- what the client lacks ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.conformance(sdk="wavespeed", operation="list")
def test_what_the_client_bought_is_listed(base_url: str) -> None:
    key = "sandbox-ultra-lister"
    bought = [run(connected(base_url, key))["task_id"] for _ in range(3)]
    now_us = int(time.time() * 1e6)
    call = WAVESPEED.build_list(context(base_url, key), since_us=now_us - 60_000_000, until_us=now_us, cursor=None)
    page = WAVESPEED.read_list(send(call))
    assert [job.job for job in page.jobs] == bought[::-1]
    assert {job.fingerprint for job in page.jobs} == {None}


@pytest.mark.slow
@pytest.mark.conformance(sdk="wavespeed", operation="cancel")
def test_the_client_knows_what_became_of_a_deleted_task(tmp_path: Path) -> None:
    with served(tmp_path, "wavespeed", "--latency", "60") as url:
        ctx = context(url)
        created = msgspec.json.decode(send(WAVESPEED.build_submit(ImageRequest("x"), ctx)).body)
        job = created["data"]["id"]
        assert isinstance(WAVESPEED.read_cancel(send(WAVESPEED.build_cancel(job, ctx))), Failed)
        with pytest.raises(RuntimeError, match="Prediction deleted"):
            connected(url)._wait(job, None, 0.05)


@pytest.mark.slow
@pytest.mark.conformance(sdk="wavespeed", operation="webhook")
def test_a_callback_arrives_and_its_signature_holds(client: Client, base_url: str) -> None:
    with called_back() as (address, heard):
        told = run(client, f"{MODEL}?webhook={quote(address, safe='')}")
        headers, body = heard.get(timeout=60)
    secret = httpx.get(
        f"{base_url}/api/v3/webhook/secret", headers={"Authorization": f"Bearer {KEY}"}, timeout=60
    ).json()
    secrets = [Secret("whsec_older"), Secret(secret["data"]["secret"])]
    assert WAVESPEED.verify_callback(headers, body, secrets=secrets, now_s=time.time())
    assert not WAVESPEED.verify_callback(headers, body + b" ", secrets=secrets, now_s=time.time())
    assert WAVESPEED.read_callback(body) == told["task_id"]
    assert msgspec.json.decode(body)["outputs"] == told["outputs"]


@pytest.mark.slow
@pytest.mark.conformance(sdk="wavespeed", operation="balance")
def test_the_balance_falls_by_what_the_client_bought(base_url: str) -> None:
    key = "sandbox-ultra-payer"
    before = WAVESPEED.read_check(send(WAVESPEED.build_check(context(base_url, key))))
    run(connected(base_url, key))
    after = WAVESPEED.read_check(send(WAVESPEED.build_check(context(base_url, key))))
    assert (before.balance_microusd or 0) - (after.balance_microusd or 0) == 45_000


@pytest.mark.slow
@pytest.mark.conformance(sdk="wavespeed", operation="models")
def test_the_catalogue_has_our_models(base_url: str) -> None:
    told = httpx.get(f"{base_url}/api/v3/models", headers={"Authorization": f"Bearer {KEY}"}, timeout=60).json()
    assert {model.provider_id for model in WAVESPEED.capabilities.models.value} <= {
        row["model_id"] for row in told["data"]
    }


# --- the requests themselves --------------------------------------------------------------------------------


def body_of(sent: requests.PreparedRequest) -> Any:
    assert isinstance(sent.body, bytes)
    return msgspec.json.decode(sent.body)


@pytest.mark.conformance(sdk="wavespeed", operation="request")
@pytest.mark.parametrize(
    "request_",
    [
        ImageRequest('ü 漢 \u2028 "quoted"', aspect="9:16", resolution="4K"),
        ImageRequest("x", model="nano-banana-pro", references=("https://r.example/ä?x=1",), aspect="auto"),
        ImageRequest("x", model="nano-banana", output_format="png"),
        ImageRequest("x", model="google/nano-banana-2/text-to-image-fast", resolution="2K"),
        ImageRequest("x", model="google/nano-banana-2.1/text-to-image", references=("https://r.example/a.png",)),
    ],
)
def test_our_request_is_the_clients_but_for_its_own_name(
    request_: ImageRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client tells its name, version and system in headers (``X-Client-*``); ours asks for JSON by ``Accept``."""
    seen: list[requests.PreparedRequest] = []

    def record(session: requests.Session, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        seen.append(request)
        answer = requests.Response()
        answer.status_code = 500
        return answer

    monkeypatch.setattr(requests.Session, "send", record)
    call = WAVESPEED.build_submit(request_, Context(key=Secret(KEY), callback_url="https://hooks.example/x?a=b&c"))
    model = call.url.removeprefix("https://api.wavespeed.ai/api/v3/")
    told = Client(api_key=KEY).run_no_throw(model, msgspec.json.decode(call.body))
    assert "HTTP 500" in told["error"]
    (theirs,) = seen
    assert (theirs.method, theirs.url) == (call.method, call.url)
    assert body_of(theirs) == msgspec.json.decode(call.body)
    ours = {name.lower(): value for name, value in call.headers.items()}
    sent = {name.lower(): value for name, value in theirs.headers.items()}
    assert {name for name in ours if sent.get(name) != ours[name]} == {"accept"}
    assert {name for name in sent if name.startswith("x-")} == {"x-client-name", "x-client-version", "x-client-os"}


@pytest.mark.conformance(sdk="wavespeed", operation="request")
def test_our_upload_is_the_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[requests.PreparedRequest] = []
    data = {
        "upload": {"method": "PUT", "url": "https://store.example/put", "headers": {"Content-Type": "image/png"}},
        "download_url": "https://cdn.wavespeed.ai/a.png",
    }
    ticket = msgspec.json.encode({"code": 200, "message": "success", "data": data})

    def record(session: requests.Session, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        seen.append(request)
        answer = requests.Response()
        answer.status_code, answer._content = 200, ticket
        return answer

    monkeypatch.setattr(requests.Session, "send", record)
    picture = tmp_path / "0f3a.png"
    picture.write_bytes(b"png bytes")
    url = Client(api_key=KEY).upload(str(picture))
    steps = WAVESPEED.upload(FileBytes("0f3a.png", "image/png", b"png bytes"), Context(key=Secret(KEY)))
    ask = next(steps)
    put = steps.send(HttpReply(200, {}, ticket))
    with pytest.raises(StopIteration) as done:
        steps.send(HttpReply(200, {}, b""))
    assert done.value.value.url == url
    assert [(sent.method, sent.url) for sent in seen] == [(ask.method, ask.url), (put.method, put.url)]
    assert body_of(seen[0]) == msgspec.json.decode(ask.body)
    assert seen[1].headers["Content-Type"] == put.headers["Content-Type"]
    assert "Authorization" not in seen[1].headers
