"""What another copy of a ledger bought by the file, as far as the provider tells (REC-10).

The list of batches shows under which name each file was made.  A name of this ledger's that this ledger never intended
is another copy's.  What is in such a file only its results tell: so one that has not ended tells nothing yet, and the
other copy may have bought with it whatever waits here.
"""

from collections.abc import Collection

import msgspec

from adapters.base import Failed, Finished, Gone, MalformedReply, Unreadable
from adapters.batchfile import BatchFiles, BatchOutcome, LineResult, ResultFile, line_job
from runtime.accounts import Account
from runtime.batchevidence import file_prefix, read_batches
from runtime.batchresults import read_results
from runtime.evidence import Query
from runtime.ports import Clock, Wire, WireError


class BoughtLine(msgspec.Struct, frozen=True):
    """A line that became an image: the job that it is here, and the key that says whose it is."""

    job: str
    key: str


class Files(msgspec.Struct):
    """What the other copy's files told.

    ``lines``: the oldest file first.  ``silent``: files that have not told what is in them, and may yet.  ``lost``:
    files that never will.  ``others``: lines that were paid and are no image, or that nobody can read.
    """

    lines: list[BoughtLine] = []
    silent: int = 0
    lost: int = 0
    others: int = 0


async def read_files(
    account: Account,
    codec: BatchFiles,
    *,
    query: Query,
    wire: Wire,
    clock: Clock,
    ledger_id: str,
    known: Collection[str],
) -> Files:
    """Read the files of other copies; ``known`` are the names of this one's.

    Raises:
        CannotLook: the list could not be read whole.
    """
    named = await read_batches(account, codec, query=query, clock=clock)
    prefix = file_prefix(ledger_id)
    theirs = [each for name, found in named.items() if name.startswith(prefix) and name not in known for each in found]
    told = Files()
    for batch in sorted(theirs, key=lambda each: (each.created_us, each.batch)):
        match await _state(account, codec, batch.batch, query):
            case ResultFile(name=name):
                await _read(account, codec, batch.batch, name, wire, told)
            case Failed():
                pass  # all of it came to nothing, and the other copy went on to another file
            case _:
                told.silent += 1
    return told


async def _state(account: Account, codec: BatchFiles, batch: str, query: Query) -> BatchOutcome:
    try:
        return codec.read_batch(await query(codec.build_batch(batch, account.context())))
    except (WireError, MalformedReply) as exc:
        return Unreadable(str(exc))


async def _read(account: Account, codec: BatchFiles, batch: str, name: str, wire: Wire, told: Files) -> None:
    """Add what the results of one batch tell; of a file that is cut off, nothing."""
    lines: list[BoughtLine] = []
    odd: list[str] = []

    async def take(result: LineResult) -> None:
        match result.outcome:
            case Finished():
                lines.append(BoughtLine(line_job(batch, result.key), result.key))
            case Failed(charged=charged, cost_microusd=cost) if charged or cost:
                odd.append(result.key)

    match await read_results(codec, codec.build_results(name, account.context()), wire, take, odd.append):
        case None:
            told.lines += lines
            told.others += len(odd)
        case Gone():
            told.lost += 1
        case _:
            told.silent += 1
