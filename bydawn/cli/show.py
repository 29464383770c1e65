"""``bydawn show``: the whole dossier of one task.

Everything on record but two things: addresses of results, which are as good as the image, and keys, which are not on
record at all.
"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from adapters.references import local_file
from bydawn.cli.eventwords import tell
from bydawn.cli.formats import clip, clock_time, count, dollars, local, moment, plain, size
from bydawn.cli.options import json_option, ledger_options
from bydawn.cli.output import faint, json_line, line, pairs, state_paint, strong, table
from bydawn.moneylines import Lines, lines_data, lines_of, told_money
from bydawn.selection import find_task, open_batch, target
from bydawn.verdicts import held_because, keeps_jobs, stated_costs, title_of, verdicts
from ledger.events import PayloadRef
from ledger.folds import AttemptState, TaskState
from ledger.money import Balance, holdings
from ledger.streams import task_stream

if TYPE_CHECKING:
    from ledger.events import Recorded
    from ledger.reader import BatchRow, Reader
    from ledger.tasklist import TaskRow
    from runtime.requests import TaskRequest


class Dossier(msgspec.Struct, frozen=True):
    """All that is known of a task; ``wanted`` is None when the text was erased."""

    batch: "BatchRow"
    row: "TaskRow"
    state: TaskState
    wanted: "TaskRequest | None"
    events: list["Recorded"]


@click.command()
@click.argument("task", metavar="[BATCH/]TASK")
@json_option
@ledger_options
def show(task: str, as_json: bool, ledger: Path | None, sandbox: bool) -> None:
    """Everything on record about one task."""
    wanted = target(task)
    with open_batch(ledger, wanted.batch, sandbox=sandbox) as (reader, batch):
        dossier = gather(reader, batch, find_task(reader, batch, wanted.task))

        def text_of(ref: PayloadRef) -> str | None:
            return reader.payload(ref.row)

        if as_json:
            json_line("task", **as_data(dossier))
            for recorded in dossier.events:
                json_line("event", **event_data(recorded))
        else:
            show_head(dossier)
            show_attempts(dossier)
            show_money(dossier.state)
            show_next(dossier)
            line()
            line(strong("events") + faint(f"  (times in {local(dossier.row.at_us):%Z})"))
            show_events(dossier.events, [tell(recorded.event, text_of) for recorded in dossier.events])


def gather(reader: "Reader", batch: "BatchRow", row: "TaskRow") -> Dossier:
    from runtime.requests import decode_request

    stream = task_stream(batch.batch, row.n)
    state = reader.state(stream)
    text = reader.payload(state.queued.request.row) if state.queued is not None else None
    wanted = decode_request(text) if text is not None else None
    events: list[Recorded] = []
    while page := reader.events(stream=stream, after=len(events)):
        events += page
    return Dossier(batch, row, state, wanted, events)


# --- for scripts ------------------------------------------------------------------------------------------


def as_data(dossier: Dossier) -> dict[str, object]:
    row, state, wanted = dossier.row, dossier.state, dossier.wanted
    stated = stated_costs(dossier.events)
    return {
        "batch": dossier.batch.name,
        "id": row.id,
        "number": row.n,
        "state": row.phase,
        "reason": row.reason,
        "line": row.line,
        "shared_with": row.owner,
        "cost_microusd": row.cost_microusd,
        "erased": state.erased,
        "files_erased": state.files_erased,
        "request": msgspec.to_builtins(wanted.request) if wanted else None,
        "columns": wanted.columns if wanted else None,
        "attempts": [
            {
                **{name: value for name, value in msgspec.to_builtins(attempt).items() if name != "url"},
                "cost_stated": attempt.number in stated,
            }
            for attempt in state.attempts
        ],
        "verdicts": [msgspec.to_builtins(told) for told in verdicts(dossier.events, state.attempts)],
        **lines_data(task_lines(state)),
        "results": [
            {name: value for name, value in msgspec.to_builtins(result).items() if name != "note"}
            for result in state.results
        ],
    }


def event_data(recorded: "Recorded") -> dict[str, object]:
    """The event with its fields as they are on record; texts by reference stay references, so they are left out."""
    fields = {
        name: msgspec.to_builtins(value)
        for name in recorded.event.__struct_fields__
        if not isinstance(value := getattr(recorded.event, name), PayloadRef)
    }
    return {
        "seq": recorded.seq,
        "version": recorded.version,
        "epoch": recorded.epoch,
        "at_us": recorded.at_us,
        "event": recorded.event.TYPE,
        "fields": fields,
    }


# --- for people -------------------------------------------------------------------------------------------


def _shown_reference(reference: str) -> str:
    file = local_file(reference)
    return reference.partition("?")[0] if file is None else f"{file.path} (sha256 {file.sha256[:12]}…)"


def show_head(dossier: Dossier) -> None:
    row, wanted = dossier.row, dossier.wanted
    paint = state_paint().get(row.phase, str)
    why = f"  {row.reason}" if row.reason else ""
    line(f"{strong(plain(f'{dossier.batch.name}/{row.id}'))}  {paint(row.phase)}{why}")
    result = dossier.state.current
    entries = [("prompt", "[erased]")]
    if wanted is not None:
        request = wanted.request
        options = [request.model, request.aspect, request.resolution]
        options += [f"seed {request.seed}"] if request.seed is not None else []
        options += [f"version {request.model_version}"] if request.model_version else []
        entries = [
            ("prompt", clip(plain(request.prompt), 400)),
            ("wanted", " · ".join(options)),
            ("references", ", ".join(plain(_shown_reference(each)) for each in request.references)),
            ("columns", ", ".join(plain(f"{name}={text}") for name, text in list(wanted.columns.items())[:12])),
        ]
    entries += [
        ("input", f"row {row.line}" + (f", variant {row.variant}" if row.variant > 1 else "")),
        ("shares", f"the purchase of task #{row.owner}" if row.owner else ""),
        ("changed", moment(row.at_us)),
    ]
    if result is not None:
        entries.append(("image", f"{result.media_type} {result.width}×{result.height}, {size(result.size)}"))
        blob = f"blobs/{result.sha256[:2]}/{result.sha256}"
        entries.append(("file", "[erased]" if dossier.state.files_erased else blob))
        entries.append(("flags", ", ".join(result.flags)))
        entries.append(("review", result.verdict))
    pairs(entries)


def show_attempts(dossier: Dossier) -> None:
    """The attempts with their dollars, and below them what evidence carried each verdict."""
    attempts = dossier.state.attempts
    if not attempts:
        return
    line()
    line(strong("attempts"))
    table(
        ("#", "state", "account", "lane", "route", "sent", "ceiling", "cost", "job", "why"),
        [
            (
                attempt.number,
                attempt.phase,
                attempt.account,
                attempt.lane,
                attempt.route or "-",
                clock_time(attempt.intended_at_us)[:8],
                dollars(attempt.ceiling_microusd),
                "-" if attempt.cost_microusd is None else dollars(attempt.cost_microusd),
                clip(attempt.job or "-", 40),
                _why(attempt),
            )
            for attempt in attempts
        ],
        right=("#", "ceiling", "cost"),
        paint=state_paint(),
    )
    for told in verdicts(dossier.events, attempts):
        line(f"  #{told.attempt} {plain(told.text)}")


def _why(attempt: AttemptState) -> str:
    above_microusd = (attempt.cost_microusd or 0) - attempt.ceiling_microusd
    parts = [
        attempt.reason,
        f"overcharge of {dollars(above_microusd)}" if above_microusd > 0 else "",
        f"adopted by {attempt.adopted_by}" if attempt.adopted_by else "",
        f"decided: {attempt.decided.replace('_', ' ')}" if attempt.decided else "",
    ]
    return ", ".join(part for part in parts if part) or "-"


def task_lines(state: TaskState) -> Lines:
    """What the task has cost and still holds, by the same books that the ledger keeps."""
    held = {
        move.account: Balance(move.reserved, move.captured, move.open) for move in holdings(state, batch=0, epoch=0)
    }
    return lines_of(lambda name: held.get(name, Balance()), 0)


def show_money(state: TaskState) -> None:
    lines = task_lines(state)
    if not state.attempts:
        return
    line()
    line(strong("money"))
    pairs(told_money(lines))


def show_next(dossier: Dossier) -> None:
    """What can be done about a held task."""
    held = next((attempt for attempt in dossier.state.attempts if attempt.doubtful), None)
    if held is None or dossier.row.phase != "held":
        return
    task = shlex.quote(plain(dossier.row.id))
    command = f"bydawn resolve {plain(dossier.batch.name)}" + (" --sandbox" if dossier.batch.sandbox else "")
    collect = [("collect", f"{command} --adopt {task}=JOB    if one of them is it")]
    line()
    line(strong("next") + f"  nobody could tell whether it was bought: {plain(held_because(held))}")
    pairs(
        [
            ("look", where_to_look(held.provider, command)),
            *(collect if keeps_jobs(held.provider) else ()),
            (
                "buy again",
                f"{command} --task {task} --buy-again    at most {dollars(held.ceiling_microusd)} paid twice",
            ),
            ("give up", f"{command} --task {task} --give-up    what may have been paid stays on the books"),
        ]
    )


def where_to_look(provider: str, command: str) -> str:
    """The list of candidates; for a provider that cannot be asked for its jobs, also where a person finds them."""
    from adapters.registry import PROVIDERS, codec, entries
    from runtime.candidates import how_asked

    title = plain(title_of(provider))
    known = codec(provider) if provider in PROVIDERS or provider in entries() else None
    if known is None or how_asked(known) != "nothing":
        return f"{command}    its candidates at {title}, with time and cost"
    page = known.capabilities.jobs_page
    where = page.value if page is not None else f"the web pages of {title}"
    return f"{command}    {title} cannot be asked for its jobs: look at {where} for what ran at that time"


def show_events(events: list["Recorded"], told: list[str]) -> None:
    day = ""
    for recorded, text in zip(events, told, strict=True):
        today = f"{local(recorded.at_us):%Y-%m-%d}"
        if today != day:
            line(f"  {faint(today)}")
            day = today
        line(f"  {clock_time(recorded.at_us)}  {faint(f'{count(recorded.seq):>11}')}  {plain(text)}")
