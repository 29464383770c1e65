"""``verify``: does the ledger still say what it said, and do its parts agree?

Two halves, which ask different questions:

* :mod:`ledger.audit_chain`: every event in the order of the ledger, as bytes; the chain, dense seq, epochs, texts;
* :mod:`ledger.audit_streams`: every stream, decoded and folded; versions, transitions, views, books.

The first needs no snapshot, so for a large ledger a process of its own does it, on another core.

Reads only.  What it finds are :class:`Problem` values with a place, never exceptions, as far as the file can be read.
What a ledger cannot tell about itself is that it is an older copy of the whole file.  Only a head that was kept
elsewhere can (:func:`check_against`).
"""

from collections.abc import Callable
from pathlib import Path

import msgspec

from ledger.appender import last_commit
from ledger.audit_chain import Chain, audit_chain, audit_chain_of
from ledger.audit_streams import audit_streams
from ledger.encoding import chain_start
from ledger.engine import Store, open_reader
from ledger.errors import LedgerDamaged
from ledger.findings import Findings
from ledger.findings import Problem as Problem

_TOGETHER = 20_000
_LARGE = 200_000


class Report(msgspec.Struct, frozen=True):
    """``problems`` names the first of each kind; ``counts`` says how many there are of each."""

    ok: bool
    problems: tuple[Problem, ...]
    counts: dict[str, int]
    events: int
    seq: int
    head: str


class SealedHead(msgspec.Struct, frozen=True):
    """The end of the chain at one moment, kept outside the ledger: what a later ledger must still contain."""

    ledger_id: str
    seq: int
    hash: str


def verify(
    path: Path, progress: Callable[[int], None] | None = None, *, together: int = _TOGETHER, large: int = _LARGE
) -> Report:
    """Check the whole ledger; ``progress`` is told the events done, after every ``together``.

    Args:
        large: from so many events on, the chain is checked by a second process.

    Raises:
        LedgerMissing, LedgerDamaged: there is no ledger here, or SQLite cannot read it.
    """
    store = open_reader(path)
    try:
        # One read transaction: events and views are compared as of the same commit, also beside a running night.
        with store.transaction("DEFERRED"):
            ledger_id = _ledger_id(store)
            seq, head = last_commit(store, chain_start(ledger_id))
            found = store.row("SELECT max(seq) FROM events")
            through = max(seq, found[0] or 0) if found else seq

            def streams() -> Findings:
                try:
                    return audit_streams(store, progress, together)
                except LedgerDamaged:
                    # Where it is only a text of a view that is none, the rest can be checked, and the row is named.
                    store.read_any_text()
                    return audit_streams(store, progress, together)

            if through < large:
                chain, others = audit_chain(store, ledger_id, through), streams()
            else:
                chain, others = _at_once(path, ledger_id, through, streams)
    finally:
        store.close()
    findings = chain.findings
    findings.add(others)
    return Report(
        ok=not findings.named,
        problems=tuple(findings.named),
        counts=dict(findings.counts),
        events=chain.events,
        seq=seq,
        head=head.hex(),
    )


def _at_once(path: Path, ledger_id: str, through: int, streams: Callable[[], Findings]) -> tuple[Chain, Findings]:
    """Both halves at the same time.  Spawned and not forked: a connection to SQLite must not be carried over."""
    # Here and not above: a run needs the heads of this module, and not these.
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        chain = pool.submit(audit_chain_of, path, ledger_id, through)
        others = streams()
        return chain.result(), others


def _ledger_id(store: Store) -> str:
    found = store.row("SELECT CAST(value AS BLOB) FROM meta WHERE name = 'ledger_id'")
    return "" if found is None else bytes(found[0]).decode(errors="replace")


def export_head(path: Path) -> SealedHead:
    """Return the end of the chain, to be kept beside the results."""
    store = open_reader(path)
    try:
        ledger_id = _ledger_id(store)
        seq, head = last_commit(store, chain_start(ledger_id))
        return SealedHead(ledger_id, seq, head.hex())
    finally:
        store.close()


def check_against(path: Path, sealed: SealedHead) -> Problem | None:
    """Say how the ledger contradicts a head that was exported earlier; None if it still contains it (REC-10)."""
    here = export_head(path)
    if here.ledger_id != sealed.ledger_id:
        return Problem("head", path.name, f"this is ledger {here.ledger_id}, the head is of ledger {sealed.ledger_id}")
    if here.seq < sealed.seq:
        return Problem("head", f"event {here.seq}", f"the ledger ends before event {sealed.seq}: restored or cut")
    store = open_reader(path)
    try:
        found = store.row("SELECT head FROM commits WHERE seq = ?", (sealed.seq,))
    finally:
        store.close()
    if sealed.seq and (found is None or found[0].hex() != sealed.hash):
        return Problem("head", f"event {sealed.seq}", "the ledger has another history up to here")
    return None
