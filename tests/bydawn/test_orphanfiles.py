"""What another copy of the ledger bought by the file: bound to the tasks that its keys prove, and to no others."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Failed, NotVisible, Pending, Secret, Throttled
from adapters.batchfile import BatchOutcome, ResultFile, line_job
from adapters.prices import DEFAULT_BOOK
from bydawn import orphans
from bydawn.cli.ledger import _told
from bydawn.orphanfiles import BoughtLine, Files, read_files
from bydawn.orphans import Looked, adopt_orphans
from bydawn.takeover import is_silent
from ledger.audit import verify
from ledger.commands import Cancel, Intend, Record
from ledger.decisions import Append, Decision
from ledger.erasing import texts_of
from ledger.events import AttemptAccepted, AttemptAdopted, AttemptAmbiguous, AttemptIntended, TaskErased
from ledger.reader import Reader
from ledger.streams import task_stream
from runtime.accounts import Account
from runtime.batchevidence import file_prefix, line_key
from runtime.ports import WireError
from runtime.simulated import SimClock
from tests.ledger.ledgers import opened as ledger_of
from tests.runtime.batches import FileProvider, page
from tests.runtime.nights import OpenLedger, with_ledger

DONE = ResultFile("files/r")


def account(provider: FileProvider) -> Account:
    return Account(name="google-batch", provider="google-batch", codec=provider, key=Secret("k"))


def key(opened: OpenLedger, n: int, attempt: int = 1) -> str:
    return line_key(opened.work(n), attempt)


def results(*keys: str, failed: Sequence[str] = ()) -> bytes:
    return "".join([*(f"{each}=image\n" for each in keys), *(f"{each}!no\n" for each in failed)]).encode()


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> FileProvider:
    """A provider that the next taking over asks."""
    found = FileProvider()
    found.latency_s = 0.0

    @asynccontextmanager
    async def wire() -> AsyncIterator[FileProvider]:
        yield found

    monkeypatch.setattr(orphans, "_wire", wire)
    return found


def taken_over(path: Path, provider: FileProvider) -> Looked:
    with ledger_of(path) as ledger:
        (looked,) = adopt_orphans(ledger, [account(provider)], [1], DEFAULT_BOOK, since_us=1)
    assert verify(path).problems == ()
    return looked


def name_of(opened: OpenLedger, file: str) -> str:
    return file_prefix(opened.ledger.ledger_id) + file


def phases(path: Path) -> str:
    with Reader(path) as reader:
        return " ".join(row.phase for row in reader.tasks(1))


def test_the_lines_of_a_strange_file_are_bound_to_the_tasks_that_they_prove(
    tmp_path: Path, provider: FileProvider
) -> None:
    """REC-5, REC-10, MON-7: of a settled task it is surplus; of an open one, or of none, it is counted."""

    async def body(opened: OpenLedger) -> None:
        await opened.fail(1)
        await opened.do(
            2,
            Intend("google-batch", "google-batch", "m", "only", 60_000, "d", 0, file=name_of(opened, "known")),
            Record(AttemptAccepted(attempt=1, job=line_job("b1", key(opened, 2)))),
        )
        listed = page(("b1", name_of(opened, "known"), 1), ("b2", name_of(opened, "theirs"), 2), ("b3", "else's", 3))
        provider.say("batches", listed)
        strange = [key(opened, 4)[:-1] + "x", "1-9-1-00000000", "1-3-1", f"{10**9}-1-1-a", "odd"]
        lines = results(*(key(opened, n, 7) for n in (1, 2, 3)), *strange, failed=[key(opened, 4)])
        provider.say("results", lines + b"garbage\n")

    with_ledger(tmp_path, body)
    provider.say("batch", DONE)
    path = tmp_path / "n.db"
    looked = taken_over(path, provider)
    assert (looked.adopted, looked.surplus, looked.batches) == (1, 1, ("b",))
    assert looked.strangers == 1 + 5 + 1  # of an open task, of none, unreadable
    assert phases(path) == "failed accepted accepted queued"
    assert provider.count("batch/b2") == 1
    assert provider.count("batch/") == 1, "what is known here, and what is another ledger's, is not looked into"
    with Reader(path) as reader:
        events = [row.event for row in reader.events(stream=task_stream(1, 3), after=1)]
        assert [type(event) for event in events] == [AttemptIntended, AttemptAmbiguous, AttemptAdopted]
    again = taken_over(path, provider)
    assert (again.adopted, again.surplus) == (0, 0), "twice is once"


def test_of_two_lines_of_a_task_that_waits_the_newer_is_its_image(tmp_path: Path, provider: FileProvider) -> None:
    """REC-10: the other copy went on to it; the older one is told, since nobody needs it."""

    async def body(opened: OpenLedger) -> None:
        provider.say("batches", page(("new", name_of(opened, "2"), 9), ("old", name_of(opened, "1"), 5)))
        provider.say("results", results(key(opened, 1, 1)), results(key(opened, 1, 2)))

    with_ledger(tmp_path, body)
    provider.say("batch", DONE)
    looked = taken_over(tmp_path / "n.db", provider)
    assert (looked.adopted, looked.strangers) == (1, 1)
    with Reader(tmp_path / "n.db") as reader:
        (attempt,) = reader.state(task_stream(1, 1)).attempts
        assert attempt.job.startswith("new.1-1-2-")


def test_an_erased_task_gets_nothing(tmp_path: Path, provider: FileProvider) -> None:
    """SEC-8."""

    async def body(opened: OpenLedger) -> None:
        provider.say("batches", page(("b1", name_of(opened, "1"), 1)))
        provider.say("results", results(key(opened, 1)))
        work = await opened.do(1, Cancel(operator="ann"))
        erased = Append(task_stream(1, 1), work.state.version, (TaskErased(operator="ann"),))
        rows = texts_of(opened.reader, 1, [1])[1]
        opened.ledger.commit([Decision(appends=(erased,), at_us=1, erases=tuple(rows))])

    with_ledger(tmp_path, body)
    provider.say("batch", DONE)
    assert taken_over(tmp_path / "n.db", provider).strangers == 1


@pytest.mark.parametrize(
    ("state", "answer"),
    [
        (Pending(), b""),
        (NotVisible(), b""),
        (Throttled(1.0), b""),
        (WireError("no", sent=True), b""),
        (DONE, WireError("cut off", sent=True)),
        (DONE, 429),
    ],
)
def test_a_file_that_cannot_be_read_yet_is_silent(
    tmp_path: Path, provider: FileProvider, state: BatchOutcome | WireError, answer: bytes | int | WireError
) -> None:
    """REC-4: it proves nothing of any task; when it can be read, it is asked again."""

    async def body(opened: OpenLedger) -> None:
        provider.say("batches", page(("b1", name_of(opened, "1"), 1)))
        provider.say("results", answer, results(key(opened, 1)))

    with_ledger(tmp_path, body)
    provider.say("batch", state, DONE)
    path = tmp_path / "n.db"
    looked = taken_over(path, provider)
    assert looked == Looked("google-batch", silent_files=1)
    assert phases(path) == "queued queued queued queued"
    if isinstance(answer, bytes):
        provider.answers["results"].popleft()
    assert taken_over(path, provider) == Looked("google-batch", adopted=1)


def test_a_file_that_came_to_nothing_is_none_and_one_that_is_gone_is_lost(
    tmp_path: Path, provider: FileProvider
) -> None:
    async def body(opened: OpenLedger) -> None:
        provider.say("batches", page(("b1", name_of(opened, "1"), 1), ("b2", name_of(opened, "2"), 2)))

    with_ledger(tmp_path, body)
    provider.say("batch", Failed("expired"), DONE)
    provider.say("results", 404)
    assert taken_over(tmp_path / "n.db", provider) == Looked("google-batch", lost_files=1)


def test_what_is_not_known_yet_is_said() -> None:
    assert _told(Looked("google-batch", adopted=1, silent_files=2, lost_files=1)) == (
        "google-batch: 1 job of the other copy adopted; 2 files of requests not done, or not readable now;"
        " 1 file of requests paid, with results that are gone: look at the bill"
    )
    assert is_silent([Looked("replicate"), Looked("google-batch", silent_files=1)])
    assert not is_silent([Looked("google-batch", adopted=9, lost_files=1)])


def test_a_list_that_cannot_be_read_is_trouble(tmp_path: Path, provider: FileProvider) -> None:
    """REC-4."""

    async def body(opened: OpenLedger) -> None:
        opened.phases()

    with_ledger(tmp_path, body)
    provider.say("batches", WireError("no", sent=True))
    assert taken_over(tmp_path / "n.db", provider).trouble


STATES = st.sampled_from([DONE, Pending(), NotVisible(), Failed("expired")])
FILES = st.tuples(st.sampled_from(["known", "theirs", "stranger"]), STATES, st.sampled_from([b"k=1\n", b"k!no\n", 404]))


@given(st.lists(FILES, max_size=5))
def test_every_file_of_another_copy_is_told_once_and_no_other_is(
    files: list[tuple[str, BatchOutcome, bytes | int]],
) -> None:
    """REC-4, REC-10: it is silent, or lost, or nothing, or its images are named; what is known here is passed over."""
    provider, clock = FileProvider(), SimClock()
    prefix = {"known": file_prefix("led"), "theirs": file_prefix("led"), "stranger": file_prefix("other")}
    names = [f"{prefix[whose]}{n}" for n, (whose, _, _) in enumerate(files)]
    provider.say("batches", page(*((f"b{n}", name, n) for n, name in enumerate(names))))
    theirs = [(n, state, answer) for n, (whose, state, answer) in enumerate(files) if whose == "theirs"]
    provider.say("batch", *(state for _, state, _ in theirs))
    provider.say("results", *(answer for _, state, answer in theirs if state is DONE))
    known = {name for name, (whose, _, _) in zip(names, files, strict=True) if whose == "known"}
    found: list[Files] = []

    async def go() -> None:
        asked = read_files(
            account(provider), provider, query=provider.send, wire=provider, clock=clock, ledger_id="led", known=known
        )
        found.append(await asked)

    trio.run(go, clock=trio.testing.MockClock(autojump_threshold=0))
    read = [(n, answer) for n, state, answer in theirs if state is DONE]
    assert found == [
        Files(
            lines=[BoughtLine(f"b{n}.k", "k") for n, answer in read if answer == b"k=1\n"],
            silent=sum(isinstance(state, Pending | NotVisible) for _, state, _ in theirs),
            lost=sum(answer == 404 for _, answer in read),
        )
    ]
