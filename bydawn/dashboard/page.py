"""The board as a page.

Names, ids and reasons come from input tables and from providers.  They become :data:`Html` in one place, :func:`words`,
which takes control characters out and escapes the rest (SEC-5); the type keeps a plain ``str`` from getting in
elsewhere.  No script and no style stands in the page itself, and nothing is loaded from anywhere else.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NewType

from bydawn.cli.formats import clock_time, count, counted, dollar_column, dollars, duration, moment, percent, plain
from bydawn.dashboard.board import Board
from bydawn.moneylines import told_lines
from bydawn.overview import IN_FLIGHT, AccountLine, Overview
from bydawn.runs import took_s

Html = NewType("Html", str)

_NO_SCRIPT_S = 5
_BAR = ("succeeded", "failed", "held", "cancelled", "in flight")  # what is left of the bar is queued


def page(board: Board) -> str:
    """The whole document."""
    head = (
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("noscript", Html(f'<meta http-equiv="refresh" content="{_NO_SCRIPT_S}">')),
        tag("title", words(_title(board))),
        Html('<link rel="icon" href="data:,">'),
        Html('<link rel="stylesheet" href="/dashboard.css">'),
        Html('<script src="/dashboard.js" defer></script>'),
    )
    lost = tag("p", words("No answer. bydawn serve has ended, or was started again and prints a new address."))
    body = (tag("div", lost, id="lost"), tag("main", *_main(board)))
    return f'<!DOCTYPE html>\n<html lang="en"><head>{"".join(head)}</head><body>{"".join(body)}</body></html>\n'


# --- the one place where text becomes HTML ----------------------------------------------------------------------


def words(text: str) -> Html:
    """Text from anywhere, as text."""
    return Html(escape(plain(text), quote=True))


def tag(name: str, *children: Html, **attributes: str | int) -> Html:
    """An element; ``class_`` is spelt so because Python keeps the word for itself."""
    told = "".join(f' {key.rstrip("_")}="{words(str(value))}"' for key, value in attributes.items())
    return Html(f"<{name}{told}>{''.join(children)}</{name}>")


# --- parts ------------------------------------------------------------------------------------------------------


def _title(board: Board) -> str:
    if not board.batches:
        return "bydawn"
    first = board.batches[0]
    return f"{percent(first.settled, first.tasks)} {first.name} · bydawn"


def _main(board: Board) -> Iterable[Html]:
    yield tag(
        "header",
        tag("h1", words("bydawn")),
        tag("p", _run_state(board), Html(" "), tag("span", words(str(board.path)), class_="faint")),
        tag("p", words(f"as of {clock_time(board.at_us)[:8]}"), class_="faint right"),
    )
    for view in board.batches:
        yield _batch(view, now_us=board.at_us)
    if not board.batches:
        yield tag(
            "section", tag("p", words("No batch has been started in this ledger yet: "), code("bydawn run INPUT"))
        )
    if board.more:
        yield tag("p", words(f"{count(board.more)} more open batches: "), code("bydawn status"))
    if board.accounts:
        yield _accounts(board)
    if board.runs:
        yield _runs(board)


def _run_state(board: Board) -> Html:
    run = board.run
    if run is None:
        return tag("strong", words("never run"))
    if run.state == "running":
        return tag(
            "strong", words(f"run {run.epoch} is going on since {clock_time(run.started_at_us)[:8]}"), class_="good"
        )
    if run.state == "killed":
        return tag("strong", words(f"run {run.epoch} was killed; the same command goes on"), class_="doubtful")
    why = f" ({run.stopped_by.replace('_', ' ')})" if run.stopped_by else ""
    return tag("strong", words(f"not running{why}"))


def _batch(view: Overview, *, now_us: int) -> Html:
    name = [tag("h2", words(view.name), *([tag("span", words("sandbox"), class_="mark")] if view.sandbox else []))]
    if not view.tasks:
        return tag("section", *name, tag("p", words("Its import is not complete: nothing is bought yet.")))
    parts = [*name, _bar(view), tag("p", words(_progress(view, now_us)), class_="progress"), _figures(view)]
    told = told_lines(view.lines)
    if told:
        parts.append(_table(("dollars", ""), [(label, text) for label, text in told], class_="lines"))
    named = {provider: states for provider, states in view.providers.items() if provider}
    if named:
        parts.append(_providers(named))
    parts += _advice(view)
    return tag("section", *parts)


def _progress(view: Overview, now_us: int) -> str:
    text = f"{count(view.settled)} of {count(view.tasks)} settled, {percent(view.settled, view.tasks)}"
    if view.eta_s is None:
        return text
    at = clock_time(now_us + round(view.eta_s * 1_000_000))[:5]
    return f"{text} · {view.rate_per_s:.1f}/s · about {duration(view.eta_s)} more ({at})"


def _bar(view: Overview) -> Html:
    """The tasks as a bar of a thousand parts; drawn with attributes, for styles in the page are refused."""
    shown = {**{state: view.counts.get(state, 0) for state in _BAR[:-1]}, _BAR[-1]: view.in_flight}
    rects, at = [], 0.0
    for state, n in shown.items():
        width = 1000 * n / view.tasks
        if n:
            rects.append(
                tag(
                    "rect",
                    tag("title", words(f"{state}: {count(n)}")),
                    x=f"{at:.2f}",
                    y="0",
                    width=f"{width:.2f}",
                    height="10",
                    class_=state.replace(" ", "-"),
                )
            )
        at += width
    told = ", ".join(f"{state} {count(n)}" for state, n in shown.items() if n) or "all queued"
    return tag(
        "svg", *rects, **{"viewBox": "0 0 1000 10", "preserveAspectRatio": "none", "role": "img", "aria-label": told}
    )


def _figures(view: Overview) -> Html:
    spent = dollars(view.lines.spent)
    budget = "" if view.budget_microusd is None else f"of {dollars(view.budget_microusd)}"
    risk = view.lines.at_risk.microusd
    counts = view.counts.get
    figures = [
        ("spent", spent, budget, ""),
        ("at risk", dollars(risk), "", "doubtful" if risk else ""),
        ("succeeded", count(counts("succeeded", 0)), "", "good"),
        ("in flight", count(view.in_flight), "", ""),
        ("queued", count(counts("queued", 0)), "", ""),
        ("held", count(counts("held", 0)), "", "doubtful" if counts("held") else ""),
        ("failed", count(counts("failed", 0)), "", "bad" if counts("failed") else ""),
    ]
    figures += [(name, count(n), "", "") for name, n in sorted(view.tallies.items())]
    return tag("dl", *(_figure(*figure) for figure in figures))


def _figure(label: str, value: str, beside: str, kind: str) -> Html:
    more = [tag("small", words(beside))] if beside else []
    return tag("div", tag("dt", words(label)), tag("dd", words(value), *more, class_=kind))


def _providers(named: dict[str, dict[str, int]]) -> Html:
    states = ("succeeded", "failed", "held", "cancelled")
    shown = [state for state in states if any(told.get(state) for told in named.values())]
    rows = [
        (name, count(sum(told.get(state, 0) for state in IN_FLIGHT)), *(count(told.get(state, 0)) for state in shown))
        for name, told in named.items()
    ]
    return _table(("provider", "in flight", *shown), rows, right=("in flight", *shown))


def _advice(view: Overview) -> list[Html]:
    where = " --sandbox" if view.sandbox else ""
    found = []
    if n := view.counts.get("held", 0):
        found.append((f"{count(n)} held wait for you: ", f"bydawn resolve {view.name}{where}"))
    if n := view.counts.get("failed", 0):
        found.append((f"{count(n)} failed stay: ", f"bydawn retry {view.name}{where}"))
    if not view.is_open:
        found.append(("Nothing is open: ", f"bydawn verify {view.name}"))
    return [tag("p", words(told), code(command)) for told, command in found]


def _accounts(board: Board) -> Html:
    spent = dollar_column(account.spent for account in board.accounts)
    reserved = dollar_column(account.reserved for account in board.accounts)
    accounts = _table(
        ("account", "provider", "spent", "reserved", "state"),
        [
            (account.name, account.provider, paid, held, account.trouble or "ok")
            for account, paid, held in zip(board.accounts, spent, reserved, strict=True)
        ],
        right=("spent", "reserved"),
    )
    lanes = _table(
        ("account", "lane", "at once", "state"),
        [
            (
                lane.account,
                lane.lane,
                count(lane.concurrency),
                "open" if lane.breaker == "closed" else f"{lane.breaker.replace('_', ' ')}: {lane.reason}",
            )
            for lane in board.lanes
        ],
        right=("at once",),
    )
    parts = [tag("h2", words("Accounts")), accounts]
    parts += [tag("p", words(_overcharge(account)), class_="bad") for account in board.accounts if account.overcharges]
    return tag("section", *parts, *([tag("h3", words("Lanes")), lanes] if board.lanes else []))


def _overcharge(account: AccountLine) -> str:
    above, images = dollars(account.overcharged), counted(account.overcharges, "image")
    return f"overcharge: {account.name} charged {above} more than the ceilings of {images}"


def _runs(board: Board) -> Html:
    rows = [
        (
            str(run.epoch),
            moment(run.started_at_us),
            duration(took_s(run, board.at_us)),
            run.stopped_by.replace("_", " ") if run.state == "ended" else run.state,
            *((count(run.ended.run_succeeded), dollars(run.ended.run_cost_microusd)) if run.ended else ("-", "-")),
        )
        for run in board.runs
    ]
    head = ("run", "started", "took", "ended by", "succeeded", "cost")
    return tag("section", tag("h2", words("Runs")), _table(head, rows, right=("run", "took", "succeeded", "cost")))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = (), class_: str = "") -> Html:
    ends = ["right" if name in right else "" for name in head]

    def line(kind: str, cells: Sequence[str]) -> Html:
        return tag("tr", *(tag(kind, words(cell), class_=end) for cell, end in zip(cells, ends, strict=True)))

    body = tag("tbody", *(line("td", row) for row in rows))
    return tag("div", tag("table", tag("thead", line("th", head)), body, class_=class_), class_="wide")


def code(text: str) -> Html:
    return tag("code", words(text))
