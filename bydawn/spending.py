"""From a batch in the ledger to its night: what changed, plan, consent, and what came of it.

The order guards the money: what would be refused is refused before anything is recorded, and nothing is bought before
the consent is durable.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import msgspec

from adapters.prices import PriceBook
from bydawn import importing, values
from bydawn.approval import approval, load, quoted_in, require_same
from bydawn.buying import Buying, buy, exit_code, spent_so_far
from bydawn.changed import clock_lines, held_lines
from bydawn.cli.formats import counted
from bydawn.consent import ask_leave, ask_leave_again, exceeds, given_already, refuse_uncovered
from bydawn.doubtful import allowance, at_risk_of, duplicates_allowed
from bydawn.errors import UserError
from bydawn.opening import Opened
from bydawn.quoting import tell_prices, with_quotes
from bydawn.request import Request, Settings, changed_settings, now_us, with_settings
from bydawn.resuming import Resumed, again_words, resume_lines, resumed
from bydawn.saying import say_summary
from bydawn.shapes import groups_of, sample_of, shapes_of, share_of, wanted_tasks
from bydawn.summary import summarise
from bydawn.takeover import waiting_through
from bydawn.trusting import trust_lines, trust_of
from bydawn.webhooks import Calling, calling_of
from ledger.folds import BatchState, evolve_batch
from ledger.reader import Reader
from runtime.accounts import Account
from runtime.egress import Egress
from runtime.history import open_elsewhere
from runtime.planning import Group, Plan, too_late
from runtime.planning import plan as make_plan
from runtime.router import Terms


def plan_of(
    settings: Settings,
    groups: Iterable[Group],
    accounts: Sequence[Account],
    prices: PriceBook,
    deadline_us: int | None,
    before: BatchState,
) -> Plan:
    """What it will cost and how long it will take.  ``before``: the batch as it was left, for what keeps its value."""
    made = make_plan(
        groups,
        accounts,
        prices,
        attempts=settings.whole("attempts") or 3,
        budget_microusd=settings.money("budget"),
        deadline_s=(deadline_us - now_us()) / 1e6 if deadline_us else None,
        max_at_risk_microusd=settings.money("max_at_risk"),
    )
    told = trust_lines(trust_of(settings.text("trust"), before), accounts)
    return msgspec.structs.replace(made, notes=(*made.notes, *told))


def buy_batch(
    opened: Opened,
    batch: int,
    request: Request,
    settings: Settings,
    accounts: list[Account],
    egress: Egress,
    groups: Sequence[Group] | None,
    talk: Callable[[str], None],
    *,
    places: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Consent, then the night.  ``places``: where local reference files were found now, by digest."""
    ledger = opened.ledger
    state = ledger.batch(batch)
    before = state.settings
    deadline_us = settings.moment_us("deadline")
    change = changed_settings(state, request, settings)
    state = with_settings(state, change)  # recorded with the consent: a run that is refused changes nothing
    calling = _calling(state, accounts, settings)
    last_deadline_us = state.settings.deadline_us or 0
    if deadline_us is None and last_deadline_us > now_us():
        deadline_us = last_deadline_us  # an option that was not given keeps its last value
    with ledger.reader() as reader:
        _refuse_unreachable(reader, accounts)
        for line in clock_lines(reader, now_us=now_us()):
            talk(line)
        after_takeover = waiting_through(reader, batch)
        wanted = wanted_tasks(state)
        # All shapes, also under --limit: which of them come first is not known here.
        asked = shapes_of(reader, batch, accounts) if groups is None and tell_prices(accounts) else groups
        quotes = with_quotes(asked or (), accounts, settings.config, egress)
        for line in quotes.lines:
            talk(line)
        changed = (before.providers, before.attempts) != (state.settings.providers, state.settings.attempts)
        changed = changed or (quotes.dearer and state.agreed is not None)
        if (groups is None or changed) and (state.agreed is None or changed or wanted > state.agreed.images):
            groups = groups_of(reader, batch, accounts)
        plan = plan_of(settings, share_of(groups or (), wanted), accounts, quotes.book, deadline_us, state)
        refuse_uncovered(plan)
        agreed_before = state.agreed
        going_on: Resumed | None = None
        if state.agreed is not None:
            allowed_microusd = duplicates_allowed(state, reader, batch, talk, given=settings.money("max_duplicate_usd"))
            going_on = resumed(reader, batch, state)
            for line in (
                *resume_lines(going_on, state),
                *trust_lines(trust_of("", state), accounts),
            ):
                talk(line)
        if agreed_before is not None and changed and exceeds(agreed_before, plan, spent_so_far(reader, batch)):
            agreed_before = None  # to go on like this may cost more than was agreed
        if request.approved is not None:
            now = approval(plan, state.imports[-1].input_digest if state.imports else "")
            percent = float(values.whole(request.tolerance, where="--tolerance")) if request.tolerance else 2.0
            require_same(
                load(request.approved),
                now,
                tolerance_percent=percent,
                where=request.approved,
                quoted=quoted_in(plan),
            )
        agreed = ask_leave(
            plan,
            wanted,
            sandbox=request.sandbox,
            yes=request.yes,
            budget_microusd=_consenting_budget(state, settings),
            approved=request.approved is not None,
            agreed=agreed_before,
            talk=talk,
        )
        if agreed is not None:
            state = evolve_batch(state, agreed, at_us=now_us())
        if going_on is None:
            allowed_microusd = duplicates_allowed(state, reader, batch, talk, given=settings.money("max_duplicate_usd"))
        elif going_on.asks and state.agreed is not None:
            approved = request.approved is not None
            budget = _consenting_budget(state, settings)
            given = given_already(yes=request.yes, budget_microusd=budget, approved=approved)
            agreed = ask_leave_again(
                again_words(going_on), going_on.again.microusd, state.agreed, sandbox=request.sandbox, given=given
            )
        events = [event for event in (change, agreed) if event is not None]
        if events:
            importing.append_batch(ledger, batch, *events)
        state = ledger.batch(batch)
    for line in calling.lines(accounts) if calling else ():
        talk(line)
    deadline_s = (deadline_us - now_us()) / 1e6 if deadline_us else None
    buying = Buying(
        batch=batch,
        terms=Terms(
            batch=batch,
            tasks=state.sealed_through,
            budget_microusd=state.settings.budget_microusd,
            max_at_risk_microusd=at_risk_of(state),
            limit=state.settings.limit or 0,
            sample=sample_of(state.settings, state.sealed_through),
            max_duplicate_microusd=allowed_microusd,
            leaves_microusd=None if state.settings.on_unknown == "ask" else allowance(state),
            waiting_through=after_takeover,
        ),
        follow=tuple(accounts),
        buy_from=frozenset(account.name for account in accounts if too_late(account, deadline_s) is None),
        prices=quotes.book,
        egress=egress,
        max_attempts=state.settings.attempts or 3,
        deadline_s=deadline_s,
        wanted=wanted,
        quiet=request.quiet,
        as_json=request.as_json,
        calling=calling,
        places=places,
    )
    ended = buy(opened, buying, talk)
    with ledger.reader() as reader:
        summary = summarise(reader, batch, ended)
        if request.as_json:
            sys.stdout.write(json.dumps({"type": "summary", **summary.data()}) + "\n")
        else:
            say_summary(summary, ended, state, talk, helps=held_lines(reader.held(batch)))
    return exit_code(ended, failed=summary.failed, held=summary.held)


def _consenting_budget(state: BatchState, settings: Settings) -> int | None:
    """The budget as far as it is leave to buy: one that a rerun took over from its batch was given for that one, and
    stays a cap until the rerun has its own."""
    taken_over = state.rerun_of and (state.agreed is None or state.agreed.by != "budget")
    if taken_over and settings.money("budget") is None:
        return None
    return state.settings.budget_microusd


def _calling(state: BatchState, accounts: Sequence[Account], settings: Settings) -> Calling | None:
    """How providers call back, by the settings that the batch has now."""
    given = state.settings
    return calling_of(given.webhook_url or "", given.webhook_listen or "", accounts, settings.config.env)


def _refuse_unreachable(reader: Reader, accounts: Sequence[Account]) -> None:
    """Raise when attempts are open at accounts that this run has no key for: nobody could follow them."""
    missing = open_elsewhere(reader, accounts)
    if missing:
        raise UserError(
            "BD-045",
            "; ".join(f"{counted(times, 'attempt')} are open at {name}" for name, times in missing.items()),
            why="this run does not use that account, so nobody would collect what was paid for there",
            fix="add it to --provider (and its key)",
            exit_code=4,
        )
