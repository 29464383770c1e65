"""ApiPass: Kie's job API under other names and prices, made for submit-and-callback at high parallelism.

Its own documentation could not be read (the site turns away what is no browser).  What is here comes from public
clients that call the live API, each named below, and where they are silent from Kie, whose engine ApiPass resells:

- site: https://apipass.dev (one page per model; the comparison that bydawn started from names a public status page)
- images: public clients of Nano Banana 2, two in Python, one in TypeScript ("avatar generator"): base URL, every
  field of the input, states, ``resultJson`` as text and as an object, images from cdn.apipass.dev
- music: a public client in JavaScript with notes of live tests of 19 July: 401, 402, 422, ``failed``, no balance
- receiver: a public pair of functions for ``callBackUrl`` (Sonari): the shapes of a callback, own query parameters
- kie: https://docs.kie.ai, by way of ``adapters/kie.py``

What matters here:

- Parameters stand inside ``input``; outside they give 422, and unknown ones inside are silently ignored: whatever
  a request asks for is checked on our side first.  One client sends its references as ``images`` and its sizes in
  lower case, to these models and others with one form; Kie's names are taken, which another client sends.
- Nothing signs a callback.  Its URL carries a token of ours, and what it says is only believed after a poll.
- There is no listing, no lookup, no cancel and no balance.  A lost answer to a creation is cleared up by a callback
  or not at all, so everything that is not a known refusal is ``Unclear``.
- The status page has no known endpoint.  What it would tell is asked of the API itself before a run: the check is a
  query for a task that cannot exist, which fails while the API is in maintenance or the key is not accepted.
"""

from collections.abc import Mapping, Sequence

from adapters.base import (
    Context,
    HttpCall,
    HttpReply,
    ImageRequest,
    PollOutcome,
    RefusedReason,
    Secret,
    Standing,
    SubmitOutcome,
)
from adapters.capabilities import Capabilities, Known, Model, Rate, References
from adapters.fitting import misfit, model_of
from adapters.jobapi import (
    build_creation,
    build_task_query,
    called_back,
    names_no_model,
    opened,
    read_creation,
    read_task,
)
from adapters.wording import lacks_credit

_IMAGES = "public clients of Nano Banana 2 over ApiPass, in Python and TypeScript"
_MUSIC = "a public music client of ApiPass, with notes of live tests of 19 July"
_RECEIVER = "a public receiver of ApiPass callbacks (Sonari)"
_KIE = "as Kie, whose engine it resells: https://docs.kie.ai"
_ARTICLE = "the comparison of Nano Banana batch providers that bydawn started from"
_READ = "2026-11-22"

_RESULT_LIFE_S = 86_400.0
_NO_SUCH_TASK = "bydawn-check"
_ASPECTS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9", "auto")

CAPABILITIES = Capabilities(
    provider="apipass",
    title="ApiPass",
    key_env="APIPASS_API_KEY",
    base_url="https://api.apipass.dev",
    shape=Known("async", _IMAGES, _READ, "reported"),
    # The ids of the two newer ones and the fields of a request without references are reported; the rest is Kie's.
    models=Known(
        (
            Model(
                "nano-banana",
                "google/nano-banana",
                max_references=0,  # at Kie another model takes them, and nobody has seen its name here
                aspects=_ASPECTS[:-1],
                resolutions=("1K",),
                max_prompt_chars=5_000,
            ),
            Model(
                "nano-banana-2",
                "google/nano-banana-2",
                max_references=14,
                aspects=(*_ASPECTS, "1:4", "1:8", "4:1", "8:1"),
                resolutions=("1K", "2K", "4K"),
                max_prompt_chars=20_000,
                grounding=True,
            ),
            Model(
                "nano-banana-pro",
                "google/nano-banana-pro",
                max_references=8,
                aspects=_ASPECTS,
                resolutions=("1K", "2K", "4K"),
                max_prompt_chars=10_000,
            ),
        ),
        _IMAGES,
        _READ,
        "assumed",
    ),
    # "Thousands in seconds" is said, nothing is documented: Kie's limit, since it may stand behind it.
    submit_rate=Known(Rate(20, 10.0), _KIE, _READ, "assumed"),
    poll_rate=Known(Rate(10, 1.0), _KIE, _READ, "assumed"),
    polls_share_submit_rate=Known(False, _KIE, _READ, "assumed"),
    concurrency=Known(60, "what 20 creates per 10 s can fill at 30 s an image", _READ, "assumed"),
    max_concurrency=Known(1_000, _ARTICLE, _READ, "assumed"),
    submit_timeout_s=Known(60.0, _MUSIC, _READ, "assumed"),
    typical_latency_s=Known(30.0, _IMAGES, _READ, "reported"),  # "typically 15-45 seconds"
    visible_after_s=Known(90.0, _KIE, _READ, "assumed"),
    result_life_s=Known(_RESULT_LIFE_S, _KIE, _READ, "assumed"),
    # cdn.apipass.dev is reported of images, kie.ai of music; Kie's own for what is passed on unchanged.
    result_hosts=Known((".apipass.dev", ".kie.ai", ".aiquickdraw.com"), _IMAGES, _READ, "reported"),
    charged_on=Known("success", _KIE, _READ, "assumed"),
    references=Known(References(), _KIE, _READ, "assumed"),
    no_job_answers=Known(
        (
            "code 401: key missing or wrong",
            "code 402, or 400 or 403 in words about missing credit, balance or quota: not enough credit",
            "code 422: the request did not pass validation, or there is no such model",
            "code 429: too fast",
            "code 455: maintenance",
            "code 505: the feature is disabled",
            'HTTP 403 with "error code: 1010": turned away by the network in front of ApiPass',
        ),
        # 401, 402 and 422 are reported, and so are the words; the others are Kie's.
        _MUSIC,
        _READ,
        "assumed",
    ),
    callback=Known("unsigned", _RECEIVER, _READ, "reported"),
    best_for="large pipelines by callback",
)

_REFUSALS: dict[int, RefusedReason] = {
    401: "unauthorized",
    402: "no_credit",
    422: "invalid",
    455: "unavailable",
    505: "forbidden",  # the feature, or the model, is not enabled: asking again would be told the same
}


class ApiPass:
    """The codec; it has no state."""

    capabilities = CAPABILITIES

    def problem(self, request: ImageRequest) -> str | None:
        return misfit(CAPABILITIES, request)

    def lane(self, request: ImageRequest) -> str:
        """One lane: no limit is known that would be per model."""
        return "default"

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        if (problem := self.problem(request)) is not None:
            raise ValueError(problem)
        model = model_of(CAPABILITIES, request)
        return build_creation(model.provider_id, _wire_input(model, request), ctx, base_url=CAPABILITIES.base_url)

    def read_submit(self, reply: HttpReply) -> SubmitOutcome:
        return read_creation(reply, _refusal, title="ApiPass")

    def build_poll(self, job: str, ctx: Context) -> HttpCall:
        return build_task_query(job, ctx, base_url=CAPABILITIES.base_url)

    def read_poll(self, reply: HttpReply) -> PollOutcome:
        """Read a task.  ``creditsConsumed`` is left alone: the credits of the engine behind are not our dollars."""
        return read_task(reply, life_s=_RESULT_LIFE_S, failed_codes=(501,))

    def build_check(self, ctx: Context) -> HttpCall:
        return build_task_query(_NO_SUCH_TASK, ctx, base_url=CAPABILITIES.base_url)

    def read_check(self, reply: HttpReply) -> Standing:
        """Read the answer about a task that does not exist: to say so, the API has looked at the key (assumed)."""
        code, envelope = opened(reply)
        text = envelope.text if envelope is not None else ""
        reason = _refusal(code, text)
        if reason == "unauthorized":
            return Standing("rejected", text or "the key was refused")
        if reason == "no_credit":
            return Standing("no_credit", text or "no credit left")
        if envelope is not None and envelope.code in (200, 404, 422):  # not the 404 of a page that is no API
            return Standing("ok", "the key is accepted; ApiPass tells no balance")
        if reason == "unavailable":
            return Standing("unreadable", f"the API says: {text or code}")
        return Standing("unreadable", f"HTTP {reply.status}, code {code}")

    def verify_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: Sequence[Secret], now_s: float
    ) -> bool:
        """Let every callback pass: there is no signature to check, only the token in the URL that it came to."""
        return True

    def read_callback(self, body: bytes) -> str:
        return called_back(body)


APIPASS = ApiPass()


def _refusal(code: int, text: str) -> RefusedReason | None:
    if code in (400, 403) and lacks_credit(text):
        return "no_credit"
    if code == 422 and names_no_model(text):
        return "forbidden"
    return _REFUSALS.get(code)


def _wire_input(model: Model, request: ImageRequest) -> dict[str, object]:
    image_format = request.output_format or model.default_format
    if model.name == "nano-banana":
        image_format = "jpeg" if image_format == "jpg" else image_format
        return {"prompt": request.prompt, "aspect_ratio": request.aspect, "output_format": image_format}
    fields: dict[str, object] = {
        "prompt": request.prompt,
        "image_input": request.references,
        "aspect_ratio": request.aspect,
        "resolution": request.resolution,
        "output_format": image_format,
    }
    if model.grounding:
        fields |= {"google_search": request.grounding, "image_search": False}
    return fields
