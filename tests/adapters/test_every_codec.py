"""Laws that hold for the codec of every provider, those of installed packages too.

Whoever adds a provider runs this first: it needs nothing but the registry's line.
"""

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adapters import batchfile, registry
from adapters.base import (
    Callbacks,
    Cancels,
    Context,
    HttpReply,
    ImageRequest,
    JobPage,
    LookupOutcome,
    MalformedReply,
    PollOutcome,
    Refused,
    Secret,
    Standing,
    SubmitOutcome,
    Uploaded,
    UploadRefused,
)
from adapters.batchfile import BatchFiles
from adapters.sandbox.base import CallsBack
from adapters.sandbox.picture import read_digest, request_digest
from runtime.accounts import Account
from runtime.planning import Group, plan
from tests.adapters.everyone import CODECS, ENTRIES, KEY, REFERENCE, World, a_request, calls, readers, resolved

EVERYONE = pytest.mark.parametrize("name", CODECS)
SECRET = "live-Sup3r-S3cret-k3y"
CTX = Context(key=Secret(SECRET), marker=7, reference=REFERENCE, callback_url="https://hooks.example/h/token")

# What each reader may give; None where any value of the annotated type is as good.
OUTCOMES: dict[str, tuple[type, ...]] = {
    "submit": get_args(SubmitOutcome),
    "check": (Standing,),
    "poll": get_args(PollOutcome),
    "recall": get_args(PollOutcome),
    "cancel": get_args(PollOutcome),
    "sweep": (dict, Mapping),
    "list": (JobPage,),
    "lookup": get_args(LookupOutcome),
    "quote": (int, type(None)),
    "upload": (Uploaded,),
    "callback": (str,),
    "signature": (bool,),
    "create": get_args(batchfile.CreateOutcome),
    "batch": get_args(batchfile.BatchOutcome),
    "no results": get_args(batchfile.NoResults),
    "line": (batchfile.LineResult,),
    "batches": (batchfile.BatchPage,),
    "lines": (Uploaded,),
}


# --- garbage ----------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["", "success", "failed", "done", "https://x.example/a.png", "data:image/png;base64,AAAA", "-1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
STATUSES = st.sampled_from([200, 200, 200, 201, 202, 204, 302, 400, 401, 402, 403, 404, 409, 422, 429, 500, 503, 524])
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("retry-after", "x-ratelimit-reset", "date", "content-type", "location", "x-goog-upload-url"),
            *("webhook-id", "webhook-timestamp", "webhook-signature"),
            *("x-toapis-webhook-id", "x-toapis-webhook-timestamp", "x-toapis-webhook-signature", "x-webhook-signature"),
        ]
    ),
    st.text(max_size=12)
    | st.sampled_from(["7", "0\x1f", "1.5", "-1", "1e9", "NaN", "٣", "9" * 40, "v1,AAAA", "?upload_id=1"]),
)
NESTED = [b"[" * 5_000, b'{"data":' * 5_000, b'{"error":{"code":' + b"[" * 5_000]


@cache
def truths(name: str) -> Sequence[HttpReply]:
    """What the emulator answers to everything that the codec can ask, with a good, a wrong and an empty key."""
    said = []
    for key in (KEY, f"{KEY}-broke", f"{KEY}-locked", "wrong"):
        world = World(name, key)
        request = a_request(world.codec.capabilities.models.value[0])
        if key == KEY:
            world.buy(request)
        for call in calls(world.codec, request, world.ctx):
            world.send(call)
        said += world.said
    return [msgspec.structs.replace(reply, body=reply.body[:20_000]) for reply in said]


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value: object, path: Sequence[str | int], wrong: object) -> object:
    """The value with something else at a place; ``...`` takes it out."""
    if not path:
        return None if wrong is ... else wrong
    key, *rest = path
    if isinstance(value, dict):
        gone = not rest and wrong is ...
        return {k: changed(v, rest, wrong) if k == key else v for k, v in value.items() if not (gone and k == key)}
    assert isinstance(value, list)
    return [changed(v, rest, wrong) if place == key else v for place, v in enumerate(value)]


@st.composite
def spoiled(draw: st.DrawFn, name: str) -> HttpReply:
    """A true answer with something wrong in it: cut, or another value at some place, or another status."""
    truth = draw(st.sampled_from(truths(name)))
    status = draw(st.just(truth.status) | STATUSES)
    headers = {**truth.headers, **draw(HEADERS)}
    try:
        value = json.loads(truth.body)
    except ValueError:
        return HttpReply(status, headers, truth.body[: draw(st.integers(0, len(truth.body)))])
    where = draw(st.sampled_from(list(places(value))))
    return HttpReply(status, headers, msgspec.json.encode(changed(value, where, draw(st.just(...) | JSON))))


def replies(name: str) -> st.SearchStrategy[HttpReply]:
    body = st.binary(max_size=60) | st.builds(msgspec.json.encode, JSON) | st.sampled_from(NESTED)
    return spoiled(name) | st.builds(HttpReply, STATUSES | st.integers(100, 599), HEADERS, body)


def answer_is_an_outcome(name: str, reply: HttpReply) -> None:
    for kind, read in readers(CODECS[name], CTX).items():
        outcome: object
        try:
            outcome = read(reply)
        except (MalformedReply, UploadRefused) as exc:
            outcome = exc
        allowed = (*OUTCOMES[kind], MalformedReply, *([UploadRefused] if kind in ("upload", "lines") else []))
        assert isinstance(outcome, allowed), f"{kind}: {outcome!r}"
        assert SECRET not in repr(outcome)


@EVERYONE
@given(data=st.data())
@settings(max_examples=60)
def test_garbage_is_an_outcome_or_malformed(name: str, data: st.DataObject) -> None:
    answer_is_an_outcome(name, data.draw(replies(name)))


@pytest.mark.slow
@EVERYONE
@given(data=st.data())
@settings(max_examples=1_000, deadline=None)
def test_much_garbage_is_an_outcome_or_malformed(name: str, data: st.DataObject) -> None:
    answer_is_an_outcome(name, data.draw(replies(name)))


@EVERYONE
def test_the_emulators_own_answers_are_read(name: str) -> None:
    """Else the law above would spoil answers that no reader understands."""
    understood = 0
    for reply in truths(name):
        for read in readers(CODECS[name], CTX).values():
            try:
                read(reply)
            except (MalformedReply, UploadRefused):
                continue
            understood += 1
    assert understood > len(truths(name))


# --- requests ---------------------------------------------------------------------------------------------


def requests(name: str) -> st.SearchStrategy[ImageRequest]:
    """Requests that fit, nearly fit, or make no sense."""
    models = CODECS[name].capabilities.models.value
    aspects = sorted({aspect for model in models for aspect in model.aspects})
    reference = st.sampled_from(
        [
            "https://r.example/a.png",
            "http://r.example/ä b.png",
            "file:" + "ab" * 32 + ":12345:image/png:/p/a.png",
            "file:" + "ab" * 32 + ":999999999999:image/png:/p/a.png",
            "file:" + "ab" * 32 + ":12345:image/x-icon:/p/a.ico",
            "data:image/png;base64,iVBORw0KGgo=",
            "not a url",
            "",
        ]
    )
    return st.builds(
        ImageRequest,
        prompt=st.text(min_size=1, max_size=30) | st.sampled_from(["a red kettle", "", " ", "\ud800", "x" * 40_000]),
        model=st.sampled_from([known for model in models for known in (model.name, model.provider_id)]) | st.text(),
        aspect=st.sampled_from([*aspects, "auto", "1:1", "0:0", ""]),
        resolution=st.sampled_from(["0.5K", "1K", "2K", "4K", "8K", ""]),
        references=st.lists(reference, max_size=3).map(tuple)
        | st.lists(reference, min_size=12, max_size=20).map(tuple),
        output_format=st.sampled_from(["", "jpg", "png", "gif"]),
        seed=st.none() | st.integers(-1, 2**32),
        model_version=st.sampled_from(["", "", "ab" * 32, "latest"]),
        grounding=st.booleans(),
    )


@EVERYONE
@given(data=st.data())
@settings(max_examples=60)
def test_every_request_has_a_problem_in_words_or_can_be_built(name: str, data: st.DataObject) -> None:
    codec, request = CODECS[name], data.draw(requests(name))
    problem = codec.problem(request)
    assert codec.problem(msgspec.structs.replace(request)) == problem
    if problem is not None:
        assert len(problem) > 3
        return
    assert codec.lane(request)
    sent = msgspec.structs.replace(
        request, references=tuple(resolved(codec, reference) for reference in request.references)
    )
    once, again = list(calls(codec, sent, CTX)), list(calls(codec, msgspec.structs.replace(sent), CTX))
    assert once == again
    assert [call.body for call in once] == [call.body for call in again]


@EVERYONE
def test_some_requests_of_every_model_fit(name: str) -> None:
    """Else the law above would build nothing."""
    codec = CODECS[name]
    for model in codec.capabilities.models.value:
        for resolution in model.resolutions:
            for aspect in model.aspects:
                problem = codec.problem(a_request(model, resolution, aspect))
                assert problem is None or aspect == "auto", problem


@EVERYONE
def test_the_key_stands_in_a_header_and_nowhere_else(name: str) -> None:
    codec = CODECS[name]
    for call in calls(codec, a_request(codec.capabilities.models.value[0]), CTX):
        assert SECRET not in call.url
        assert SECRET.encode() not in call.body
        assert SECRET not in repr(call)
        assert any(SECRET in value for value in call.headers.values()) or "upload" in call.url, call
        assert re.match(r"https://[^/?#@]+/", call.url), "the provider's own address, over TLS"


@EVERYONE
def test_every_call_goes_to_the_base_url_it_was_given(name: str) -> None:
    """An override may carry a path prefix; nothing may escape it."""
    codec = CODECS[name]
    ctx = msgspec.structs.replace(CTX, base_url="http://127.0.0.1:9/gateway")
    for call in calls(codec, a_request(codec.capabilities.models.value[0]), ctx):
        assert call.url.startswith("http://127.0.0.1:9/gateway/")


@EVERYONE
def test_only_the_purchase_is_one(name: str) -> None:
    """Of all that a codec asks, one call can cost money, and the emulator knows which."""
    world = World(name)
    made = list(calls(world.codec, a_request(world.codec.capabilities.models.value[0]), world.ctx))
    assert sum(world.solo.emulator.is_submit(world.solo.seen(call)) for call in made) == 1


# --- records, prices, emulators -----------------------------------------------------------------------------


@EVERYONE
def test_the_record_is_the_registrys_and_its_facts_have_origins(name: str) -> None:
    caps = CODECS[name].capabilities
    assert caps.provider == name
    assert all(fact.source and re.fullmatch(r"20\d\d-\d\d-\d\d", fact.date) for fact in caps.facts.values())
    assert len({model.name for model in caps.models.value}) == len(caps.models.value)
    assert (caps.cancel is not None) == isinstance(CODECS[name], Cancels) or isinstance(CODECS[name], BatchFiles)
    assert caps.best_for


@EVERYONE
def test_a_model_has_a_price_or_the_plan_refuses_it(name: str) -> None:
    codec = CODECS[name]
    book = registry.price_book()
    account = Account(name, name, codec, Secret("x"))
    for model in codec.capabilities.models.value:
        for resolution in model.resolutions:
            made = plan([Group(model.name, "1:1", resolution, False, (name,), 3)], [account], book)
            price = book.quote(name, model.name, resolution, references=False)
            if price is None:
                assert any("no price" in reason for each in made.uncovered for reason in each.reasons)
            else:
                assert not made.uncovered
                assert made.expected_microusd == 3 * price.microusd


@EVERYONE
def test_the_emulator_calls_back_where_the_codec_can_be_called(name: str) -> None:
    assert isinstance(World(name).solo.emulator, CallsBack) == isinstance(CODECS[name], Callbacks)


def offered() -> list[tuple[str, str, str]]:
    return [
        (name, model.name, resolution)
        for name, codec in CODECS.items()
        for model in codec.capabilities.models.value
        for resolution in model.resolutions
    ]


@pytest.mark.parametrize(("name", "model", "resolution"), offered())
def test_every_image_on_offer_can_be_bought_and_is_the_one_asked_for(name: str, model: str, resolution: str) -> None:
    world = World(name)
    known = world.codec.capabilities.model(model)
    assert known is not None
    bought_as_asked(world, a_request(known, resolution))


@pytest.mark.slow
@EVERYONE
def test_every_aspect_can_be_bought_and_is_the_one_asked_for(name: str) -> None:
    for model in CODECS[name].capabilities.models.value:
        for aspect in model.aspects:
            if aspect != "auto":
                bought_as_asked(World(name), a_request(model, aspect=aspect))


def bought_as_asked(world: World, request: ImageRequest) -> None:
    image = world.buy(request)
    assert read_digest(image) == request_digest(request.prompt, (), request.aspect, request.resolution)
    with Image.open(io.BytesIO(image)) as opened:
        width, height = opened.size
    wide, _, high = request.aspect.partition(":")
    assert width / height == pytest.approx(int(wide) / int(high), rel=0.05)
    (_, job), *others = world.jobs.since(0, 10)
    assert not others
    assert world.solo.emulator.charged(job, world.solo.now_us) > 0


@EVERYONE
def test_as_many_references_as_the_record_says_are_taken(name: str) -> None:
    codec = CODECS[name]
    form = (
        "https://r.example/{}.png"
        if codec.capabilities.references.value.urls
        else f"file:{'ab' * 32}:9:image/png:/{{}}"
    )
    for model in codec.capabilities.models.value:
        given = tuple(form.format(n) for n in range(model.max_references + 1))
        most = msgspec.structs.replace(a_request(model), references=given[:-1])
        assert codec.problem(most) is None
        assert codec.problem(msgspec.structs.replace(most, references=given)) is not None
        sent = msgspec.structs.replace(most, references=tuple(resolved(codec, each) for each in most.references))
        assert World(name).buy(sent)


REFUSALS = {"wrong": {"unauthorized"}, "broke": {"no_credit"}, "locked": {"forbidden", "unavailable"}}
STANDINGS = {"": {"ok"}, "wrong": {"rejected"}, "broke": {"no_credit", "ok"}, "locked": {"ok"}}


@pytest.mark.parametrize("word", REFUSALS)
@EVERYONE
def test_a_key_that_cannot_buy_is_told_apart_and_buys_nothing(name: str, word: str) -> None:
    world = World(name, f"{KEY}-{word}")
    codec, request = world.codec, a_request(world.codec.capabilities.models.value[0])
    if isinstance(codec, BatchFiles):
        call = codec.build_create(codec.lane(request), "files/x", "batch-1", world.ctx)
    else:
        call = codec.build_submit(request, world.ctx)
    outcome = codec.read_submit(world.send(call))
    assert isinstance(outcome, Refused), outcome
    assert outcome.reason in REFUSALS[word]
    assert world.jobs.count() == 0


@pytest.mark.parametrize("word", STANDINGS)
@EVERYONE
def test_the_check_tells_what_a_free_call_can_tell(name: str, word: str) -> None:
    world = World(name, f"{KEY}-{word}")
    standing = world.codec.read_check(world.send(world.codec.build_check(world.ctx)))
    assert standing.state in STANDINGS[word]
    assert standing.models in (None, ()) if word == "locked" else True
    assert standing.balance is None or world.codec.capabilities.balance is not None
    assert world.jobs.count() == 0


def test_every_provider_of_the_registry_is_here() -> None:
    assert set(registry.PROVIDERS) | {"acme"} <= set(ENTRIES)
