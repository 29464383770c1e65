"""The official ``segmind`` client against the sandbox process, and its requests against those of our codec."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from segmind import InferenceFailed, SegmindClient, SegmindError  # type: ignore[import-untyped]  # it has no types

from adapters.base import Context, FileBytes, Finished, HttpCall, HttpReply, ImageRequest, Secret
from adapters.sandbox.picture import read_digest, request_digest
from adapters.segmind import SEGMIND
from tests.adapters.served import always, served

KEY = "sandbox-sdk"
MODEL = "nano-banana-2"


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("sandbox"), "segmind", "--latency", "0.2", "--rate-factor", "50") as url:
        yield url


@pytest.fixture
def client(base_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SegmindClient]:
    """A client whose other hosts, which it holds as constants, are the sandbox too."""
    generations = sys.modules["segmind.generations"]  # an attribute of the package by this name hides the module
    history = generations.REQUEST_HISTORY_URL.replace("https://api.spotprod.segmind.com", base_url)
    monkeypatch.setattr(generations, "REQUEST_HISTORY_URL", history)
    monkeypatch.setattr(sys.modules["segmind.files"].Files, "STORAGE_BASE_URL", base_url)
    made = SegmindClient(api_key=KEY, base_url=f"{base_url}/v1")
    with made._client:  # it offers no other way to close its connections
        yield made


@pytest.mark.conformance(sdk="segmind", operation="create")
def test_submit_wait_and_fetch(client: SegmindClient) -> None:
    job = client.submit_async(MODEL, prompt="red mug", aspect_ratio="9:16", output_format="png", seed=7)
    assert job.status()["request_id"] == job.request_id
    done = job.wait(timeout=60, interval=0.05)
    assert done["metrics"]["cost"] == 0.084
    image = httpx.get(done["output"], timeout=60).content
    assert read_digest(image) == request_digest("red mug", (), "9:16", "1K")


@pytest.mark.slow
@pytest.mark.conformance(sdk="segmind", operation="error")
def test_a_failed_request_raises_from_its_422(tmp_path: Path) -> None:
    with served(tmp_path / "box", "segmind", "--latency", "0.1", "--chaos", always(tmp_path, "fail_job")) as url:
        made = SegmindClient(api_key=KEY, base_url=f"{url}/v1")
        with made._client, pytest.raises(InferenceFailed) as caught:
            made.submit_async(MODEL, prompt="x").wait(timeout=60, interval=0.05)
    assert caught.value.detail == "The upstream model did not answer in time"
    assert caught.value.status_body["status"] == "FAILED"


@pytest.mark.conformance(sdk="segmind", operation="create")
def test_the_blocking_form(client: SegmindClient) -> None:
    reply = client.run_sync("nano-banana", prompt="red mug")
    assert read_digest(reply.content) == request_digest("red mug", (), "1:1", "1K")
    assert reply.headers["x-cost"] == "0.04"


@pytest.mark.slow
@pytest.mark.conformance(sdk="segmind", operation="list")
def test_the_history_shows_what_was_sent(client: SegmindClient) -> None:
    job = client.submit_async(MODEL, prompt="for the record", seed=4_711)
    job.wait(timeout=60, interval=0.05)
    (row,) = [row for row in client.generations.history(per_page=100)["data"] if row["request_id"] == job.request_id]
    assert row["request_body"] == {"prompt": "for the record", "seed": 4_711}
    assert (row["model_status"], row["credits_deduction"]) == ("COMPLETED", 0.084)
    assert client.generations.get(job.request_id)["generation_url"] == row["generation_url"]


@pytest.mark.conformance(sdk="segmind", operation="poll")
def test_what_the_client_bought_our_codec_reads(client: SegmindClient, base_url: str) -> None:
    request, ctx = ImageRequest("ours"), Context(key=Secret(KEY), base_url=base_url, marker=99)
    fields: dict[str, Any] = msgspec.json.decode(SEGMIND.build_submit(request, ctx).body)
    job = client.submit_async(MODEL, **fields)
    done = job.wait(timeout=60, interval=0.05)
    outcome = SEGMIND.read_poll(_get(SEGMIND.build_poll(job.request_id, ctx).url))
    assert isinstance(outcome, Finished)
    assert (outcome.url, outcome.job) == (done["output"], job.request_id)
    created = datetime.fromisoformat(client.generations.get(job.request_id)["created_at"])
    at_us = round(created.timestamp() * 1_000_000)
    call = SEGMIND.build_list(ctx, since_us=at_us, until_us=at_us, cursor=None)
    page = SEGMIND.read_list(_get(call.url))
    prints = {listed.job: listed.fingerprint for listed in page.jobs}
    assert prints[job.request_id] == SEGMIND.fingerprint(request, ctx)


def _get(url: str) -> HttpReply:
    reply = httpx.get(url, headers={"x-api-key": KEY}, timeout=60)
    return HttpReply(reply.status_code, dict(reply.headers), reply.content)


@pytest.mark.slow
@pytest.mark.conformance(sdk="segmind", operation="error")
def test_errors_have_their_words(client: SegmindClient, base_url: str) -> None:
    with pytest.raises(SegmindError) as caught:
        client.submit_async(MODEL, prompt="x", aspect_ratio="7:5")
    assert (caught.value.status, caught.value.detail) == (406, "Parameter aspect_ratio is not acceptable")
    with pytest.raises(SegmindError) as caught:
        client.submit_async("flux", prompt="x")
    assert caught.value.status == 404
    stranger = SegmindClient(api_key="wrong", base_url=f"{base_url}/v1")
    with stranger._client, pytest.raises(SegmindError) as caught:
        stranger.submit_async(MODEL, prompt="x")
    assert (caught.value.status, caught.value.detail) == (401, "Unauthorized")


@pytest.mark.conformance(sdk="segmind", operation="upload")
def test_an_upload(client: SegmindClient, tmp_path: Path) -> None:
    picture = tmp_path / "mug.png"
    picture.write_bytes(b"png")
    (url,) = client.files.upload(picture)["file_urls"]
    assert url.startswith("https://images.segmind.com/assets/")
    done = client.submit_async(MODEL, prompt="the same mug", image_urls=[url]).wait(timeout=60, interval=0.05)
    image = httpx.get(done["output"], timeout=60).content
    assert read_digest(image) == request_digest("the same mug", (url,), "1:1", "1K")


@pytest.mark.slow
@pytest.mark.conformance(sdk="segmind", operation="balance")
def test_the_credits_fall_by_what_the_client_bought(client: SegmindClient, base_url: str) -> None:
    """The client has no call for the credits; our codec asks for them."""
    call = SEGMIND.build_check(Context(key=Secret(KEY), base_url=base_url))
    before = SEGMIND.read_check(_get(call.url))
    client.submit_async(MODEL, prompt="x", output_resolution="4K").wait(timeout=60, interval=0.05)
    after = SEGMIND.read_check(_get(call.url))
    assert (before.balance_microusd or 0) - (after.balance_microusd or 0) == 168_000


# --- the requests themselves --------------------------------------------------------------------------------


@pytest.mark.conformance(sdk="segmind", operation="request")
@pytest.mark.parametrize(
    "request_",
    [
        ImageRequest('ü 漢 \u2028 "quoted"', aspect="9:16", resolution="4K", grounding=True),
        ImageRequest("x", model="nano-banana-pro", references=("https://r.example/ä?x=1",), seed=3),
        ImageRequest("x", model="nano-banana"),
    ],
)
def test_our_request_is_the_clients(request_: ImageRequest) -> None:
    call = SEGMIND.build_submit(request_, Context(key=Secret(KEY), marker=5))
    with recorded() as (made, seen), pytest.raises(SegmindError):
        made.submit_async(request_.model, **msgspec.json.decode(call.body))
    (theirs,) = seen
    assert_equal_but_for(theirs, call, {"accept"})


@pytest.mark.conformance(sdk="segmind", operation="request")
def test_our_upload_is_the_clients(tmp_path: Path) -> None:
    picture = tmp_path / "mug.png"
    picture.write_bytes(b"png")
    with recorded() as (made, seen), pytest.raises(SegmindError):
        made.files.upload(picture)
    (theirs,) = seen
    steps = SEGMIND.upload(FileBytes("mug.png", "image/png", b"png"), Context(key=Secret(KEY)))
    assert_equal_but_for(theirs, next(steps), {"accept"})


@contextmanager
def recorded() -> Iterator[tuple[SegmindClient, list[httpx.Request]]]:
    """A client whose requests are kept and answered with an error."""
    seen: list[httpx.Request] = []

    def record(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(500, json={})

    made = SegmindClient(api_key=KEY)
    headers = dict(made._client.headers)
    made._client.close()
    made._client = httpx.Client(transport=httpx.MockTransport(record), headers=headers, base_url=made.base_url)
    with made._client:
        yield made, seen


def assert_equal_but_for(theirs: httpx.Request, call: HttpCall, headers: set[str]) -> None:
    assert (theirs.method, str(theirs.url)) == (call.method, call.url)
    assert msgspec.json.decode(theirs.content) == msgspec.json.decode(call.body)
    ours = {name.lower(): value for name, value in call.headers.items()}
    assert {name for name in ours if theirs.headers.get(name) != ours[name]} == headers
