"""The official ``together`` client against the sandbox process, and its requests against those of our codec."""

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from together import APIStatusError, AuthenticationError, InternalServerError, Omit, RateLimitError, Together
from together.types.image_data_b64 import ImageDataB64
from together.types.image_data_url import ImageDataURL

from adapters.base import Context, Finished, HttpReply, ImageRequest, Secret
from adapters.sandbox.picture import read_digest, request_digest
from adapters.together import TOGETHER
from tests.adapters.served import always, served

KEY = "sandbox-sdk"
MODEL = "google/flash-image-3.1"


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("sandbox"), "together", "--latency", "0.2") as url:
        yield url


def connected(base_url: str, key: str = KEY) -> Together:
    """By default this client pays again after a timeout: three times in all."""
    return Together(api_key=key, base_url=base_url, max_retries=0, timeout=60)


@pytest.fixture
def client(base_url: str) -> Iterator[Together]:
    with connected(base_url) as made:
        yield made


@pytest.mark.conformance(sdk="together", operation="create")
def test_the_image_is_in_the_answer(client: Together) -> None:
    answer = client.images.generate(
        model=MODEL,
        prompt="a red kettle",
        width=768,
        height=1344,
        n=1,
        response_format="base64",
        reference_images=["https://refs.example/k.png"],
    )
    (item,) = answer.data
    assert isinstance(item, ImageDataB64)
    assert (answer.model, answer.object) == (MODEL, "list")
    image = base64.b64decode(item.b64_json)
    assert read_digest(image) == request_digest("a red kettle", ("https://refs.example/k.png",), "9:16", "1K")


@pytest.mark.conformance(sdk="together", operation="create")
def test_the_image_is_behind_a_url(client: Together) -> None:
    (item,) = client.images.generate(model=MODEL, prompt="a blue kettle").data  # a URL is the default
    assert isinstance(item, ImageDataURL)
    assert read_digest(httpx.get(item.url, timeout=60).content) == request_digest("a blue kettle", (), "1:1", "1K")


def test_our_call_gets_an_image_too(base_url: str) -> None:
    ctx = Context(key=Secret(KEY), base_url=base_url)
    call = TOGETHER.build_submit(ImageRequest("ours", aspect="21:9"), ctx)
    reply = httpx.post(call.url, headers=call.headers, content=call.body, timeout=60)
    outcome = TOGETHER.read_submit(HttpReply(reply.status_code, dict(reply.headers), reply.content))
    assert isinstance(outcome, Finished)
    assert read_digest(outcome.data) == request_digest("ours", (), "21:9", "1K")


@pytest.mark.conformance(sdk="together", operation="error")
@pytest.mark.slow
def test_errors_have_their_classes(base_url: str, client: Together) -> None:
    with pytest.raises(APIStatusError, match="not a supported size") as caught:
        client.images.generate(model=MODEL, prompt="x", width=1000, height=1000)
    assert caught.value.status_code == 400
    with pytest.raises(APIStatusError, match="google/none") as caught:
        client.images.generate(model="google/none", prompt="x")
    assert caught.value.status_code == 404
    with connected(base_url, "wrong") as stranger, pytest.raises(AuthenticationError, match="Invalid API key"):
        stranger.images.generate(model=MODEL, prompt="x")
    with connected(base_url, "sandbox-broke") as poor, pytest.raises(APIStatusError, match="credit") as caught:
        poor.images.generate(model=MODEL, prompt="x")
    assert caught.value.status_code == 402


@pytest.mark.conformance(sdk="together", operation="error")
@pytest.mark.slow
@pytest.mark.parametrize(("share", "error"), [("throttle", RateLimitError), ("error_before", InternalServerError)])
def test_too_fast_and_broken(tmp_path: Path, share: str, error: type[APIStatusError]) -> None:
    with (
        served(tmp_path / "box", "together", "--chaos", always(tmp_path, share)) as url,
        connected(url) as made,
        pytest.raises(error) as caught,
    ):
        made.images.generate(model=MODEL, prompt="x")
    assert float(caught.value.response.headers["x-ratelimit-reset"]) == (share == "throttle")


# --- the requests themselves --------------------------------------------------------------------------------


@pytest.mark.conformance(sdk="together", operation="request")
@pytest.mark.parametrize(
    "request_",
    [
        ImageRequest('ü 漢 \u2028 "quoted"', aspect="9:16", resolution="4K"),
        ImageRequest("x", model="nano-banana-pro", references=("https://r.example/ä?x=1",), aspect="4:5"),
        ImageRequest("x", model="nano-banana"),
    ],
)
def test_our_request_is_the_clients(request_: ImageRequest) -> None:
    seen: list[httpx.Request] = []

    def record(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(500, json={})

    call = TOGETHER.build_submit(request_, Context(key=Secret(KEY)))
    body = msgspec.json.decode(call.body, type=_Body)
    transport = httpx.Client(transport=httpx.MockTransport(record))
    with Together(api_key=KEY, max_retries=0, http_client=transport) as made, pytest.raises(InternalServerError):
        made.images.generate(
            model=body.model,
            prompt=body.prompt,
            width=body.width,
            height=body.height,
            n=body.n,
            response_format="base64",
            reference_images=body.reference_images or Omit(),
        )
    (theirs,) = seen
    assert theirs.method == call.method
    assert str(theirs.url) == call.url
    assert msgspec.json.decode(theirs.content) == msgspec.json.decode(call.body)
    ours = {name.lower(): value for name, value in call.headers.items()}
    assert {name for name in ours if theirs.headers.get(name) != ours[name]} == set()


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Our body, in the words of the client's arguments."""

    model: str
    prompt: str
    width: int
    height: int
    n: int
    response_format: str
    reference_images: list[str] = []
