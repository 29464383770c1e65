"""The official BytePlus client (``byteplussdkarkruntime``) against the sandbox, and its requests against ours."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from byteplussdkarkruntime import Ark  # type: ignore[import-untyped]  # it has no types
from byteplussdkarkruntime._exceptions import (  # type: ignore[import-untyped]
    ArkAPIStatusError,
    ArkAuthenticationError,
    ArkBadRequestError,
    ArkInternalServerError,
    ArkNotFoundError,
    ArkPermissionDeniedError,
    ArkRateLimitError,
)

from adapters.base import Context, Finished, HttpReply, ImageRequest, Secret
from adapters.byteplus import BYTEPLUS
from adapters.sandbox.picture import read_digest, request_digest
from tests.adapters.served import always, served

KEY = "sandbox-sdk"
MODEL = "seedream-4-0-250828"
URL = "https://refs.example/k.png"


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("sandbox"), "byteplus", "--latency", "0.2") as url:
        yield url


def connected(base_url: str, key: str = KEY, **more: Any) -> Any:
    """By default this client pays again after any trouble: three times in all."""
    return Ark(api_key=key, base_url=f"{base_url}/api/v3", max_retries=0, timeout=60, **more)


@pytest.fixture
def client(base_url: str) -> Iterator[Any]:
    made = connected(base_url)
    yield made
    made.close()


@pytest.mark.conformance(sdk="byteplus-python-sdk-v2", operation="create")
def test_the_image_is_behind_a_url(client: Any) -> None:
    answer = client.images.generate(model=MODEL, prompt="a red kettle", size="736x1312", image=[URL], watermark=False)
    (item,) = answer.data
    assert (answer.model, item.size, item.b64_json) == (MODEL, "736x1312", None)
    assert (answer.usage.generated_images, answer.usage.total_tokens) == (1, 736 * 1312 // 256)
    assert read_digest(httpx.get(item.url, timeout=60).content) == request_digest("a red kettle", (URL,), "9:16", "1K")


@pytest.mark.conformance(sdk="byteplus-python-sdk-v2", operation="create")
def test_the_image_is_in_the_answer(client: Any) -> None:
    (item,) = client.images.generate(model=MODEL, prompt="a blue kettle", response_format="b64_json").data
    assert read_digest(base64.b64decode(item.b64_json)) == request_digest("a blue kettle", (), "1:1", "1K")


def test_our_call_gets_an_image_too(base_url: str) -> None:
    ctx = Context(key=Secret(KEY), base_url=base_url)
    call = BYTEPLUS.build_submit(ImageRequest("ours", "seedream-5", "21:9", "2K", output_format="png"), ctx)
    reply = httpx.post(call.url, headers=call.headers, content=call.body, timeout=60)
    outcome = BYTEPLUS.read_submit(HttpReply(reply.status_code, dict(reply.headers), reply.content))
    assert isinstance(outcome, Finished)
    image = httpx.get(outcome.url, timeout=60)
    assert image.headers["content-type"] == "image/png"
    assert read_digest(image.content) == request_digest("ours", (), "21:9", "2K")


@pytest.mark.conformance(sdk="byteplus-python-sdk-v2", operation="list")
@pytest.mark.slow
def test_images_are_in_no_list(client: Any) -> None:
    client.images.generate(model=MODEL, prompt="x")
    listed = client.content_generation.tasks.list(page_num=1, page_size=1)
    assert (listed.total, listed.items) == (0, [])


@pytest.mark.conformance(sdk="byteplus-python-sdk-v2", operation="error")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "fields", "error", "code"),
    [
        (KEY, {"size": "1x1"}, ArkBadRequestError, "InvalidParameter"),
        (KEY, {"model": "seedream-9"}, ArkNotFoundError, "InvalidEndpointOrModel.NotFound"),
        ("wrong", {}, ArkAuthenticationError, "AuthenticationError"),
        ("sandbox-broke", {}, ArkPermissionDeniedError, "AccountOverdueError"),
        ("sandbox-locked", {}, ArkNotFoundError, "ModelNotOpen"),
    ],
)
def test_errors_have_their_classes(
    base_url: str, key: str, fields: dict[str, str], error: type[ArkAPIStatusError], code: str
) -> None:
    made = connected(base_url, key)
    with pytest.raises(error) as caught:
        made.images.generate(**{"model": MODEL, "prompt": "x", **fields})
    made.close()
    assert caught.value.code == code


@pytest.mark.conformance(sdk="byteplus-python-sdk-v2", operation="error")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "error"), [("throttle", ArkRateLimitError), ("error_before", ArkInternalServerError)]
)
def test_too_fast_and_broken(tmp_path: Path, share: str, error: type[ArkAPIStatusError]) -> None:
    with served(tmp_path / "box", "byteplus", "--chaos", always(tmp_path, share)) as url:
        made = connected(url)
        with pytest.raises(error):
            made.images.generate(model=MODEL, prompt="x")
        made.close()


# --- the requests themselves --------------------------------------------------------------------------------


@pytest.mark.conformance(sdk="byteplus-python-sdk-v2", operation="request")
@pytest.mark.parametrize(
    "request_",
    [
        ImageRequest('ü 漢 \u2028 "quoted"', "seedream-4", aspect="9:16", resolution="4K"),
        ImageRequest("x", "seedream-4.5", resolution="2K", references=("https://r.example/ä?x=1", URL)),
        ImageRequest("x", "seedream-5-pro", resolution="2K", output_format="png"),
    ],
)
def test_our_request_is_the_clients_but_for_its_nulls(request_: ImageRequest) -> None:
    """The client sends ``null`` for what it was not given, and names each call by itself unless told a name."""
    seen: list[httpx.Request] = []

    def record(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(500, json={})

    call = BYTEPLUS.build_submit(request_, Context(key=Secret(KEY), reference="t1"))
    body: dict[str, Any] = msgspec.json.decode(call.body)
    transport = httpx.Client(transport=httpx.MockTransport(record))
    made = connected("https://ark.ap-southeast.bytepluses.com", http_client=transport)
    with pytest.raises(ArkInternalServerError):
        made.images.generate(**body, extra_headers={"X-Client-Request-Id": "t1"})
    made.close()
    (theirs,) = seen
    assert theirs.method == call.method
    assert str(theirs.url) == call.url
    sent: dict[str, Any] = msgspec.json.decode(theirs.content)
    assert {name: value for name, value in sent.items() if value is not None} == body
    ours = {name.lower(): value for name, value in call.headers.items()}
    assert {name for name in ours if theirs.headers.get(name) != ours[name]} == set()
