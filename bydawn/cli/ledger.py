"""``bydawn ledger``: back the ledger up while it is in use, and go on with a copy of it or in another place."""

from pathlib import Path

import click

from bydawn.cli.formats import count, counted, dollars, moment, size
from bydawn.cli.options import json_option, ledger_options
from bydawn.cli.output import json_line, line, on_terminal, talk
from bydawn.errors import UserError
from bydawn.orphans import Looked
from bydawn.selection import ledger_path
from bydawn.takeover import Standing, is_silent, look, take_over
from ledger.errors import LedgerHeld


@click.group()
def ledger() -> None:
    """Back the ledger up while it is in use; go on with a copy, or in another place."""


@ledger.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE and its key file.")
@json_option
@ledger_options
def backup(file: Path, force: bool, as_json: bool, ledger: Path | None, sandbox: bool) -> int:
    """Copy the ledger and its key file, whole and of one moment, also while a run goes on.

    Images are not in it.  Wherever the copy is put, it buys nothing before `bydawn ledger takeover`.

    \b
      bydawn ledger backup /mnt/usb/products.db
    """
    from bydawn.backup import save

    saved = save(ledger_path(ledger, sandbox=sandbox), file, force=force)
    if as_json:
        json_line("backup", file=str(saved.file), bytes=saved.octets, seq=saved.seq, head=saved.head, key=saved.has_key)
        return 0
    line(f"{saved.file}: {size(saved.octets)}, {count(saved.seq)} events, head {saved.head[:16]}…")
    if saved.has_key:
        talk("its key file lies beside it: keep both as private as the ledger itself")
    return 0


@ledger.command()
@click.option("--buy-queued", is_flag=True, help="Also buy what another copy may have bought since.")
@click.option("--yes", is_flag=True, help="Do not ask: no other copy goes on.")
@json_option
@ledger_options
def takeover(buy_queued: bool, yes: bool, as_json: bool, ledger: Path | None, sandbox: bool) -> int:
    """Go on with this ledger in this place: no other copy does.

    What was bought is collected and what is doubtful is judged, as after a crash.  Tasks that wait to be bought may
    have been bought with the other copy: jobs that Replicate, Segmind, Toapis or Google Batch show for them are
    adopted, and the others stay as they are until --buy-queued.  What the other copy bought of tasks that are settled
    here is put on record as surplus, and fetched by the next run.

    \b
      bydawn ledger takeover
      bydawn ledger takeover --buy-queued --yes
    """
    from bydawn.opening import held_error

    path = ledger_path(ledger, sandbox=sandbox)
    standing = look(path)
    if not standing.signs and not (buy_queued and standing.held_back):
        return _nothing_to_do(standing, as_json=as_json)
    for sign in standing.signs:
        talk(f"{path.name}: {sign.text}")
    for text in _consequences(standing, buy_queued=buy_queued):
        talk(text)
    _word_given("Does no other copy of this ledger go on?" if standing.signs else "Buy them here?", yes=yes)
    try:
        looked = take_over(path, standing, buy_queued=buy_queued)
    except LedgerHeld as exc:
        raise held_error(path, exc) from exc
    queued = sum(each.queued for each in standing.unsettled)
    if as_json:
        signs = [sign.sign for sign in standing.signs]
        found = {name: sum(getattr(each, name) for each in looked) for name in _FOUND}
        json_line(
            "taken_over",
            ledger=str(path),
            signs=signs,
            queued=queued,
            **found,
            buys_queued=buy_queued and not is_silent(looked),
        )
        return 0
    for each in looked:
        talk(_told(each))
    line(f"{path} goes on here")
    flag = " --sandbox" if sandbox else ""
    if is_silent(looked):
        talk("what waits stays unbought until those files have told what is in them; when they are done:")
        talk(f"  bydawn ledger takeover --buy-queued{flag}")
    names = [*(batch.name for batch in standing.unsettled), *(name for each in looked for name in each.batches)]
    for name in dict.fromkeys(names):
        talk(f"  bydawn run {name}{flag}")
    return 0


_FOUND = ("adopted", "surplus", "surplus_microusd", "strangers", "silent_files", "lost_files")


def _nothing_to_do(standing: Standing, *, as_json: bool) -> int:
    if as_json:
        nothing = dict.fromkeys(_FOUND, 0)
        json_line("taken_over", signs=[], queued=0, **nothing, buys_queued=not standing.held_back)
    else:
        line("nothing to take over: the ledger is at home here")
        if standing.held_back:
            talk("tasks wait since it was taken over; to buy them: bydawn ledger takeover --buy-queued")
    return 0


def _consequences(standing: Standing, *, buy_queued: bool) -> list[str]:
    """What taking over means for what is not settled, in dollars."""
    queued = sum(each.queued for each in standing.unsettled)
    worst = sum(each.worst_microusd for each in standing.unsettled)
    if not queued:
        return []
    what = f"{counted(queued, 'task')} wait to be bought, and may have been bought with another copy since "
    what += moment(standing.since_us)
    if buy_queued:
        return [what, f"they are bought here: at most {dollars(worst)} would then be paid twice"]
    return [what, f"they stay unbought until --buy-queued (at most {dollars(worst)}); all else goes on"]


def _told(looked: Looked) -> str:
    """What a provider's listing told about the other copy's purchases."""
    if looked.trouble:
        return f"{looked.account} could not be asked what was bought since: {looked.trouble}"
    text = f"{looked.account}: {counted(looked.adopted, 'job')} of the other copy adopted"
    if looked.surplus:
        text += (
            f"; {count(looked.surplus)} of settled tasks kept as surplus (at most {dollars(looked.surplus_microusd)})"
        )
    if looked.strangers:
        text += f"; {count(looked.strangers)} more fit no task: look at the bill"
    if looked.silent_files:
        text += f"; {counted(looked.silent_files, 'file')} of requests not done, or not readable now"
    if looked.lost_files:
        text += f"; {counted(looked.lost_files, 'file')} of requests paid, with results that are gone: look at the bill"
    return text


def _word_given(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not on_terminal():
        raise UserError("BD-114", question, why="this is not a terminal, so bydawn cannot ask", fix="--yes")
    if not click.confirm(question, err=True):
        raise UserError("BD-073", "nothing was changed", why="you said no")
