"""Held tasks as a person decides about them: which there are, and which jobs at the providers could be theirs.

Each account is asked now, once for all of its held tasks, when there is something to ask and a key to ask with;
without, that is said and the tasks are listed all the same.
"""

import os
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec
import trio

from adapters import registry
from adapters.base import Codec
from bydawn.cli.formats import moment
from bydawn.config import load_config
from bydawn.controlling import Asked
from bydawn.errors import UserError
from bydawn.keys import chosen_accounts
from bydawn.opening import keyed_by
from bydawn.sandbox import find_or_start, practice_accounts
from bydawn.verdicts import held_because
from ledger.streams import task_stream
from runtime import candidates, inbox
from runtime.accounts import Account
from runtime.candidates import Candidate, Held, How, how_asked, search
from runtime.clock import TrioClock
from runtime.egress import Egress
from runtime.references import as_uploaded
from runtime.wire import HttpWire
from runtime.work import load_work

PATIENCE_S = 60.0


class HeldRow(msgspec.Struct, frozen=True):
    """A held task.  ``sent`` is for people; ``price_microusd`` is what its image should cost there, 0 = no price."""

    n: int
    id: str
    provider: str
    sent: str
    reason: str
    at_risk_microusd: int
    account: str
    attempt: int
    sent_at_us: int
    why: str
    price_microusd: int = 0


class Told(msgspec.Struct, frozen=True):
    """What an account told about the held tasks.  ``trouble``: why it could not be asked.

    ``key_changed``: the key of now is not the one that they were sent with.  ``page``: where a person can look.
    The rest is as in :class:`runtime.candidates.Asked`, by the numbers of the tasks.
    """

    account: str
    provider: str
    how: How
    trouble: str = ""
    key_changed: bool = False
    page: str = ""
    candidates: Mapping[int, Sequence[Candidate]] = {}
    beyond: frozenset[int] = frozenset()
    busy: frozenset[str] = frozenset()


def held_rows(asked: Asked) -> list[HeldRow]:
    """Every held task with what may have been paid for it."""
    book = load_config(Path.cwd(), os.environ).price_book()
    rows: list[HeldRow] = []
    after = 0
    while page := asked.reader.tasks(asked.batch, after=after, limit=1000, states=("held",)):
        after = page[-1].n
        for row in page:
            state = asked.reader.state(task_stream(asked.batch, row.n))
            for held in state.attempts:
                if held.doubtful:
                    references = bool(state.queued and state.queued.references)
                    price = book.quote(held.provider, row.model, row.resolution, references=references)
                    rows.append(
                        HeldRow(
                            n=row.n,
                            id=row.id,
                            provider=held.provider,
                            sent=moment(held.intended_at_us),
                            reason=held.reason,
                            at_risk_microusd=held.ceiling_microusd,
                            account=held.account,
                            attempt=held.number,
                            sent_at_us=held.intended_at_us,
                            why=held_because(held),
                            price_microusd=price.microusd if price else 0,
                        )
                    )
    return rows


def chosen(
    rows: Sequence[HeldRow], *, numbers: Collection[int] = (), provider: str = "", older_s: float = 0.0
) -> list[HeldRow]:
    """Those of the rows that the options mean; without options all."""
    oldest_us = time.time_ns() // 1000 - int(older_s * 1e6)
    return [
        row
        for row in rows
        if (not numbers or row.n in numbers)
        and (not provider or row.provider == provider)
        and (not older_s or row.sent_at_us <= oldest_us)
    ]


# --- asking the providers ---------------------------------------------------------------------------------


def ask_providers(asked: Asked, rows: Sequence[HeldRow]) -> list[Told]:
    """Ask each account once about its held tasks; what could not be asked is told, and never raised."""
    named = _named_by_callbacks(asked)
    by_account: defaultdict[str, list[HeldRow]] = defaultdict(list)
    for row in rows:
        by_account[row.account].append(row)
    told: dict[str, Told] = {}
    wanted: dict[str, Account] = {}
    for name, mine in by_account.items():
        codec = registry.find(mine[0].provider)
        plain = Told(name, mine[0].provider, how_asked(codec) if codec else "nothing", page=_page(codec))
        if codec is None or (plain.how == "nothing" and not any((row.n, row.attempt) in named for row in mine)):
            told[name] = plain
            continue
        try:
            wanted[name] = account_of(asked, name, plain.provider)
            told[name] = msgspec.structs.replace(plain, key_changed=_key_changed(asked, wanted[name]))
        except UserError as exc:
            told[name] = msgspec.structs.replace(plain, trouble=exc.what)
    if wanted:
        held = {name: [_held(asked, row, named) for row in by_account[name]] for name in wanted}
        for name, answer in trio.run(_search_all, asked, wanted, held).items():
            told[name] = msgspec.structs.replace(
                told[name],
                trouble=answer.trouble,
                candidates={key.n: found for key, found in answer.candidates.items()},
                beyond=frozenset(key.n for key in answer.beyond),
                busy=answer.busy,
            )
    return [told[name] for name in by_account]


async def _search_all(
    asked: Asked, accounts: Mapping[str, Account], held: Mapping[str, Sequence[Held]]
) -> dict[str, candidates.Asked]:
    wire = HttpWire(Egress.from_environment(os.environ))
    ledger_id = asked.reader.ledger_id()
    answers: dict[str, candidates.Asked] = {}

    async def ask(name: str, account: Account) -> None:
        sending = [each.intended_at_us for each in asked.reader.live(name) if each.phase == "intended"]
        answers[name] = candidates.Asked(how_asked(account.codec), trouble=f"no answer within {PATIENCE_S:.0f} s")
        with trio.move_on_after(PATIENCE_S):
            answers[name] = await search(
                account,
                held[name],
                query=wire.send,
                clock=TrioClock(),
                ledger_id=ledger_id,
                bound=asked.reader.bound,
                sending_since_us=min(sending, default=None),
            )

    try:
        async with trio.open_nursery() as nursery:
            for name, account in accounts.items():
                nursery.start_soon(ask, name, account)
    finally:
        await wire.aclose()
    return answers


def account_of(asked: Asked, name: str, provider: str) -> Account:
    """The account with its key.  Raises UserError where there is none, or no key for it."""
    if asked.sandbox:
        (account,) = practice_accounts(find_or_start(asked.path), (provider,))
        return account
    config = load_config(Path.cwd(), os.environ)
    # Without asking for keys: a provider's name means all its accounts, and only this one is meant.
    found = next((each for each in chosen_accounts(config, [name], need_keys=False) if each.name == name), None)
    if found is None:
        raise UserError("BD-040", f"there is no account {name!r} in the settings any more")
    if not found.key.reveal():
        raise UserError("BD-041", f"no key is set for {name} ({found.codec.capabilities.key_env})", exit_code=4)
    return found


def _held(asked: Asked, row: HeldRow, named: Mapping[tuple[int, int], Sequence[str]]) -> Held:
    work = load_work(asked.reader, asked.batch, row.n)
    return Held(work, as_uploaded(work, asked.reader.payload), tuple(named.get((row.n, row.attempt), ())))


def _named_by_callbacks(asked: Asked) -> dict[tuple[int, int], list[str]]:
    """The jobs that callbacks named and no run has looked at yet, by task and attempt."""
    named: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    for _, hint in inbox.hints(inbox.inbox_of(asked.path)):
        if hint is not None and hint.batch == asked.batch:
            named[hint.n, hint.attempt].append(hint.job)
    return named


def _page(codec: Codec | None) -> str:
    page = codec.capabilities.jobs_page if codec else None
    return page.value if page else ""


def _key_changed(asked: Asked, account: Account) -> bool:
    keyed = keyed_by(asked.path)
    known = {row.name: row.fingerprint for row in asked.reader.accounts()}
    return known.get(account.name, "") not in ("", keyed(account.identity))
