#!/usr/bin/env python3
"""Write the two tables of a provider's page that repeat its capability record: its answers and its facts.

    scripts/provider_page.py NAME...     (docs/providers/NAME.md must exist; what people wrote in it stays)

A test holds page and record together, so this is run after each change of a record.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402

from adapters.capabilities import Capabilities, Known, Model  # noqa: E402
from adapters.registry import PROVIDERS, codec  # noqa: E402

ANSWERS = "## Answers that prove no job and no charge"
FACTS = "## The facts it relies on"

SAYS: Mapping[str, str] = {
    "shape": "interaction",
    "models": "models, aspects, sizes",
    "submit_rate": "creates",
    "poll_rate": "queries",
    "polls_share_submit_rate": "queries count as creates",
    "concurrency": "jobs at once, to start with",
    "max_concurrency": "jobs at once, at most",
    "submit_timeout_s": "an answer is given up after",
    "typical_latency_s": "typical time per image",
    "visible_after_s": '"not found" proves nothing before',
    "result_life_s": "a result is kept",
    "result_hosts": "images come from",
    "charged_on": "charged on",
    "no_job_answers": "answers that prove no job",
    "references": "reference images",
    "listing": "listing of jobs",
    "lookup": "a job is found by our reference",
    "cancel": "cancel",
    "callback": "callbacks",
    "dynamic_rate": "the rate moves with our use",
    "version_pin": "version pin",
    "balance": "balance told in",
    "quote": "price quote",
    "jobs_page": "a page that shows the jobs",
    "batch_file": "files of requests",
}


def main(names: list[str]) -> int:
    for name in names or list(PROVIDERS):
        path = ROOT / "docs" / "providers" / f"{name}.md"
        path.write_text(renewed(path.read_text("utf-8"), codec(name).capabilities), "utf-8")
    return 0


def renewed(page: str, record: Capabilities) -> str:
    """Replace the two sections, or add them at the end."""
    head = re.split(rf"^(?:{re.escape(ANSWERS)}|{re.escape(FACTS)})$", page, maxsplit=1, flags=re.MULTILINE)[0]
    answers = "\n".join(f"- {answer}" for answer in record.no_job_answers.value)
    return (
        f"{head.rstrip()}\n\n{ANSWERS}\n\n"
        "Only these let bydawn try again by itself. Every other answer that is no clear success is doubt.\n\n"
        f"{answers}\n\n{FACTS}\n\n"
        f"As `bydawn providers list {record.provider}` prints them; the sources were read on {newest(record)}. "
        "*Confirmed*: the\nprovider's own documents or code. *Reported*: somebody who uses it. *Assumed*: ours; where "
        "a document is silent, the\ncareful reading.\n\n"
        "| fact | value | how sure | source |\n|---|---|---|---|\n"
        + "".join(
            f"| {SAYS[name]} | {said(name, fact)} | {fact.mark} | {linked(fact.source)} |\n"
            for name, fact in record.facts.items()
        )
    )


def newest(record: Capabilities) -> str:
    return max(fact.date for fact in record.facts.values())


def linked(source: str) -> str:
    return f"<{source}>" if source.startswith("https://") else source


def said(name: str, fact: Known[object]) -> str:
    value = fact.value
    if name == "models":
        return ", ".join(f"`{model.name}`" for model in codec_models(value))
    if name == "no_job_answers":
        assert isinstance(value, tuple)
        return f"{len(value)}, see above"
    if name == "cancel":
        return "yes, and the job is charged" if value else "yes, and the job is not charged"
    if name == "result_hosts":
        assert isinstance(value, tuple)
        return ", ".join(f"`{host}`" for host in value) or "the answer itself"
    return plain(value, name)


def codec_models(value: object) -> tuple[Model, ...]:
    assert isinstance(value, tuple)
    return value


def plain(value: object, name: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, msgspec.Struct):
        if {"count", "per_s"} <= set(value.__struct_fields__):
            return f"{value.count:g} per {seconds(value.per_s)}"  # type: ignore[attr-defined]  # a Rate
        return ", ".join(
            f"{field.removesuffix('_s').replace('_', ' ')} {plain(getattr(value, field), field)}"
            for field in value.__struct_fields__
            if getattr(value, field) not in ("", 0, 0.0, ())
        )
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float) and name.endswith("_s"):
        return seconds(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def seconds(value: float) -> str:
    """In the largest whole unit."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if value >= size and value % size == 0:
            return f"{value / size:g} {unit}"
    return f"{value:g} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
