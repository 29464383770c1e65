"""From a batch in the ledger to its night: what changed, plan, consent, and what came of it.

The order of :func:`buy_batch` guards the money.  Each step before the record only reads and asks, and may refuse: a run
that is refused changes nothing.  Nothing is bought before what was agreed is durable.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from adapters.prices import PriceBook
from bydawn import values
from bydawn.approval import approval, load, quoted_in, require_same
from bydawn.buying import Buying, Ended, buy, exit_code, spent_so_far
from bydawn.cli.formats import counted
from bydawn.consent import By, ask_leave, ask_leave_again, exceeds, given_already, refuse_uncovered
from bydawn.errors import UserError
from bydawn.importing import append_batch
from bydawn.onunknown import allowance, at_risk_of, duplicates_allowed
from bydawn.opening import Opened
from bydawn.quoting import tell_prices, with_quotes
from bydawn.remedies import clock_lines, held_lines
from bydawn.request import Request, Settings, changed_settings, now_us, supposing
from bydawn.resuming import again_words, resume_lines, resumed
from bydawn.shapes import groups_of, sample_of, shapes_of, share_of, wanted_tasks
from bydawn.summary import say_summary, summarise
from bydawn.takeover import waiting_through
from bydawn.trusting import trust_lines, trust_of
from bydawn.webhooks import Calling, calling_of
from ledger.events import BatchConfigured, BatchEvent, SpendAgreed
from ledger.folds import BatchState
from ledger.journal import Ledger
from ledger.openwork import LiveAttempt
from ledger.reader import Reader
from runtime.accounts import Account
from runtime.egress import Egress
from runtime.history import may_be_spooled, open_elsewhere
from runtime.planning import Group, Plan, too_late
from runtime.planning import plan as make_plan
from runtime.router import Terms

DEFAULT_ATTEMPTS = 3


class _Run(msgspec.Struct, frozen=True):
    """What every step is told: the batch, this call for it, and the ledger as it is on record."""

    batch: int
    request: Request
    settings: Settings
    accounts: Sequence[Account]
    egress: Egress
    reader: Reader
    talk: Callable[[str], None]

    def say(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.talk(line)


class _Asked(msgspec.Struct, frozen=True):
    """How the batch was run ``before``, and the ``state`` that this call asks for; ``change`` leads there."""

    before: BatchState
    change: BatchConfigured | None
    state: BatchState
    wanted: int
    deadline_us: int | None
    calling: Calling | None


class _Offer(msgspec.Struct, frozen=True):
    """What is left to buy and what it costs.  ``outgrown``: it may cost more, in all, than was agreed before."""

    plan: Plan
    prices: PriceBook
    outgrown: bool


class _Leave(msgspec.Struct, frozen=True):
    """The consent to record, None where what was agreed before covers the run; and for how much tasks in doubt may be
    bought again, None = never."""

    agreed: SpendAgreed | None
    duplicates_microusd: int | None


def buy_batch(
    opened: Opened,
    batch: int,
    request: Request,
    settings: Settings,
    accounts: Sequence[Account],
    egress: Egress,
    groups: Sequence[Group] | None,
    talk: Callable[[str], None],
    *,
    places: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Get consent, then run the night; returns the exit code.

    Args:
        groups: the tasks by shape, where the input was read just now.
        places: where local reference files were found now, by digest.

    Raises:
        UserError: the run is refused; the batch is as it was.
    """
    ledger = opened.ledger
    with ledger.reader() as reader:
        run = _Run(batch, request, settings, accounts, egress, reader, talk)
        asked = _asked(run, ledger.batch(batch))
        live = reader.live()
        _refuse_unreachable(run, live)
        _refuse_without_results(run, live)
        run.say(clock_lines(reader, now_us=now_us()))
        offer = _offer(run, asked, groups)
        leave = _leave(run, asked, offer)  # the last step that may refuse
        _record(ledger, batch, asked.change, leave.agreed)  # the first that changes anything
        state = ledger.batch(batch)
        buying = _buying(run, asked, offer, leave, state, places)
    ended = buy(opened, buying, talk)
    return _tell(opened, buying, state, ended, talk)


# --- what is asked for ------------------------------------------------------------------------------------


def _asked(run: _Run, before: BatchState) -> _Asked:
    """What this call changes; an option that was not given keeps its last value, a deadline as long as it is ahead."""
    given_us = run.settings.moment_us("deadline")
    change = changed_settings(before, run.request, run.settings)
    state = supposing(before, change)
    kept_us = state.settings.deadline_us or 0
    url, listen = state.settings.webhook_url or "", state.settings.webhook_listen or ""
    return _Asked(
        before=before,
        change=change,
        state=state,
        wanted=wanted_tasks(state),
        deadline_us=kept_us if given_us is None and kept_us > now_us() else given_us,
        calling=calling_of(url, listen, run.accounts, run.settings.config.env),
    )


def _refuse_unreachable(run: _Run, live: Sequence[LiveAttempt]) -> None:
    """Raise when attempts are open at accounts that this run has no key for: nobody could follow them."""
    missing = open_elsewhere(live, run.accounts)
    if missing:
        raise UserError(
            "BD-045",
            "; ".join(f"{counted(times, 'attempt')} are open at {name}" for name, times in missing.items()),
            why="this run does not use that account, so nobody would collect what was paid for there",
            fix="add it to --provider (and its key)",
            exit_code=4,
        )


def _refuse_without_results(run: _Run, live: Sequence[LiveAttempt]) -> None:
    """Raise when a folder is away in which images may lie that came inside their answers: to go on would lose them."""
    for batch, count in may_be_spooled(live, run.accounts).items():
        state = run.reader.batch(batch)
        if not Path(state.folder).is_dir():
            raise UserError(
                "BD-082",
                f"the results of {state.name} are not there; {counted(count, 'paid image')} may lie among them",
                where=state.folder,
                why="answers that held the image itself are kept in that folder until they are recorded",
                fix="mount it or put it back; if it is elsewhere now: --to FOLDER; if it is gone, make an empty one",
                exit_code=7,
            )


# --- what it costs ----------------------------------------------------------------------------------------


def _offer(run: _Run, asked: _Asked, groups: Sequence[Group] | None) -> _Offer:
    """Ask for prices, and plan what is not covered by what was agreed.  Refuses what could be bought nowhere."""
    agreed = asked.state.agreed
    # All shapes, also under --limit: which of them come first is not known here.
    priced = shapes_of(run.reader, run.batch, run.accounts) if groups is None and tell_prices(run.accounts) else groups
    quotes = with_quotes(priced or (), run.accounts, run.settings.config, run.egress)
    run.say(quotes.lines)
    then, now = asked.before.settings, asked.state.settings
    changed = (then.providers, then.attempts) != (now.providers, now.attempts) or (quotes.dearer and agreed is not None)
    if changed or (groups is None and (agreed is None or asked.wanted > agreed.images)):
        groups = groups_of(run.reader, run.batch, run.accounts)
    left = share_of(groups or (), asked.wanted)
    plan = plan_of(asked.state, left, run.accounts, quotes.book, asked.deadline_us)
    refuse_uncovered(plan)
    outgrown = changed and agreed is not None and exceeds(agreed, plan, spent_so_far(run.reader, run.batch))
    return _Offer(plan, quotes.book, outgrown)


def plan_of(
    state: BatchState, groups: Iterable[Group], accounts: Sequence[Account], prices: PriceBook, deadline_us: int | None
) -> Plan:
    """What buying ``groups`` of the batch costs and how long it takes.  ``state``: with what this call changes."""
    settings = state.settings
    made = make_plan(
        groups,
        accounts,
        prices,
        attempts=settings.attempts or DEFAULT_ATTEMPTS,
        budget_microusd=settings.budget_microusd,
        deadline_s=(deadline_us - now_us()) / 1e6 if deadline_us else None,
        max_at_risk_microusd=settings.max_at_risk_microusd,
    )
    told = trust_lines(trust_of("", state), accounts)
    return msgspec.structs.replace(made, notes=(*made.notes, *told))


# --- consent ----------------------------------------------------------------------------------------------


def _leave(run: _Run, asked: _Asked, offer: _Offer) -> _Leave:
    """The user's leave to buy: for a batch as a whole, or to go on with one.  Refuses without it."""
    before = asked.state.agreed
    if before is not None:
        return _leave_to_go_on(run, asked, offer, before)
    agreed = _leave_to_buy(run, asked, offer, None)
    return _Leave(agreed, _duplicates(run, supposing(asked.state, agreed)))


def _leave_to_go_on(run: _Run, asked: _Asked, offer: _Offer, before: SpendAgreed) -> _Leave:
    """Say first what going on means; to buy again more than a little of what may have been paid is asked by itself."""
    duplicates_microusd = _duplicates(run, asked.state)
    found = resumed(run.reader, run.batch, asked.state)
    run.say(resume_lines(found, asked.state))
    run.say(trust_lines(trust_of("", asked.state), run.accounts))
    agreed = _leave_to_buy(run, asked, offer, None if offer.outgrown else before)
    if found.asks:
        agreed = ask_leave_again(
            again_words(found),
            found.again.microusd,
            agreed or before,
            sandbox=run.request.sandbox,
            given=_given(run, asked.state),
        )
    return _Leave(agreed, duplicates_microusd)


def _leave_to_buy(run: _Run, asked: _Asked, offer: _Offer, agreed: SpendAgreed | None) -> SpendAgreed | None:
    """Hold the offer to the plan that was approved, if one was; then ask, unless ``agreed`` covers it."""
    if run.request.approved is not None:
        _require_approved(run.request, run.request.approved, asked.state, offer.plan)
    return ask_leave(
        offer.plan,
        asked.wanted,
        sandbox=run.request.sandbox,
        given=_given(run, asked.state),
        agreed=agreed,
        talk=run.talk,
    )


def _require_approved(request: Request, approved: Path, state: BatchState, plan: Plan) -> None:
    percent = float(values.whole(request.tolerance, where="--tolerance")) if request.tolerance else 2.0
    require_same(
        load(approved),
        approval(plan, state.imports[-1].input_digest if state.imports else ""),
        tolerance_percent=percent,
        where=approved,
        quoted=quoted_in(plan),
    )


def _given(run: _Run, state: BatchState) -> By | None:
    """How this call gives leave by itself.

    A budget that a rerun took over from its batch was given for that one: it stays a cap, and is no leave to buy until
    the rerun has its own.
    """
    own = not state.rerun_of or (state.agreed is not None and state.agreed.by == "budget")
    budget = state.settings.budget_microusd if own or run.settings.money("budget") is not None else None
    return given_already(yes=run.request.yes, budget_microusd=budget, approved=run.request.approved is not None)


def _duplicates(run: _Run, state: BatchState) -> int | None:
    """For how much tasks in doubt may be bought again; asks where the batch is to ask."""
    given = run.settings.money("max_duplicate_usd")
    return duplicates_allowed(state, run.reader, run.batch, run.talk, given=given)


# --- the record, the night, and what came of it -----------------------------------------------------------


def _record(ledger: Ledger, batch: int, *events: BatchEvent | None) -> None:
    """Make durable, all at once, how the batch is run now and what was agreed."""
    new = [event for event in events if event is not None]
    if new:
        append_batch(ledger, batch, *new)


def _buying(
    run: _Run, asked: _Asked, offer: _Offer, leave: _Leave, state: BatchState, places: Mapping[str, str]
) -> Buying:
    """What the night is to do, by what is on record now."""
    if asked.calling is not None:
        run.say(asked.calling.lines(run.accounts))
    deadline_s = (asked.deadline_us - now_us()) / 1e6 if asked.deadline_us else None
    late = frozenset(account.name for account in run.accounts if too_late(account, deadline_s) is not None)
    return Buying(
        batch=run.batch,
        terms=_terms(run, state, leave),
        follow=tuple(run.accounts),
        buy_from=frozenset(account.name for account in run.accounts) - late,
        late=late,
        prices=offer.prices,
        egress=run.egress,
        max_attempts=state.settings.attempts or DEFAULT_ATTEMPTS,
        deadline_s=deadline_s,
        wanted=asked.wanted,
        quiet=run.request.quiet,
        as_json=run.request.as_json,
        calling=asked.calling,
        places=places,
    )


def _terms(run: _Run, state: BatchState, leave: _Leave) -> Terms:
    settings = state.settings
    return Terms(
        batch=run.batch,
        tasks=state.sealed_through,
        budget_microusd=settings.budget_microusd,
        max_at_risk_microusd=at_risk_of(state),
        limit=settings.limit or 0,
        sample=sample_of(settings, state.sealed_through),
        max_duplicate_microusd=leave.duplicates_microusd,
        leaves_microusd=None if settings.on_unknown == "ask" else allowance(state),
        waiting_through=waiting_through(run.reader, run.batch),
    )


def _tell(opened: Opened, buying: Buying, state: BatchState, ended: Ended, talk: Callable[[str], None]) -> int:
    """Sum the run up, for people or for scripts; returns the exit code."""
    with opened.ledger.reader() as reader:
        summary = summarise(reader, buying.batch, ended)
        if buying.as_json:
            sys.stdout.write(json.dumps({"type": "summary", **summary.data()}) + "\n")
        else:
            say_summary(summary, ended, state, talk, helps=held_lines(reader, buying.batch))
    return exit_code(ended, failed=summary.failed, held=summary.held)
