"""May a job that a person names be a held task's?  Asked before anything is recorded.

What is adopted by mistake is a stranger's image under the task's name, or a job that never shows up and ends as paid
and lost.  So a job is taken only after the account has shown it with its own key, as nobody's, and as far as the
provider tells, as this task's (REC-5, REC-9).
"""

import os
from collections.abc import Sequence

import msgspec
import trio

from adapters import registry
from adapters.base import Polls
from adapters.reading import is_job_id
from bydawn.controlling import Asked
from bydawn.errors import UserError
from bydawn.resolving import PATIENCE_S, HeldRow, Told, account_of, ask_providers
from bydawn.verdicts import title_of
from runtime import candidates
from runtime.accounts import Account
from runtime.candidates import state_of
from runtime.egress import Egress
from runtime.evidence import CannotLook
from runtime.wire import HttpWire


def check_adoptions(asked: Asked, held: Sequence[HeldRow], wanted: Sequence[tuple[str, str]]) -> list[HeldRow]:
    """Look at the jobs that a person names for held tasks; returns the tasks in the order of ``wanted``.

    Raises:
        UserError: one of them cannot be that task's job (BD-120), or could not be looked at (BD-121).  Then nothing
            at all is adopted.
    """
    by_id = {row.id: row for row in held}
    wrong: list[str] = []
    jobs = [job for _, job in wanted]
    for name, job in wanted:
        if name not in by_id:
            wrong.append(f"{name} is not held")
        elif jobs.count(job) > 1:
            wrong.append(f"{job} is named more than once")
    if len({name for name, _ in wanted}) < len(wanted):
        wrong.append("a task is named more than once")
    taken = asked.reader.bound(jobs)
    wrong += [f"{job} is the job of another purchase already" for job in dict.fromkeys(jobs) if job in taken]
    _refuse(wrong)
    rows = [by_id[name] for name, _ in wanted]
    told = {each.account: each for each in ask_providers(asked, rows)}
    unasked = [each for each in told.values() if each.trouble]
    if unasked:
        raise _not_looked_at(unasked)
    for row, job in zip(rows, jobs, strict=True):
        problem = _misfit(asked, told[row.account], row, job)
        if problem:
            wrong.append(f"{job} for {row.id}: {problem}")
    _refuse(wrong)
    return rows


def _misfit(asked: Asked, told: Told, row: HeldRow, job: str) -> str:
    """Why the job cannot be the task's; empty when it may be."""
    title, codec = title_of(row.provider), registry.find(row.provider)
    if any(candidate.job == job for candidate in told.candidates.get(row.n, ())):
        return ""
    if job in told.busy:
        return "it may be of a request that is under way now; ask again when the run has ended"
    if told.how in ("lookup", "batches"):
        return f"at {title} it does not carry the reference that this purchase was sent with"
    if not isinstance(codec, Polls):
        return f"{title} has no jobs that could be collected"
    if not is_job_id(job):
        return "no job has such an id"
    try:
        state = trio.run(_state, account_of(asked, row.account, row.provider), job)
    except (CannotLook, UserError) as exc:
        trouble = exc.what if isinstance(exc, UserError) else str(exc)
        raise _not_looked_at([msgspec.structs.replace(told, trouble=trouble)]) from exc
    if state == "not there":
        return f"{title} shows no such job to this key"
    if told.how == "listing" and row.n not in told.beyond:
        return f"{title} lists it with another input, or as made at another time"
    return ""


async def _state(account: Account, job: str) -> candidates.Told:
    wire = HttpWire(Egress.from_environment(os.environ))
    try:
        with trio.move_on_after(PATIENCE_S):
            return await state_of(account, job, wire.send)
        raise CannotLook(f"no answer within {PATIENCE_S:.0f} s")
    finally:
        await wire.aclose()


def _refuse(wrong: Sequence[str]) -> None:
    if wrong:
        raise UserError(
            "BD-120",
            "nothing was adopted",
            where="--adopt",
            why="; ".join(dict.fromkeys(wrong)),
            fix="bydawn resolve BATCH lists the jobs that could be it",
        )


def _not_looked_at(unasked: Sequence[Told]) -> UserError:
    return UserError(
        "BD-121",
        "nothing was adopted: a job could not be looked at",
        where="--adopt",
        why="; ".join(f"{each.account}: {each.trouble}" for each in unasked),
        fix="try again when the account can be reached with its key",
        exit_code=6,
    )
