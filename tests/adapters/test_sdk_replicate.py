"""The official ``replicate`` client against the sandbox process, and its requests against those of our codec."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate.prediction import Prediction
from replicate.webhook import Webhooks

from adapters.base import Context, FileBytes, Finished, HttpReply, ImageRequest, Secret
from adapters.replicate import REPLICATE
from adapters.sandbox.picture import read_digest, request_digest
from tests.adapters.served import always, served

KEY = "sandbox-sdk"
MODEL = "google/nano-banana-2"
INPUT: dict[str, Any] = {"prompt": "a red kettle", "aspect_ratio": "1:1"}


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("sandbox"), "replicate", "--latency", "0.2") as url:
        yield url


@contextmanager
def connected(base_url: str, key: str = KEY) -> Iterator[Client]:
    made = Client(api_token=key, base_url=base_url)
    made.poll_interval = 0.05
    with made._client:  # it offers no other way to close its connections
        yield made


@pytest.fixture
def client(base_url: str) -> Iterator[Client]:
    with connected(base_url) as made:
        yield made


def create(made: Client) -> Prediction:
    return made.models.predictions.create(MODEL, input=INPUT)


def status_after_wait(prediction: Prediction) -> str:
    prediction.wait()
    return prediction.status


@pytest.mark.conformance(sdk="replicate", operation="create")
@pytest.mark.conformance(sdk="replicate", operation="poll")
def test_create_poll_and_fetch(client: Client) -> None:
    prediction = create(client)
    assert (prediction.status, prediction.input) == ("starting", INPUT)
    assert status_after_wait(prediction) == "succeeded"
    image = httpx.get(str(prediction.output), timeout=60).content
    assert read_digest(image) == request_digest("a red kettle", (), "1:1", "1K")


@pytest.mark.conformance(sdk="replicate", operation="poll")
def test_what_the_client_bought_our_codec_reads_and_the_other_way_round(client: Client, base_url: str) -> None:
    prediction = create(client)
    prediction.wait()
    ctx = Context(key=Secret(KEY), base_url=base_url)
    ours = _send(REPLICATE.build_poll(prediction.id, ctx).url, ctx)
    outcome = REPLICATE.read_poll(ours)
    assert isinstance(outcome, Finished)
    assert outcome.url == prediction.output
    call = REPLICATE.build_submit(ImageRequest("a blue kettle"), ctx)
    created = httpx.post(call.url, headers=call.headers, content=call.body, timeout=60)
    shown = client.predictions.get(created.json()["id"])
    assert (shown.input or {})["prompt"] == "a blue kettle"


def _send(url: str, ctx: Context) -> HttpReply:
    reply = httpx.get(url, headers={"Authorization": f"Bearer {ctx.key.reveal()}"}, timeout=60)
    return HttpReply(reply.status_code, dict(reply.headers), reply.content)


@pytest.mark.slow
@pytest.mark.conformance(sdk="replicate", operation="cancel")
def test_cancel(tmp_path: Path) -> None:
    with served(tmp_path, "replicate", "--latency", "60") as url, connected(url) as made:
        prediction = create(made)
        prediction.cancel()
        assert prediction.status == "canceled"
        assert made.predictions.cancel(prediction.id).status == "canceled"


@pytest.mark.conformance(sdk="replicate", operation="create")
def test_create_by_version_and_wait(client: Client) -> None:
    prediction = client.predictions.create(version="google/nano-banana-pro", input=INPUT, wait=True)
    assert prediction.status == "processing"  # done, as the real API says it to those who wait
    assert str(prediction.output).startswith("http://127.0.0.1:")


@pytest.mark.conformance(sdk="replicate", operation="create")
def test_run(client: Client) -> None:
    output = client.run(MODEL, input={**INPUT, "output_format": "png"})
    assert httpx.get(str(output), timeout=60).headers["content-type"] == "image/png"


@pytest.mark.slow
@pytest.mark.conformance(sdk="replicate", operation="list")
def test_list_follows_the_pages(base_url: str) -> None:
    with connected(base_url, "sandbox-lister") as made:
        bought = [create(made).id for _ in range(103)]
        first = made.predictions.list()
        assert len(first) == 100
        assert first.next is not None
        second = made.predictions.list(first.next)
    assert [prediction.id for prediction in [*first, *second]] == bought[::-1]
    assert second.next is None


@pytest.mark.slow
@pytest.mark.conformance(sdk="replicate", operation="error")
@pytest.mark.parametrize(
    ("key", "status", "title"), [("wrong", 401, "Unauthenticated"), ("sandbox-broke", 402, "Insufficient credit")]
)
def test_keys_that_cannot_buy(base_url: str, key: str, status: int, title: str) -> None:
    with connected(base_url, key) as made, pytest.raises(ReplicateError) as caught:
        create(made)
    assert (caught.value.status, caught.value.title) == (status, title)


@pytest.mark.slow
@pytest.mark.conformance(sdk="replicate", operation="error")
def test_errors_have_their_words(client: Client) -> None:
    with pytest.raises(ReplicateError, match="Additional property"):
        client.models.predictions.create(MODEL, input={**INPUT, "seed": 1})
    with pytest.raises(ReplicateError, match="could not be found"):
        client.predictions.get("unknown")


def test_the_account(client: Client) -> None:
    assert client.accounts.current().username.startswith("sandbox-")


@pytest.mark.slow
@pytest.mark.conformance(sdk="replicate", operation="error")
def test_a_failed_prediction_raises(tmp_path: Path) -> None:
    chaos = always(tmp_path, "fail_job")
    with (
        served(tmp_path / "box", "replicate", "--latency", "0.1", "--chaos", chaos) as url,
        connected(url) as made,
        pytest.raises(ModelError, match="high demand"),
    ):
        made.run(MODEL, input=INPUT)


@pytest.mark.slow
@pytest.mark.conformance(sdk="replicate", operation="webhook")
def test_a_webhook_arrives_and_its_signature_holds(client: Client) -> None:
    got: list[tuple[dict[str, str], str]] = []
    arrived = threading.Event()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            got.append((dict(self.headers), body))
            self.send_response(200)
            self.end_headers()
            arrived.set()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's word
            """Keep the test's output to the test."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        hook = f"http://127.0.0.1:{server.server_port}/r?task=1"
        events = ["completed"]
        prediction = client.models.predictions.create(MODEL, input=INPUT, webhook=hook, webhook_events_filter=events)
        assert arrived.wait(60)
        server.shutdown()
        thread.join()
    headers, body = got[0]
    secret = client.webhooks.default.secret()
    Webhooks.validate(headers=headers, body=body, secret=secret)
    lower = {name.lower(): value for name, value in headers.items()}
    ours = [Secret(secret.key)]
    assert REPLICATE.verify_callback(lower, body.encode(), secrets=ours, now_s=time.time())
    assert REPLICATE.read_callback(body.encode()) == prediction.id
    told: dict[str, Any] = msgspec.json.decode(body)
    assert (told["id"], told["status"]) == (prediction.id, "succeeded")
    with pytest.raises(ValueError, match="signature is invalid"):
        Webhooks.validate(headers=headers, body=body + " ", secret=secret)


@pytest.mark.conformance(sdk="replicate", operation="upload")
def test_a_file_is_uploaded_and_used(client: Client, base_url: str, tmp_path: Path) -> None:
    """Both uploads of one file end at one address, and the client sends the same part as we do."""
    path = tmp_path / "k.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n...")
    stored = client.files.create(path)
    assert stored.checksums["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    steps = REPLICATE.upload(FileBytes("k.png", "image/png", path.read_bytes()), Context(Secret(KEY), base_url))
    call = next(steps)
    reply = httpx.post(call.url, headers=call.headers, content=call.body, timeout=60)
    with pytest.raises(StopIteration) as ended:
        steps.send(HttpReply(reply.status_code, dict(reply.headers), reply.content))
    assert ended.value.value.url == stored.urls["get"]
    shown = client.models.predictions.create(MODEL, input={**INPUT, "image_input": [stored.urls["get"]]})
    assert status_after_wait(shown) == "succeeded"


# --- the requests themselves --------------------------------------------------------------------------------


@pytest.mark.conformance(sdk="replicate", operation="request")
@pytest.mark.parametrize(
    "request_",
    [
        ImageRequest('ü 漢 \u2028 "quoted"', aspect="9:16", resolution="4K", grounding=True),
        ImageRequest("x", model="nano-banana-pro", references=("https://r.example/ä?x=1",), aspect="auto"),
        ImageRequest("x", model="nano-banana", output_format="png"),
        ImageRequest("x", model_version="ab" * 32),
    ],
)
def test_our_request_is_the_clients_but_for_the_deadline(request_: ImageRequest) -> None:
    seen: list[httpx.Request] = []

    def record(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(500, json={})

    ctx = Context(key=Secret(KEY), callback_url="https://hooks.example/x")
    call = REPLICATE.build_submit(request_, ctx)
    body: dict[str, Any] = msgspec.json.decode(call.body)
    made = Client(api_token=KEY, transport=httpx.MockTransport(record))
    with pytest.raises(ReplicateError):
        _create_as_ours(made, request_, body)
    (theirs,) = seen
    assert (theirs.method, str(theirs.url)) == (call.method, call.url)
    assert msgspec.json.decode(theirs.content) == body
    ours = {name.lower(): value for name, value in call.headers.items()}
    assert {name for name in ours if theirs.headers.get(name) != ours[name]} == {"cancel-after", "accept"}
    assert urlsplit(call.url).scheme == "https"


def _create_as_ours(made: Client, request: ImageRequest, body: dict[str, Any]) -> None:
    hook, events = body["webhook"], body["webhook_events_filter"]
    if request.model_version:
        version = body["version"]
        made.predictions.create(version=version, input=body["input"], webhook=hook, webhook_events_filter=events)
        return
    model = REPLICATE.capabilities.model(request.model)
    assert model is not None
    name = model.provider_id
    made.models.predictions.create(name, input=body["input"], webhook=hook, webhook_events_filter=events)
