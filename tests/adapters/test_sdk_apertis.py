"""The official ``openai`` client, which Apertis recommends, against the sandbox, and its requests against ours."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import msgspec
import openai
import pytest
from openai import OpenAI

from adapters.apertis import APERTIS
from adapters.base import Context, Finished, HttpReply, ImageRequest, Secret
from adapters.sandbox.openaistyle import identity
from adapters.sandbox.picture import read_digest, request_digest
from tests.adapters.served import always, served

KEY = "sandbox-sdk"
MODEL = "gemini-3.1-flash-image-preview"
DATA = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("sandbox"), "apertis", "--latency", "0.2") as url:
        yield url


def connected(base_url: str, key: str = KEY) -> OpenAI:
    """By default this client pays again after a timeout or a 5xx: three times in all."""
    return OpenAI(api_key=key, base_url=f"{base_url}/v1", max_retries=0, timeout=60)


@pytest.fixture
def client(base_url: str) -> Iterator[OpenAI]:
    with connected(base_url) as made:
        yield made


@pytest.mark.conformance(sdk="openai", operation="create")
def test_the_image_is_in_the_answer(client: OpenAI) -> None:
    answer = client.images.generate(
        model=MODEL, prompt="a red kettle", n=1, response_format="b64_json", user="t1", extra_body={"size": "768x1376"}
    )
    assert answer.data is not None
    assert answer.usage is not None
    image = base64.b64decode(answer.data[0].b64_json or "")
    assert read_digest(image) == request_digest("a red kettle", (), "9:16", "1K")


@pytest.mark.conformance(sdk="openai", operation="create")
def test_a_chat_answers_with_an_image(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "a kettle"}, {"type": "image_url", "image_url": {"url": DATA}}],
            }
        ],
        extra_body={"image_config": {"aspect_ratio": "4:5", "image_size": "1K"}},
    )
    (choice,) = answer.choices
    found = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", choice.message.to_json())
    assert found is not None
    assert read_digest(base64.b64decode(found[1])) == request_digest("a kettle", (identity(DATA),), "4:5", "1K")


@pytest.mark.parametrize("references", [(), (DATA,)])
def test_our_calls_get_images_too(base_url: str, references: tuple[str, ...]) -> None:
    ctx = Context(key=Secret(KEY), base_url=base_url)
    call = APERTIS.build_submit(ImageRequest("ours", aspect="21:9", references=references), ctx)
    reply = httpx.post(call.url, headers=call.headers, content=call.body, timeout=60)
    outcome = APERTIS.read_submit(HttpReply(reply.status_code, dict(reply.headers), reply.content))
    assert isinstance(outcome, Finished)
    assert read_digest(outcome.data) == request_digest("ours", tuple(map(identity, references)), "21:9", "1K")


@pytest.mark.conformance(sdk="openai", operation="models")
@pytest.mark.slow
def test_the_models(client: OpenAI) -> None:
    listed = {model.id for model in client.models.list()}
    assert listed == {model.provider_id for model in APERTIS.capabilities.models.value}


@pytest.mark.conformance(sdk="openai", operation="error")
@pytest.mark.slow
def test_errors_have_their_classes(base_url: str, client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(model=MODEL, prompt="x", size="1792x1024")
    assert (caught.value.code, caught.value.param, caught.value.type) == (
        "invalid_parameter",
        "size",
        "invalid_request_error",
    )
    with pytest.raises(openai.NotFoundError):
        client.images.generate(model="gemini-9", prompt="x")
    with connected(base_url, "wrong") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.images.generate(model=MODEL, prompt="x")
    with connected(base_url, "sandbox-locked") as locked, pytest.raises(openai.PermissionDeniedError):
        locked.images.generate(model=MODEL, prompt="x")
    with connected(base_url, "sandbox-broke") as poor, pytest.raises(openai.APIStatusError) as told:
        poor.images.generate(model=MODEL, prompt="x")
    assert told.value.status_code == 402


@pytest.mark.conformance(sdk="openai", operation="error")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "error"), [("throttle", openai.RateLimitError), ("error_before", openai.InternalServerError)]
)
def test_too_fast_and_broken(tmp_path: Path, share: str, error: type[openai.APIStatusError]) -> None:
    with (
        served(tmp_path / "box", "apertis", "--chaos", always(tmp_path, share)) as url,
        connected(url) as made,
        pytest.raises(error),
    ):
        made.images.generate(model=MODEL, prompt="x")


# --- the requests themselves --------------------------------------------------------------------------------


@pytest.mark.conformance(sdk="openai", operation="request")
@pytest.mark.parametrize(
    "request_",
    [
        ImageRequest('ü 漢 \u2028 "quoted"', aspect="9:16", resolution="4K"),
        ImageRequest("x", model="nano-banana"),
        ImageRequest("x", model="nano-banana-pro", references=(DATA, DATA), aspect="4:5"),
    ],
)
def test_our_request_is_the_clients_but_for_the_looks_of_a_browser(request_: ImageRequest) -> None:
    """What the client has no argument for (``size`` is one of a few there, ``image_config`` unknown) goes as extra."""
    seen: list[httpx2.Request] = []

    def record(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(500, json={})

    call = APERTIS.build_submit(request_, Context(key=Secret(KEY), reference="t1"))
    body: dict[str, Any] = msgspec.json.decode(call.body)
    extra = {name: body.pop(name) for name in ("size", "modalities", "image_config") if name in body}
    transport = httpx2.Client(transport=httpx2.MockTransport(record))
    made = OpenAI(api_key=KEY, base_url="https://api.apertis.ai/v1", max_retries=0, http_client=transport)
    create: Any = made.chat.completions.create if request_.references else made.images.generate
    with made, pytest.raises(openai.InternalServerError):
        create(**body, extra_body=extra)
    (theirs,) = seen
    assert theirs.method == call.method
    assert str(theirs.url) == call.url
    assert msgspec.json.decode(theirs.content) == msgspec.json.decode(call.body)
    ours = {name.lower(): value for name, value in call.headers.items()}
    assert {name for name in ours if theirs.headers.get(name) != ours[name]} == {"user-agent"}
