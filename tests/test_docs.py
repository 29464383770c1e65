"""The documentation names everything that exists, and nothing that does not.

Every command, event tag, provider and error code must appear in its reference page; every relative link must lead
somewhere; every symbol that the design tour points at must be there.
"""

import importlib
import re
from decimal import Decimal
from pathlib import Path
from typing import get_args

import click
import pytest

from adapters.capabilities import Known
from adapters.prices import DEFAULT_BOOK
from adapters.registry import PROVIDERS, codec
from bydawn.cli.table import GROUPS, entries
from bydawn.explain import EXPLANATIONS
from ledger.events import AccountEvent, AttemptIntended, BatchEvent, Fact, RuntimeEvent, TaskEvent
from ledger.folds import AttemptPhase
from ledger.rules import LEGAL
from runtime import faults
from scripts import invariants

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]
EVENTS: tuple[type[Fact], ...] = tuple(
    event for union in (RuntimeEvent, AccountEvent, BatchEvent, TaskEvent) for event in get_args(union)
)

# `ledger/folds.py::evolve_task`, or `ledger/folds.py::TaskState.current`
SYMBOL = re.compile(r"`((?:ledger|adapters|runtime|bydawn)/[\w/]+\.py)::([\w.]+)`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def reference(name: str) -> str:
    return (DOCS / "reference" / name).read_text("utf-8")


def command(name: str) -> click.Command:
    module, _, attribute = entries()[name][1].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, click.Command)
    return found


@pytest.mark.parametrize("name", entries())
def test_the_table_agrees_with_the_command(name: str) -> None:
    found = command(name)
    assert found.name == name
    assert found.get_short_help_str(200).rstrip(".") == entries()[name][3]


@pytest.mark.parametrize("name", entries())
def test_every_command_and_option_is_in_the_reference(name: str) -> None:
    page = reference("commands.md")
    section = re.search(rf"^### `bydawn {re.escape(name)}\b.*?(?=^##|\Z)", page, re.DOTALL | re.MULTILINE)
    assert section, f"docs/reference/commands.md has no section for {name}"
    # `run` takes all that `plan` takes, which stand there once.
    told = section[0] + (plan_section(page) if name == "run" else "")
    for option in options(command(name)):
        assert re.search(rf"`{re.escape(option)}[` \[]", told), f"{name} {option} is not described"


def plan_section(page: str) -> str:
    return page.partition("### `bydawn plan")[2].partition("\n### ")[0]


def options(found: click.Command) -> set[str]:
    """Every way an option of the command, or of its sub-commands, can be spelt."""
    spelt = {
        name
        for parameter in found.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    children = found.commands.values() if isinstance(found, click.Group) else ()
    return spelt.union(*(options(child) for child in children))


def test_every_group_is_in_the_reference() -> None:
    page = reference("commands.md")
    assert [title for title, _ in GROUPS] == re.findall(r"^## (?!Exit|What|Every)(.+)$", page, re.MULTILINE)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.TYPE)
def test_every_event_is_in_the_reference(event: type[Fact]) -> None:
    assert f"| `{event.TYPE}` |" in reference("events.md")


def test_the_reference_names_no_event_that_does_not_exist() -> None:
    named = set(re.findall(r"^\| `(\w+\.\w+\.v\d+)` \|", reference("events.md"), re.MULTILINE))
    assert named == {event.TYPE for event in EVENTS}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_is_described(provider: str) -> None:
    assert f"`{provider}`" in reference("commands.md")


def test_every_code_that_the_program_raises_is_explained() -> None:
    raised = {
        code
        for package in ("ledger", "adapters", "runtime", "bydawn")
        for path in (ROOT / package).rglob("*.py")
        for code in re.findall(r"\bBD-\d{3}\b", path.read_text("utf-8"))
    }
    assert raised <= set(EXPLANATIONS)


def test_the_reference_of_errors_says_what_explain_says() -> None:
    lines = re.findall(
        r"^\| `(BD-\d{3})` \| (\d+) \| (.+?) \| (.+?) \| (.+?) \|$", reference("errors.md"), re.MULTILINE
    )
    told = {code: (what, why, fix, int(exit_code)) for code, exit_code, what, why, fix in lines}
    assert told == {code: tuple(entry) for code, entry in EXPLANATIONS.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        goal = (page.parent / place).resolve() if place else page
        assert goal.exists(), f"{page.name}: {link}"
        if anchor and goal.suffix == ".md":
            assert anchor in anchors(goal.read_text("utf-8")), f"{page.name}: {link}"


def anchors(markdown: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_symbols_exist(page: Path) -> None:
    for path, symbol in SYMBOL.findall(page.read_text("utf-8")):
        assert (ROOT / path).is_file(), f"{page.name}: {path}"
        found: object = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        for part in symbol.split("."):
            assert hasattr(found, part), f"{page.name}: {path}::{symbol}"
            found = getattr(found, part)


PAGES_WITH_COMMANDS = [ROOT / "README.md", DOCS / "tutorial.md", *sorted((DOCS / "how-to").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=lambda page: page.name)
def test_printed_commands_exist_with_their_options(page: Path) -> None:
    """Every line of a code block that calls bydawn names a command and options that there are."""
    for line in re.findall(r"^ {4,}.*\bbydawn (.+)$", page.read_text("utf-8"), re.MULTILINE):
        name = re.match(r"[a-z]+", line)
        if name is None or name[0] not in entries():  # `bydawn-sandbox.db: all agrees ...`: no command
            continue
        for option in re.findall(r" (--[a-z-]+)", line.partition(" | ")[0].partition("   # ")[0]):
            assert option in options(command(name[0])), f"{page.name}: bydawn {name[0]} {option}"


def test_every_page_is_in_the_index() -> None:
    listed = {
        (DOCS / link.partition("#")[0]).resolve() for link in LINK.findall((DOCS / "index.md").read_text("utf-8"))
    }
    pages = {page for page in DOCS.rglob("*.md") if page.parent.name != "changes" and page.name != "index.md"}
    assert pages <= listed


def test_the_recovery_page_names_every_fault_point_with_its_window() -> None:
    page = (DOCS / "recovery.md").read_text("utf-8")
    assert tuple(re.findall(r"^\| `(\w+)` \| W", page, re.MULTILINE)) == (*faults.POINTS, *faults.CANCEL_POINTS)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_page_tells_each_fact_as_the_record_does(provider: str) -> None:
    page = (DOCS / "providers" / f"{provider}.md").read_text("utf-8")
    record = codec(provider).capabilities
    facts = [fact for name in record.__struct_fields__ if isinstance(fact := getattr(record, name), Known)]
    told = re.findall(r"^\| .+ \| .+ \| (\w+) \| <?(.+?)>? \|$", page, re.MULTILINE)
    assert told == [(fact.mark, fact.source) for fact in facts]
    for answer in record.no_job_answers.value:
        assert f"- {answer}" in page


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_page_tells_each_price_of_the_book(provider: str) -> None:
    page = (DOCS / "providers" / f"{provider}.md").read_text("utf-8")
    told = {Decimal(figure) for figure in re.findall(r"(?<![\d.])\d+\.\d+(?![\d.]*\d)", page)}
    book = {Decimal(price.microusd) / 10**6 for key, price in DEFAULT_BOOK.prices.items() if key[0] == provider}
    assert book - told == set()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_page_on_references_tells_each_record(provider: str) -> None:
    page = (DOCS / "how-to" / "use-reference-images.md").read_text("utf-8")
    record = codec(provider).capabilities
    taken = record.references.value
    model = record.model("nano-banana-2") or record.models.value[0]
    cells = (
        "yes" if taken.urls else "no",
        {"": "no", "upload": "uploaded", "inline": "in the request"}[taken.files],
        f"{taken.max_file_bytes / 1e6:.3g} MB" if taken.files else "-",
        f"{taken.upload_life_s / 3600:g} h" if taken.upload_life_s else "-",
        str(model.max_references),
        "yes" if "auto" in model.aspects else "no",
    )
    assert f"| `{provider}` | {' | '.join(cells)} |\n" in page


def test_the_design_tour_points_at_symbols() -> None:
    assert len(SYMBOL.findall((DOCS / "design.md").read_text("utf-8"))) >= 10


def test_the_lifecycle_page_tells_the_transition_table() -> None:
    page = (DOCS / "lifecycle.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (-|(?:`\w+` ?)+) \| `(\w+)` \|$", page, re.MULTILINE)
    told = {event: set(re.findall(r"\w+", phases)) for event, phases, _ in rows}
    legal = {event.__name__: set(phases) for event, phases in LEGAL.items()}
    assert told == legal | {AttemptIntended.__name__: set()}
    assert {after for _, _, after in rows} <= set(get_args(AttemptPhase))


def test_every_invariant_is_on_its_page_with_the_tests_that_name_it() -> None:
    page = reference("invariants.md")
    assert tuple(invariants.told(page)) == invariants.IDS
    assert invariants.renewed(page) == page, "run scripts/invariants.py"


def test_every_invariant_has_a_test() -> None:
    told = invariants.told(reference("invariants.md"))
    assert {rule for rule, tests in told.items() if tests == invariants.NONE} == set()


def test_a_rule_is_named_by_tests_their_helpers_and_the_heads_of_files(tmp_path: Path) -> None:
    path = tmp_path / "test_some.py"
    source = (
        '"""RES-1."""',
        "def helper():",
        '    """MON-2."""',
        "def test_a():",
        "    helper()  # W3",
        "def test_b():",
        '    """MON-99 and W12: there are none."""',
    )
    path.write_text("\n".join(source))
    assert invariants.named(path) == {"RES-1": [""], "MON-2": ["test_a"], "W3": ["test_a"]}
