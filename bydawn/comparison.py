"""What a user chooses a provider by: its record and its prices, as the columns of a table.

Pure: records and a price book in, words out.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from adapters.capabilities import Capabilities, Known, Model, Rate, References
from adapters.prices import Price, PriceBook
from bydawn.cli.formats import count, duration, width

RESOLUTIONS = ("0.5K", "1K", "2K", "4K")


class Column(NamedTuple):
    """One fact of every provider.  ``right``: its cells end in one line."""

    head: str
    cells: tuple[str, ...]
    right: bool = False

    @property
    def width(self) -> int:
        return max(map(width, (self.head, *self.cells)))


class OwnPrice(NamedTuple):
    """What one image costs at a provider."""

    model: str
    resolution: str
    references: bool
    price: Price


def compare(found: Sequence[Capabilities], book: PriceBook, model: str, keys: frozenset[str]) -> list[Column]:
    """Lay providers side by side, the most decisive facts first; ``keys`` are those whose key is set."""

    def column(head: str, cells: Sequence[str], *, right: bool = False) -> Column:
        return Column(head, tuple(cells), right)

    return [
        column("provider", [caps.provider for caps in found]),
        column("key", ["set" if caps.provider in keys else "not set" for caps in found]),
        *(
            column(f"$ {size}", [price_cell(caps, book, model, size) for caps in found], right=True)
            for size in RESOLUTIONS
        ),
        column("refs", [references_cell(caps, model) for caps in found]),
        column("shape", [caps.shape.value.removesuffix("-file") for caps in found]),
        column("recovery", [caps.recovery for caps in found]),
        column("webhook", [caps.callback.value if caps.callback else "-" for caps in found]),
        column("pin", ["yes" if caps.version_pin and caps.version_pin.value else "-" for caps in found]),
        column("assumed", ["{} of {}".format(*assumed(caps)) for caps in found], right=True),
        column("lanes", [caps.lanes for caps in found]),
        column("creates", [per(caps.submit_rate.value) for caps in found]),
        column("at once", [at_once_cell(caps) for caps in found]),
        column("typical", [duration(caps.typical_latency_s.value) for caps in found], right=True),
        column("kept", [kept_cell(caps) for caps in found], right=True),
        column("charged on", [caps.charged_on.value for caps in found]),
        column("cancel", [cancel_cell(caps) for caps in found]),
        column("quote", ["yes" if caps.quote and caps.quote.value else "-" for caps in found]),
    ]


def fitted(columns: Sequence[Column], room: int) -> list[list[Column]]:
    """Deal the columns out to as many tables as the room asks for; the first column leads each of them."""
    lead, *rest = columns
    tables: list[list[Column]] = []
    left = 0
    for column in rest:
        if not tables or column.width + 2 > left:
            tables.append([lead])
            left = room - 2 - lead.width
        tables[-1].append(column)
        left -= column.width + 2
    return tables


# --- cells ------------------------------------------------------------------------------------------------


def price_cell(caps: Capabilities, book: PriceBook, model: str, resolution: str) -> str:
    """Dollars without references; ``?`` where an image is offered and its price not known, ``-`` where it is not."""
    offered = caps.model(model)
    if offered is None or resolution not in offered.resolutions:
        return "-"
    price = book.quote(caps.provider, offered.name, resolution, references=False)
    return "?" if price is None else f"{price.microusd / 1_000_000:g}"


def references_cell(caps: Capabilities, model: str) -> str:
    """How many images, and in which form: ``14 url+file``."""
    offered = caps.model(model)
    if offered is None or not offered.max_references:
        return "-"
    taken = caps.references.value
    forms = [*(["url"] if taken.urls else []), *(["file"] if taken.files else [])]
    return f"{offered.max_references} {'+'.join(forms)}"


def at_once_cell(caps: Capabilities) -> str:
    """To start with, and at most; ``16k..20k`` where files of requests make them many."""
    start, most = (
        f"{value // 1000}k" if value >= 10_000 else count(value)
        for value in (caps.concurrency.value, caps.max_concurrency.value)
    )
    return f"{start}..{most}"


def kept_cell(caps: Capabilities) -> str:
    """How long a result can be fetched; one that comes with the answer need not be."""
    seconds = caps.result_life_s.value
    return "-" if caps.shape.value == "sync" and not seconds else lifetime(seconds)


def cancel_cell(caps: Capabilities) -> str:
    return "-" if caps.cancel is None else "charged" if caps.cancel.value else "free"


def assumed(caps: Capabilities) -> tuple[int, int]:
    """Count the facts that are only assumed, and all."""
    facts = caps.facts.values()
    return sum(fact.mark == "assumed" for fact in facts), len(facts)


def own_prices(caps: Capabilities, book: PriceBook) -> list[OwnPrice]:
    """Every price of the book that a provider's models have."""
    return [
        OwnPrice(model.name, resolution, references, price)
        for model in caps.models.value
        for resolution in model.resolutions
        for references in (False, True)
        if (price := book.quote(caps.provider, model.name, resolution, references=references)) is not None
    ]


def prices_by_size(caps: Capabilities, book: PriceBook, model: str) -> dict[str, int]:
    """Micro-dollars per image of a model without references."""
    offered = caps.model(model)
    name = model if offered is None else offered.name
    return {
        each.resolution: each.price.microusd
        for each in own_prices(caps, book)
        if each.model == name and not each.references
    }


def per(rate: Rate) -> str:
    """``18 per 10 s``; a rate per second or minute in its usual words."""
    units = {1.0: "s", 60.0: "min", 3600.0: "h"}
    return f"{count(rate.count)} per {units.get(rate.per_s) or lifetime(rate.per_s)}"


def lifetime(seconds: float) -> str:
    """A time in the largest whole unit; none is an unknown one."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s" if seconds else "?"


# --- one provider -------------------------------------------------------------------------------------------


def facts(caps: Capabilities) -> Mapping[str, tuple[str, Known[object]]]:
    """Every fact in words; those that are tables of their own are left out."""
    return {
        name.replace("_", " "): (said(fact.value), fact)
        for name, fact in caps.facts.items()
        if name not in ("models", "no_job_answers")
    }


def said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, Rate):
        return per(value)
    if isinstance(value, References):
        return _references_said(value)
    if isinstance(value, msgspec.Struct):
        return ", ".join(f"{name.replace('_', ' ')} {said(getattr(value, name))}" for name in value.__struct_fields__)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _references_said(taken: References) -> str:
    parts = ["URLs"] if taken.urls else []
    if taken.files:
        limit = f" up to {count(taken.max_file_bytes)} bytes" if taken.max_file_bytes else ""
        kept = f", kept {lifetime(taken.upload_life_s)}" if taken.upload_life_s else ""
        way = "uploaded first" if taken.files == "upload" else "sent inside the request"
        parts.append(f"files{limit} ({', '.join(taken.media_types)}), {way}{kept}")
    return "; ".join(parts) or "none"


def model_row(model: Model, prices: Mapping[str, int]) -> tuple[str | int, ...]:
    """A line of the table of a provider's models."""
    sizes = ", ".join(
        f"{size} ${prices[size] / 1_000_000:g}" if size in prices else f"{size} ?" for size in model.resolutions
    )
    extras = [word for word, has in (("seed", model.seed), ("grounding", model.grounding)) if has]
    return (
        model.name,
        sizes,
        len(model.aspects),
        model.max_references,
        model.max_prompt_chars or "?",
        "+".join(model.formats),
        ", ".join(extras) or "-",
        model.provider_id,
    )
