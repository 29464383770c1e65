"""The official ``google-genai`` client against the sandbox process, and its requests against those of our codec."""

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from google import genai
from google.genai import errors, types

from adapters.base import Context, Finished, HttpReply, ImageRequest, Secret
from adapters.google import GOOGLE
from adapters.googlebatch import GOOGLE_BATCH
from adapters.sandbox.picture import read_digest, request_digest
from tests.adapters.served import always, served

KEY = "sandbox-sdk"
MODEL = "gemini-3.1-flash-image"
CONFIG = types.GenerateContentConfig(response_modalities=["IMAGE"])
KETTLE = b"\x89PNG a kettle"


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("sandbox"), "google", "--latency", "0.2") as url:
        yield url


def connected(base_url: str, key: str = KEY, *, api_version: str = "") -> genai.Client:
    """As its users make it: with its default version unless another one is asked for."""
    options = types.HttpOptions(base_url=base_url, timeout=60_000)
    if api_version:
        options.api_version = api_version
    return genai.Client(api_key=key, http_options=options)


@pytest.fixture
def client(base_url: str) -> Iterator[genai.Client]:
    with connected(base_url) as made:
        yield made


def image_in(answer: types.GenerateContentResponse | None) -> bytes:
    assert answer is not None
    assert answer.parts is not None
    found = [part.inline_data.data for part in answer.parts if part.inline_data is not None and not part.thought]
    assert found[-1] is not None
    return found[-1]


def finished(client: genai.Client, name: str | None) -> types.BatchJob:
    """Poll as the client's documentation says, until the batch has ended."""
    assert name is not None
    deadline = time.monotonic() + 60
    while not (job := client.batches.get(name=name)).done:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return job


def inlined(*prompts: str) -> list[types.InlinedRequest]:
    return [
        types.InlinedRequest(contents=prompt, metadata={"key": f"k{number}"}, config=CONFIG)
        for number, prompt in enumerate(prompts)
    ]


def lines(*prompts: str) -> bytes:
    request = {"generationConfig": {"responseModalities": ["IMAGE"]}}
    return b"".join(
        msgspec.json.encode({"key": f"k{number}", "request": {"contents": [{"parts": [{"text": prompt}]}], **request}})
        + b"\n"
        for number, prompt in enumerate(prompts)
    )


def uploaded(client: genai.Client, data: bytes) -> types.File:
    config = types.UploadFileConfig(display_name="shard", mime_type="application/jsonl")
    return client.files.upload(file=io.BytesIO(data), config=config)


# --- the plain call -----------------------------------------------------------------------------------------


@pytest.mark.conformance(sdk="google-genai", operation="create")
@pytest.mark.parametrize("api_version", ["", "v1beta"])
def test_the_image_is_in_the_answer(base_url: str, api_version: str) -> None:
    with connected(base_url, api_version=api_version) as client:
        answer = client.models.generate_content(
            model=MODEL,
            contents="a red kettle",
            config=types.GenerateContentConfig(
                response_modalities=["IMAGE"],
                image_config=types.ImageConfig(aspect_ratio="16:9", image_size="2K"),
                seed=3,
            ),
        )
    assert read_digest(image_in(answer)) == request_digest("a red kettle", (), "16:9", "2K")
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.candidates_token_count == 1680
    assert answer.model_version == MODEL


@pytest.mark.slow
@pytest.mark.conformance(sdk="google-genai", operation="error")
@pytest.mark.parametrize(
    ("key", "model", "code", "status"),
    [
        ("wrong", MODEL, 400, "INVALID_ARGUMENT"),
        ("sandbox-broke", MODEL, 429, "RESOURCE_EXHAUSTED"),
        ("sandbox-locked", MODEL, 403, "PERMISSION_DENIED"),
        (KEY, "gemini-3-pro-image-preview", 404, "NOT_FOUND"),
    ],
)
def test_errors_have_their_words(base_url: str, key: str, model: str, code: int, status: str) -> None:
    with connected(base_url, key) as client, pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model=model, contents="x", config=CONFIG)
    assert (caught.value.code, caught.value.status) == (code, status)


@pytest.mark.slow
@pytest.mark.conformance(sdk="google-genai", operation="error")
def test_a_blocked_image_is_a_success_without_one(tmp_path: Path) -> None:
    chaos = always(tmp_path, "policy_job")
    with (
        served(tmp_path / "box", "google", "--latency", "0.1", "--chaos", chaos) as url,
        connected(url) as client,
    ):
        answer = client.models.generate_content(model=MODEL, contents="x", config=CONFIG)
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason == types.FinishReason.IMAGE_SAFETY


@pytest.mark.slow
@pytest.mark.conformance(sdk="google-genai", operation="models")
def test_the_models_are_listed(client: genai.Client) -> None:
    assert f"models/{MODEL}" in [model.name for model in client.models.list()]
    assert client.models.get(model=MODEL).name == f"models/{MODEL}"


# --- files and batches --------------------------------------------------------------------------------------


@pytest.mark.conformance(sdk="google-genai", operation="batch")
@pytest.mark.conformance(sdk="google-genai", operation="upload")
@pytest.mark.conformance(sdk="google-genai", operation="poll")
def test_a_batch_by_file(client: genai.Client) -> None:
    source = uploaded(client, lines("a", "b"))
    assert source.name is not None
    created = client.batches.create(
        model=MODEL, src=source.name, config=types.CreateBatchJobConfig(display_name="run7-shard0042")
    )
    assert (created.display_name, created.state) == ("run7-shard0042", types.JobState.JOB_STATE_PENDING)
    done = finished(client, created.name)
    assert done.state == types.JobState.JOB_STATE_SUCCEEDED
    assert done.dest is not None
    assert done.dest.file_name is not None
    rows = [msgspec.json.decode(row) for row in client.files.download(file=done.dest.file_name).splitlines()]
    assert [row["key"] for row in rows] == ["k0", "k1"]
    answer = types.GenerateContentResponse._from_response(response=rows[1]["response"], kwargs={})
    assert read_digest(image_in(answer)) == request_digest("b", (), "1:1", "1K")


@pytest.mark.slow
@pytest.mark.conformance(sdk="google-genai", operation="batch")
def test_a_batch_asked_inline(client: genai.Client) -> None:
    created = client.batches.create(
        model=MODEL, src=inlined("a", "b"), config=types.CreateBatchJobConfig(display_name="inline")
    )
    done = finished(client, created.name)
    assert done.dest is not None
    assert done.dest.inlined_responses is not None
    first, second = done.dest.inlined_responses
    assert (first.metadata, second.metadata) == ({"key": "k0"}, {"key": "k1"})
    assert read_digest(image_in(second.response)) == request_digest("b", (), "1:1", "1K")


@pytest.mark.slow
@pytest.mark.conformance(sdk="google-genai", operation="list")
def test_the_list_follows_the_pages(base_url: str) -> None:
    with connected(base_url, "sandbox-lister") as client:
        made = [
            client.batches.create(
                model=MODEL, src=inlined("a"), config=types.CreateBatchJobConfig(display_name=f"n{number}")
            ).name
            for number in range(3)
        ]
        assert made[0] is not None
        listed = list(client.batches.list(config=types.ListBatchJobsConfig(page_size=2)))
        assert [job.name for job in listed] == made[::-1]
        client.batches.delete(name=made[0])
        assert len(list(client.batches.list())) == 2


@pytest.mark.slow
@pytest.mark.conformance(sdk="google-genai", operation="cancel")
def test_cancel(tmp_path: Path) -> None:
    with served(tmp_path, "google", "--latency", "60") as url, connected(url) as client:
        config = types.CreateBatchJobConfig(display_name="n")
        created = client.batches.create(model=MODEL, src=inlined("a"), config=config)
        assert created.name is not None
        client.batches.cancel(name=created.name)
        assert client.batches.get(name=created.name).state == types.JobState.JOB_STATE_CANCELLED


@pytest.mark.slow
@pytest.mark.conformance(sdk="google-genai", operation="upload")
def test_an_uploaded_picture_is_a_reference_until_it_is_deleted(client: genai.Client) -> None:
    file = client.files.upload(file=io.BytesIO(KETTLE), config=types.UploadFileConfig(mime_type="image/png"))
    assert (file.size_bytes, file.name) == (len(KETTLE), client.files.get(name=str(file.name)).name)
    contents: list[types.PartUnionDict] = [file, "x"]
    image_in(client.models.generate_content(model=MODEL, contents=contents, config=CONFIG))
    client.files.delete(name=str(file.name))
    with pytest.raises(errors.ClientError):
        client.files.get(name=str(file.name))


# --- the requests themselves --------------------------------------------------------------------------------


@pytest.mark.conformance(sdk="google-genai", operation="request")
@pytest.mark.parametrize(
    "request_",
    [
        ImageRequest('ü 漢 \u2028 "quoted"', aspect="9:16", resolution="4K", grounding=True),
        ImageRequest("x", aspect="auto", references=("data:image/png;base64,iVBORw0KGgo=",), seed=7),
        ImageRequest("x", model="nano-banana-pro", resolution="2K"),
        ImageRequest("x", model="nano-banana"),
    ],
)
def test_our_request_is_the_clients(request_: ImageRequest) -> None:
    seen: list[httpx.Request] = []

    def record(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(500, json={"error": {"code": 500, "message": "x", "status": "INTERNAL"}})

    options = types.HttpOptions(api_version="v1beta", httpx_client=httpx.Client(transport=httpx.MockTransport(record)))
    with genai.Client(api_key=KEY, http_options=options) as client, pytest.raises(errors.ServerError):
        client.models.generate_content(**as_the_client_says_it(request_))
    (theirs,) = seen
    call = GOOGLE.build_submit(request_, Context(key=Secret(KEY)))
    assert (theirs.method, str(theirs.url)) == (call.method, call.url)
    assert in_one_spelling(msgspec.json.decode(theirs.content)) == msgspec.json.decode(call.body)
    ours = {name.lower(): value for name, value in call.headers.items()}
    assert {name for name in ours if theirs.headers.get(name) != ours[name]} == {"accept"}


def as_the_client_says_it(request: ImageRequest) -> dict[str, Any]:
    model = GOOGLE.capabilities.model(request.model)
    assert model is not None
    body: dict[str, Any] = msgspec.json.decode(GOOGLE.build_submit(request, Context(key=Secret(KEY))).body)
    config = body["generationConfig"]
    image = config["imageConfig"]
    parts = [types.Part.model_validate(part) for part in body["contents"][0]["parts"]]
    return {
        "model": model.provider_id,
        "contents": [types.Content(role="user", parts=parts)],
        "config": types.GenerateContentConfig(
            candidate_count=config["candidateCount"],
            response_modalities=config["responseModalities"],
            image_config=types.ImageConfig(aspect_ratio=image.get("aspectRatio"), image_size=image.get("imageSize")),
            seed=config.get("seed"),
            tools=[types.Tool(google_search=types.GoogleSearch())] if "tools" in body else None,
        ),
    }


def in_one_spelling(value: Any) -> Any:
    """The client spells some names with underscores, which Google takes too, and what was left out as null."""
    if isinstance(value, dict):
        return {camel(name): in_one_spelling(each) for name, each in value.items() if each is not None}
    return [in_one_spelling(each) for each in value] if isinstance(value, list) else value


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def test_what_the_client_is_told_our_codec_reads(base_url: str) -> None:
    ctx = Context(key=Secret(KEY), base_url=base_url)
    call = GOOGLE.build_submit(ImageRequest("a blue kettle"), ctx)
    reply = httpx.post(call.url, headers=call.headers, content=call.body, timeout=60)
    outcome = GOOGLE.read_submit(HttpReply(reply.status_code, dict(reply.headers), reply.content))
    assert isinstance(outcome, Finished)
    assert read_digest(outcome.data) == request_digest("a blue kettle", (), "1:1", "1K")


@pytest.mark.conformance(sdk="google-genai", operation="request")
def test_our_calls_for_a_batch_are_the_clients() -> None:
    """Field by field; only what we accept, and how the client introduces itself, differs."""
    seen: list[httpx.Request] = []

    def record(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"name": "batches/abc", "metadata": {"state": "BATCH_STATE_PENDING"}})

    options = types.HttpOptions(api_version="v1beta", httpx_client=httpx.Client(transport=httpx.MockTransport(record)))
    with genai.Client(api_key=KEY, http_options=options) as client:
        client.batches.create(model=MODEL, src="files/abc", config=types.CreateBatchJobConfig(display_name="bydawn-1"))
        client.batches.get(name="batches/abc")
        client.batches.cancel(name="batches/abc")
        list(client.batches.list(config=types.ListBatchJobsConfig(page_size=100)))
    ctx = Context(key=Secret(KEY))
    ours = [
        GOOGLE_BATCH.build_create(MODEL, "files/abc", "bydawn-1", ctx),
        GOOGLE_BATCH.build_batch("abc", ctx),
        GOOGLE_BATCH.build_stop("abc", ctx),
        GOOGLE_BATCH.build_batches(ctx, cursor=None),
    ]
    for theirs, call in zip(seen, ours, strict=True):
        assert (theirs.method, str(theirs.url)) == (call.method, call.url)
        if call.body:
            assert in_one_spelling(msgspec.json.decode(theirs.content)) == msgspec.json.decode(call.body)
        assert theirs.headers["x-goog-api-key"] == call.headers["x-goog-api-key"]
