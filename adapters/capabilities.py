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


class Lookup(msgspec.Struct, frozen=True):
    """How a job is found by our own reference: it may stay invisible for ``lag_s``."""

    lag_s: float


class BatchFile(msgspec.Struct, frozen=True):
    """What one file of requests may hold, and how many batches may be open at one time.

    ``expires_s``: a batch that has not ended by then is given up by the provider, with all its lines.
    """

    lines: int
    file_bytes: int
    batches: int
    expires_s: float


class References(msgspec.Struct, frozen=True):
    """In which forms reference images are taken.

    ``files``: local files are uploaded to the provider first, or travel inside the request; empty = not taken.
    ``max_file_bytes`` is per file; ``upload_life_s`` says how long an upload can be referred to.
    """

    urls: bool = True
    files: Literal["", "upload", "inline"] = ""
    max_file_bytes: int = 0
    media_types: tuple[str, ...] = ("image/jpeg", "image/png", "image/webp")
    upload_life_s: float = 0.0


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
    references: Known[References]
    listing: Known[Listing] | None = None
    lookup: Known[Lookup] | None = None
    cancel: Known[bool] | None = None  # True: a cancelled job is charged
    callback: Known[Literal["signed", "id-signed", "unsigned"]] | None = None
    dynamic_rate: Known[bool] | None = None  # True: the rate moves with our use; ``submit_rate`` is a start
    version_pin: Known[bool] | None = None  # True: a model version can be asked for
    balance: Known[Literal["usd", "credits", "tokens"]] | None = None  # in which unit the account's balance is told
    quote: Known[bool] | None = None  # True: a price can be asked for before the purchase
    jobs_page: Known[str] | None = None  # where a person sees the account's jobs, for providers that cannot be asked
    batch_file: Known[BatchFile] | None = None  # of providers that take requests by the file
    ingress_hold_s: float = 120.0  # how long a request may still arrive after we gave it up (assumed)
    lanes: str = "one"  # what the account's work is divided by, in words
    best_for: str = ""

    def model(self, name: str) -> Model | None:
        """Find a model by bydawn's name or by the provider's own id."""
        for model in self.models.value:
            if name in (model.name, model.provider_id):
                return model
        return None

    @property
    def recovery(self) -> Literal["lookup", "listing", "absence", "callback", "none"]:
        """What can tell after a crash whether a job was taken; ``absence``: a listing without inputs, which can only
        show that none was."""
        if self.lookup is not None:
            return "lookup"
        if self.listing is not None:
            return "listing" if self.listing.value.shows_input_s else "absence"
        return "callback" if self.callback is not None else "none"

    @property
    def facts(self) -> dict[str, Known[object]]:
        """Every fact of the record by its field's name."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: fact for name, fact in fields.items() if isinstance(fact, Known)}
