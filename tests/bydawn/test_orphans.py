"""What another copy of the ledger bought is bound to the task that wanted it, once, and to no other (REC-5, REC-10)."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from adapters import registry
from adapters.base import (
    Accepted,
    Context,
    Failed,
    HttpCall,
    HttpReply,
    ListedJob,
    Lists,
    LookupOutcome,
    NotVisible,
    Pending,
    PollOutcome,
    Secret,
)
from adapters.prices import DEFAULT_BOOK
from bydawn import orphans
from bydawn.orphans import Looked, adopt, adopt_orphans
from ledger.audit import verify
from ledger.commands import Cancel, Intend
from ledger.decisions import Append, Decision
from ledger.erasing import texts_of
from ledger.events import AttemptAdopted, AttemptAmbiguous, AttemptIntended, BatchConfigured, TaskErased
from ledger.reader import Reader
from ledger.streams import batch_stream, task_stream
from runtime.accounts import Account
from runtime.pricing import quote_by
from runtime.work import Work
from tests.ledger.ledgers import opened as ledger_of
from tests.runtime.nights import OpenLedger, with_ledger

RUNS = Pending()


def job(name: str, created_us: int, fingerprint: str | None, outcome: PollOutcome = RUNS) -> ListedJob:
    return ListedJob(name, created_us, fingerprint, outcome)


def account(provider: str, base_url: str = "") -> Account:
    return Account(
        name=provider,
        provider=provider,
        codec=registry.codec(provider),
        key=Secret("k"),
        base_url=base_url,
        loopback=bool(base_url),
    )


def shown(opened: OpenLedger, buyer: Account, n: int, *, attempt: int = 1) -> str:
    """What the listing shows of the attempt that the other copy made."""
    assert isinstance(buyer.codec, Lists)
    work = opened.work(n)
    found = buyer.codec.fingerprint(work.request, buyer.context(marker=work.marker(opened.ledger.ledger_id, attempt)))
    assert found is not None
    return found


def adopted(opened: OpenLedger, buyer: Account, jobs: Sequence[ListedJob]) -> Looked:
    assert isinstance(buyer.codec, Lists)
    return adopt(opened.ledger, opened.reader, buyer, buyer.codec, jobs, [1], DEFAULT_BOOK)


@pytest.mark.parametrize("provider", ["replicate", "segmind"])
@pytest.mark.parametrize("attempt", [1, 3])
def test_a_waiting_task_takes_over_the_job_that_it_wanted(tmp_path: Path, provider: str, attempt: int) -> None:
    """REC-5, REC-10: also when the other copy had been throttled before, and made a later attempt."""
    buyer = account(provider)

    async def body(opened: OpenLedger) -> None:
        jobs = [
            job("failed", 4, shown(opened, buyer, 2, attempt=attempt), Failed("provider")),
            job("theirs", 5, shown(opened, buyer, 2, attempt=attempt)),
            job("faceless", 6, None),
            job("a stranger's", 7, "another input"),
        ]
        assert adopted(opened, buyer, jobs) == Looked(provider, adopted=1, strangers=3)
        assert opened.phases() == "queued accepted queued queued"
        events = [row.event for row in opened.reader.events(stream=task_stream(1, 2), after=1)]
        assert [type(event) for event in events] == [AttemptIntended, AttemptAmbiguous, AttemptAdopted]
        assert events[-1] == AttemptAdopted(attempt=1, job="theirs", evidence="listing")
        assert adopted(opened, buyer, jobs) == Looked(provider, strangers=3), "twice is once"

    with_ledger(tmp_path, body)


@pytest.mark.parametrize("provider", ["replicate", "segmind"])
@pytest.mark.parametrize("attempt", [1, 3])
def test_what_was_bought_of_a_settled_task_is_surplus(tmp_path: Path, provider: str, attempt: int) -> None:
    """MON-9, MON-10, REC-10: also when both copies made the same attempt; two jobs of one task are two surpluses."""
    buyer = account(provider)

    async def body(opened: OpenLedger) -> None:
        await opened.fail(1)
        face = shown(opened, buyer, 1, attempt=attempt)
        jobs = [job("one", 5, face), job("two", 6, face), job("a stranger's", 7, "another input")]
        price = quote_by(DEFAULT_BOOK)(buyer, opened.work(1).request)
        assert price is not None
        assert adopted(opened, buyer, jobs) == Looked(provider, 0, 2, 2 * price.ceiling_microusd, ("b",), strangers=1)
        assert opened.phases() == "failed queued queued queued"
        found = opened.work(1)
        assert [each.phase for each in found.state.attempts] == ["failed", "accepted", "accepted"]
        assert [(row.account, row.provider) for row in opened.reader.tasks(1, limit=1)] == [("kie", "kie")]
        assert adopted(opened, buyer, jobs) == Looked(provider, strangers=1), "twice is once"

    with_ledger(tmp_path, body)
    assert verify(tmp_path / "n.db").problems == ()


def test_waiting_tasks_come_first_and_a_doubt_keeps_its_job(tmp_path: Path) -> None:
    """REC-5: of three tasks that ask for the same, one is settled; a job that may be another's is not its surplus."""
    buyer = account("replicate")

    async def body(opened: OpenLedger) -> None:
        await opened.fail(1)
        jobs = [job("one", 5, shown(opened, buyer, 1)), job("two", 6, shown(opened, buyer, 1))]
        await opened.do(2, Intend("replicate", "replicate", "default", "only", 60_000, "d", 0))
        assert adopted(opened, buyer, jobs) == Looked("replicate", adopted=1, strangers=1)
        assert opened.phases() == "failed intended accepted queued"

    with_ledger(tmp_path, body, twins={2: 1, 3: 1})


def test_of_an_erased_task_nothing_is_fetched(tmp_path: Path) -> None:
    """SEC-8."""
    buyer = account("replicate")

    async def body(opened: OpenLedger) -> None:
        jobs = [job("one", 5, shown(opened, buyer, 1))]
        work = await opened.do(1, Cancel(operator="ann"))
        erased = Append(task_stream(1, 1), work.state.version, (TaskErased(operator="ann"),))
        rows = texts_of(opened.reader, 1, [1])[1]
        opened.ledger.commit([Decision(appends=(erased,), at_us=1, erases=tuple(rows))])
        assert adopted(opened, buyer, jobs) == Looked("replicate", strangers=1)

    with_ledger(tmp_path, body)


class Register:
    """A provider that finds jobs by our references, and a wire to it."""

    def __init__(self, jobs: dict[str, str]) -> None:
        self.jobs = jobs

    def build_lookup(self, reference: str, ctx: Context) -> HttpCall:
        return HttpCall("GET", reference, {})

    def read_lookup(self, reply: HttpReply) -> LookupOutcome:
        return Accepted(reply.body.decode()) if reply.status == 200 else NotVisible()

    async def send(self, call: HttpCall) -> HttpReply:
        job = self.jobs.get(call.url)
        return HttpReply(404 if job is None else 200, {}, (job or "").encode())


@pytest.mark.parametrize("reference_of", [Work.reference, Work.early_reference])
@pytest.mark.parametrize(
    ("made", "newest"),
    [
        ({1: "first"}, "first"),
        ({3: "third"}, "third"),  # two attempts of the other copy were refused
        ({1: "failed", 2: "done"}, "done"),
        ({1: "failed", 2: "failed too", 3: "done"}, "done"),
    ],
)
def test_of_several_attempts_of_the_other_copy_the_newest_is_taken_over(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: dict[int, str],
    newest: str,
    reference_of: Callable[[Work, str, int], str],
) -> None:
    """REC-10: the earlier ones came to nothing, and who took over one of them would buy the image again."""

    async def body(opened: OpenLedger) -> None:
        work, ledger_id = opened.work(2), opened.ledger.ledger_id
        register = Register({reference_of(work, ledger_id, attempt): job for attempt, job in made.items()})

        @asynccontextmanager
        async def wire() -> AsyncIterator[Register]:
            yield register

        monkeypatch.setattr(orphans, "_wire", wire)
        found = await orphans._made_with(account("toapis"), register, [opened.work(1), work], ledger_id)
        assert found == {work.key: [newest]}

    with_ledger(tmp_path, body)


def test_one_job_completes_one_task(tmp_path: Path) -> None:
    """REC-5: of two tasks that ask for the very same, one takes it and the other goes on waiting."""
    buyer = account("replicate")

    async def body(opened: OpenLedger) -> None:
        face = shown(opened, buyer, 1)
        assert adopted(opened, buyer, [job("one", 5, face), job("two", 6, face)]).strangers == 1
        assert opened.phases() == "accepted queued queued queued"

    with_ledger(tmp_path, body)


def test_what_has_been_bought_here_is_left_alone(tmp_path: Path) -> None:
    """MON-2: a task with an open attempt takes over nothing; recovery judges that attempt."""
    buyer = account("replicate")

    async def body(opened: OpenLedger) -> None:
        face = shown(opened, buyer, 1)
        await opened.intend(1)
        assert adopted(opened, buyer, [job("one", 5, face)]) == Looked("replicate", strangers=1)

    with_ledger(tmp_path, body)


def test_a_budget_is_never_exceeded_by_adopting(tmp_path: Path) -> None:
    """MON-8."""
    buyer = account("replicate")

    async def body(opened: OpenLedger) -> None:
        change = BatchConfigured(operator="o", budget_microusd=100_000)
        opened.ledger.commit([Decision(appends=(Append(batch_stream(1), 3, (change,)),), at_us=1)])
        jobs = [job(f"job {n}", n, shown(opened, buyer, n)) for n in (1, 2)]
        assert adopted(opened, buyer, jobs) == Looked("replicate", adopted=1, strangers=1)
        assert opened.phases() == "accepted queued queued queued"

    with_ledger(tmp_path, body)


def test_a_provider_that_cannot_be_asked_proves_nothing(tmp_path: Path) -> None:
    """REC-4: and the others that show nothing of a job are not asked at all."""

    async def body(opened: OpenLedger) -> None:
        opened.phases()

    with_ledger(tmp_path, body)
    nobody = "http://127.0.0.1:9"
    with ledger_of(tmp_path / "n.db") as ledger:
        accounts = [account(name, nobody) for name in ("kie", "replicate", "toapis")]
        looked = adopt_orphans(ledger, accounts, [1], DEFAULT_BOOK, since_us=1)
    told = [(each.account, each.adopted, bool(each.trouble)) for each in looked]
    assert told == [("replicate", 0, True), ("toapis", 0, True)]
    with Reader(tmp_path / "n.db") as reader:
        assert {row.phase for row in reader.tasks(1)} == {"queued"}
