"""One ledger, one life (REC-10): may this file, here and now, go on buying?

Two copies of a ledger that both buy pay for everything twice, and neither can see the other.  So a ledger has a home:
the machine and the file in which it began, or was last taken over.  It goes on by itself only there, only if it is not
marked as a backup, and only if it still contains every head of its own chain that was sealed beside its results, and
the newest commit that its lock names.

What cannot be told: a copy that brings all of this along, such as the snapshot of a whole virtual machine.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ledger.audit import SealedHead, check_against
from ledger.folds import Place

Sign = Literal["machine", "file", "backup", "older"]


class Strange(msgspec.Struct, frozen=True):
    """A sign that this is not the ledger that bought last, in words for people."""

    sign: Sign
    text: str


def strange(
    home: Place | None, here: Place, *, copied: bool, contradicted: str, replaced: str = ""
) -> tuple[Strange, ...]:
    """Say why a ledger must not go on buying by itself; nothing means that it may.

    Args:
        home: where it is at home; None for one without a history.
        copied: it is marked as a backup.
        contradicted: what speaks against it beside its results; empty if nothing does.
        replaced: the same of its lock, which names the newest commit that was made in this place.
    """
    found = []
    if home is not None and home.machine != here.machine:
        found.append(Strange("machine", "it was used on another machine, or its key file is another one"))
    if home is not None and (home.device, home.inode) != (here.device, here.inode):
        found.append(Strange("file", "it is another file than the one that was used: a copy, or restored from one"))
    if copied:
        found.append(Strange("backup", "it was made by `bydawn ledger backup`, and the original may have gone on"))
    if contradicted:
        found.append(Strange("older", f"the results are of a later ledger: {contradicted}"))
    elif replaced:
        found.append(Strange("older", f"a later one was in this place: {replaced}"))
    return tuple(found)


def contradiction(path: Path, heads: Sequence[SealedHead]) -> str:
    """What the sealed heads say against the ledger at ``path``, empty if it contains them all."""
    for head in heads:
        problem = check_against(path, head)
        if problem is not None:
            return problem.text
    return ""
