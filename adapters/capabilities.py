"""The capability record: what a provider can do, each fact with its source, date and how sure it is.

The record is data, not prose: the planner refuses what it does not name, recovery believes only the evidence
it names, and ``bydawn providers`` prints it.  A missing fact means the worst case.
"""

from typing import Generic, Literal, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")

Mark: TypeAlias = Literal["confirmed", "reported", "assumed"]


class Known(msgspec.Struct, Generic[T], frozen=True):
    """A fact with its origin.  ``source`` is a URL or the key of one at the head of the codec file; ``date`` is
    the day it was read, ISO."""

    value: T
    source: str
    date: str
    mark: Mark


class Rate(msgspec.Struct, frozen=True):
    """At most ``count`` calls per ``per_s`` seconds."""

    count: int
    per_s: float


class Listing(msgspec.Struct, frozen=True):
    """How a complete listing of jobs can prove presence and absence.

    ``shows_input_s``: for how long after creation an item still shows its input.  ``lag_s``: how late a job may
    appear.  ``keeps_s``: how far back the listing reaches.
    """

    lag_s: float
    shows_input_s: float
    keeps_s: float
    page_size: int


class Model(msgspec.Struct, frozen=True):
    """One model at one provider, by bydawn's name."""

    name: str
    provider_id: str
    max_references: int
    aspects: tuple[str, ...]
    resolutions: tuple[str, ...]
    max_prompt_chars: int = 0  # 0 = not documented
    formats: tuple[str, ...] = ("jpg", "png")
    default_format: str = "jpg"
    seed: bool = False
    grounding: bool = False


class Capabilities(msgspec.Struct, frozen=True):
    """What runtime and planner know of a provider."""

    provider: str  # "kie"
    title: str  # "Kie"
    key_env: str  # "KIE_API_KEY"
    base_url: str  # "https://api.kie.ai"
    shape: Known[Literal["async", "sync", "batch-file"]]
    models: Known[tuple[Model, ...]]
    submit_rate: Known[Rate]
    poll_rate: Known[Rate]
    polls_share_submit_rate: Known[bool]
    concurrency: Known[int]  # jobs in flight per lane to start with; learned limits may go lower and higher
    max_concurrency: Known[int]
    submit_timeout_s: Known[float]
    typical_latency_s: Known[float]
    visible_after_s: Known[float]  # a poll that says "not found" before this proves nothing
    result_life_s: Known[float]
    result_hosts: Known[tuple[str, ...]]  # exact hosts or ".suffix"
    charged_on: Known[Literal["accept", "success", "unknown"]]
    no_job_answers: Known[tuple[str, ...]]  # the answers that prove no job and no charge, in words
    listing: Known[Listing] | None = None
    cancel: Known[bool] | None = None  # True: a cancelled job is charged
    callback: Known[Literal["signed", "id-signed", "unsigned"]] | None = None
    ingress_hold_s: float = 120.0  # how long a request may still arrive after we gave it up (assumed)
    best_for: str = ""

    def model(self, name: str) -> Model | None:
        """Find a model by bydawn's name or by the provider's own id."""
        for model in self.models.value:
            if name in (model.name, model.provider_id):
                return model
        return None

    @property
    def recovery(self) -> Literal["listing", "callback", "none"]:
        """What can tell after a crash whether a job was taken."""
        if self.listing is not None:
            return "listing"
        return "callback" if self.callback is not None else "none"
