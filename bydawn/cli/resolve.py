"""``bydawn resolve``: held tasks, the jobs that could be theirs, and what a person decides about them."""

import shlex
from pathlib import Path

import click
import msgspec

from bydawn.adopting import check_adoptions
from bydawn.cli.controls import ask_leave
from bydawn.cli.formats import clip, clock_time, common_places, count, counted, dollar_column, dollars, moment, plain
from bydawn.cli.options import json_option, ledger_options
from bydawn.cli.output import json_line, line, strong, table, talk
from bydawn.controlling import Asked, price_of, send, task_numbers
from bydawn.errors import UserError
from bydawn.opening import operator
from bydawn.resolving import HeldRow, Told, ask_providers, chosen, held_rows
from bydawn.values import duration_s
from bydawn.verdicts import keeps_jobs, title_of
from runtime.candidates import Candidate
from runtime.inbox import ResolveTasks

MOST_TASKS = 200  # that people are shown
MOST_CANDIDATES = 100
MOST_EACH_DATA = 100
MOST_NAMED = 2000  # tasks in one message; a choice of more is told by its options

_FITS = {
    "input": "its input is the same",
    "reference": "it carries our reference",
    "callback": "it was called back about",
    "time": "made at that time; its input is not shown",
}


@click.command()
@click.argument("batch", metavar="BATCH")
@click.option("--adopt", multiple=True, metavar="TASK=JOB", help="The doubtful attempt of TASK is the job JOB.")
@click.option("--buy-again", is_flag=True, help="Buy them again: some may then be paid twice.")
@click.option("--give-up", is_flag=True, help="They fail; what may have been paid stays on the books.")
@click.option("--task", "tasks", multiple=True, metavar="ID", help="These held tasks.")
@click.option("--all", "everything", is_flag=True, help="Every held task.")
@click.option("--provider", default="", metavar="NAME", help="Only those held at this provider.")
@click.option("--older", metavar="2h", help="Only those that were sent longer ago.")
@click.option("--yes", is_flag=True, help="Do not ask, where the cost is shown first.")
@json_option
@ledger_options
def resolve(
    batch: str,
    adopt: tuple[str, ...],
    buy_again: bool,
    give_up: bool,
    tasks: tuple[str, ...],
    everything: bool,
    provider: str,
    older: str | None,
    yes: bool,
    as_json: bool,
    ledger: Path | None,
    sandbox: bool,
) -> int:
    """Decide about held tasks: nobody could tell whether the provider took their job.

    Without a decision the held tasks are listed with their dollars, and the jobs at the provider that could be theirs.

    \b
      bydawn resolve products
      bydawn resolve products --all --buy-again
      bydawn resolve products --adopt mug-17=task_9f2c
    """
    if sum((bool(adopt), buy_again, give_up)) > 1:
        raise UserError("BD-020", "give one of --adopt, --buy-again, --give-up", where="resolve")
    chooses = bool(tasks or everything or provider or older)
    with Asked(ledger, batch, sandbox=sandbox) as asked:
        held = held_rows(asked)
        numbers = task_numbers(asked, tasks)
        older_s = duration_s(older, where="--older") if older else 0.0
        rows = chosen(held, numbers=frozenset(numbers), provider=provider, older_s=older_s)
        practice = " --sandbox" if asked.sandbox else ""
        if adopt:
            message = _adoption(asked, held, adopt, chooses=chooses)
        elif buy_again or give_up:
            if not chooses:
                fix = "--all, --task ID, --provider NAME or --older 2h"
                raise UserError("BD-020", "say which held tasks", where="resolve", fix=fix)
            if not rows:
                return _nothing(as_json)
            message = ResolveTasks(
                batch=asked.batch,
                operator=operator(),
                decision="buy_again" if buy_again else "give_up",
                tasks=tuple(row.n for row in rows) if len(rows) <= MOST_NAMED else numbers,
                provider=provider,
                older_s=older_s,
                most_microusd=_leave_to_buy_again(asked, rows, yes) if buy_again else None,
            )
        else:
            told = ask_providers(asked, rows)
            if as_json:
                tell_scripts(rows, told)
            else:
                show(rows, told, f"bydawn resolve {plain(batch)}{practice}")
            return 0
        path = asked.path
    done = send(path, message)
    if as_json:
        json_line("resolved", changed=done.changed, skipped=done.skipped, waiting=done.waiting)
    else:
        skipped = f", {count(done.skipped)} were not" if done.skipped else ""
        line(f"{counted(done.changed, 'task')} decided: {message.decision.replace('_', ' ')}{skipped}")
        if message.decision != "give_up" and not done.running:
            talk(f"go on: bydawn run {plain(batch)}{practice}")
    return 0


def _adoption(asked: Asked, held: list[HeldRow], adopt: tuple[str, ...], *, chooses: bool) -> ResolveTasks:
    """Bind the jobs that a person names to their tasks, after a look at each."""
    if chooses:
        raise UserError("BD-020", "--adopt names its tasks itself", where="resolve")
    wanted = [_task_and_job(text) for text in adopt]
    found = check_adoptions(asked, held, wanted)
    return ResolveTasks(
        batch=asked.batch,
        operator=operator(),
        decision="adopt",
        tasks=tuple(row.n for row in found),
        jobs=tuple(job for _, job in wanted),
    )


def _leave_to_buy_again(asked: Asked, rows: list[HeldRow], yes: bool) -> int:
    """Ask, with what it costs; returns how much may be paid twice."""
    worst = sum(row.at_risk_microusd for row in rows)
    _, cost = price_of(asked, [row.n for row in rows], ("held",))
    ask_leave(
        f"Buy {counted(len(rows), 'image')} again for about {dollars(cost)}? "
        f"At most {dollars(worst)} would then be paid twice.",
        yes or asked.sandbox,
    )
    return worst


def _task_and_job(text: str) -> tuple[str, str]:
    name, _, job = text.rpartition("=")
    if not name or not job:
        raise UserError("BD-020", f"{text!r} is not TASK=JOB", where="--adopt")
    return name, job


def _nothing(as_json: bool) -> int:
    if as_json:
        json_line("resolved", changed=0, skipped=0, waiting=False)
    else:
        line("no such task is held")
    return 0


# --- for scripts ------------------------------------------------------------------------------------------


def tell_scripts(rows: list[HeldRow], told: list[Told]) -> None:
    by_account = {each.account: each for each in told}
    for each in told:
        json_line(
            "asked",
            account=each.account,
            provider=each.provider,
            how=each.how,
            trouble=each.trouble,
            key_changed=each.key_changed,
            page=each.page,
        )
    for row in rows:
        found = by_account[row.account].candidates.get(row.n, ())
        json_line(
            "held",
            **msgspec.to_builtins(row),
            candidates=[candidate_data(each) for each in found[:MOST_EACH_DATA]],
            more_candidates=max(0, len(found) - MOST_EACH_DATA),
        )


def candidate_data(candidate: Candidate) -> dict[str, object]:
    return {
        "job": candidate.job,
        "state": candidate.state,
        "fits": candidate.fits,
        "created_at_us": candidate.created_us or None,
        "model": candidate.model,
        "cost_microusd": candidate.cost_microusd,
    }


# --- for people -------------------------------------------------------------------------------------------


def show(rows: list[HeldRow], told: list[Told], command: str) -> None:
    if not rows:
        line("no task is held")
        return
    by_account = {each.account: each for each in told}
    shown = rows[:MOST_TASKS]
    table(
        ("task", "provider", "sent", "why", "at risk", "candidates"),
        [
            (row.id, row.provider, row.sent, row.reason, amount, _number(by_account[row.account], row))
            for row, amount in zip(shown, dollar_column(row.at_risk_microusd for row in shown), strict=True)
        ],
        right=("at risk", "candidates"),
    )
    if len(rows) > MOST_TASKS:
        line(f"  and {count(len(rows) - MOST_TASKS)} more: --json lists them, --task, --provider and --older choose")
    places = common_places(row.at_risk_microusd for row in shown)
    line(f"{count(len(rows))} held, {dollars(sum(row.at_risk_microusd for row in rows), places)} may have been paid")
    show_candidates(shown, by_account)
    line()
    for provider, reason, why in dict.fromkeys((row.provider, row.reason, row.why) for row in rows):
        line(f"  {reason} ({plain(provider)}): {plain(why)}")
    for each in told:
        line(f"  {plain(said_by(each, rows))}")
    line()
    line(strong("next"))
    collectable = [row for row in rows if keeps_jobs(row.provider)]
    if collectable:
        task = shlex.quote(plain(collectable[0].id))
        line(f"  {command} --adopt {task}=JOB    collect the job, when one of them is it")
    line(f"  {command} --all --buy-again    or --task ID, --provider NAME, --older 2h; some may be paid twice")
    line(f"  {command} --all --give-up    they fail; what may have been paid stays on the books")


def show_candidates(rows: list[HeldRow], by_account: dict[str, Told]) -> None:
    """Each job once, with the task that it could be for, or with how many."""
    tasks: dict[tuple[str, Candidate], list[HeldRow]] = {}
    for row in rows:
        for each in by_account[row.account].candidates.get(row.n, ()):
            tasks.setdefault((row.account, each), []).append(row)
    if not tasks:
        return
    listed = [
        (
            mine[0].id if len(mine) == 1 else f"any of {count(len(mine))}",
            clip(each.job, 60),
            _made(each, mine[0]),
            each.state,
            clip(each.model or "-", 32),
            _cost(each, mine[0]),
            _FITS[each.fits],
        )
        for (_, each), mine in sorted(tasks.items(), key=lambda entry: (len(entry[1]), entry[0][1].created_us))
    ]
    line()
    heads = ("task", "candidate", "made", "state", "model", "cost", "because")
    table(heads, listed[:MOST_CANDIDATES], right=("cost",))
    if len(listed) > MOST_CANDIDATES:
        line(f"  and {count(len(listed) - MOST_CANDIDATES)} more: --json lists them")


def _cost(candidate: Candidate, row: HeldRow) -> str:
    """What the provider says that it charged, else what such an image should cost there."""
    if candidate.cost_microusd is not None:
        return dollars(candidate.cost_microusd)
    return f"about {dollars(row.price_microusd)}" if row.price_microusd else "-"


def _number(told: Told, row: HeldRow) -> str:
    if told.trouble:
        return "?"
    found = len(told.candidates.get(row.n, ()))
    return count(found) if found or (told.how != "nothing" and row.n not in told.beyond) else "-"


def _made(candidate: Candidate, row: HeldRow) -> str:
    """When the job was made; the day only where it is another one than that of the purchase."""
    if not candidate.created_us:
        return "-"
    at = moment(candidate.created_us)
    return clock_time(candidate.created_us)[:8] if at[:10] == row.sent[:10] else at


def said_by(told: Told, rows: list[HeldRow]) -> str:
    """What was asked of an account, and what that is worth."""
    title = title_of(told.provider)
    name = title if told.account == told.provider else f"{title} ({told.account})"
    look = f"; look at {told.page}" if told.page else f"; look at the web pages of {title} for what ran at that time"
    if told.trouble:
        return f"{name} could not be asked for its jobs: {told.trouble}{look}"
    changed = ""
    if told.key_changed:
        changed = (
            "; its key is not the one of then: if the account is the same, bydawn providers confirm " + told.account
        )
    if told.how == "nothing":
        return f"{name} cannot be asked which jobs there are{look}{changed}"
    mine = [row for row in rows if row.account == told.account]
    beyond = sum(row.n in told.beyond for row in mine)
    what = {"listing": "its list of jobs", "lookup": "its lookup by our reference", "batches": "its list of batches"}
    late = f"; {counted(beyond, 'task')} are too old for it, or were sent by a wrong clock{look}" if beyond else ""
    busy = f"; {counted(len(told.busy), 'job')} of a run that is going on are left out" if told.busy else ""
    return f"{name} was asked: candidates are from {what[told.how]}{busy}{late}{changed}"
