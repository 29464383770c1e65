"""SEC-8: which texts, tasks and images go together."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.audit import verify
from ledger.commands import Cancel, Decide, Erase, Intend, Record, Retry, Share
from ledger.decisions import Append, Committed, Decision
from ledger.erasing import belonging, erased_texts, files_erased, images_of, needed_images, texts_of
from ledger.errors import CommandRejected, InvariantBroken
from ledger.events import (
    AttemptAdopted,
    AttemptFailed,
    AttemptIntended,
    AttemptRejected,
    PayloadRef,
    ResultReady,
    TaskCancelled,
    TaskErased,
    TaskRetried,
)
from ledger.folds import TaskState
from ledger.journal import Ledger
from ledger.rules import breach, decide_task
from ledger.streams import task_stream
from tests.ledger.ledgers import do, opened, queue
from tests.ledger.stories import INTEND, UNKNOWN, after, bought, completed, fold

SHARE = Share(owner=1, version=1, sha256="aa", size=10, media_type="image/png", width=8, height=8)
ERASE = Erase(operator="ann")


def text(ledger: Ledger, said: str) -> PayloadRef:
    """Make a text durable, as part of a decision about the last task of the batch."""
    ref, payload = ledger.payload(said)
    n = 6
    command = Cancel(operator="ann")
    stream = task_stream(1, n)
    state = ledger.state(stream)
    events = decide_task(state, command if state.phase == "queued" else Retry(operator="ann"))
    ledger.commit([Decision((Append(stream, state.version, events),), 5, payloads=(payload,))])
    return ref


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Tasks 1 and 2, which follows it, have image aa; 3 has aa by chance; 4 was bought with an upload; 5 is queued."""
    with opened(tmp_path / "bydawn.db") as ledger:
        queue(ledger, 6, owners={2: 1})
        place, words = text(ledger, "where it lies"), text(ledger, "what they said")
        file = text(ledger, "where the reference was uploaded to")
        do(ledger, 1, INTEND, Record(AttemptRejected(attempt=1, reason="throttled", detail=words)))
        again = Intend(**{**{f: getattr(INTEND, f) for f in INTEND.__struct_fields__}, "uploads": (file,)})
        do(ledger, 1, again, bought(2)[0], Record(ResultReady(attempt=2, url=place, cost_microusd=1)), bought(2)[2])
        do(ledger, 2, SHARE)
        do(ledger, 3, INTEND, *bought(1, "aa"))
        do(ledger, 4, again, *bought(1, "bb"))
        yield ledger


def test_tasks_that_share_a_purchase_go_together(ledger: Ledger) -> None:
    with ledger.reader() as reader:
        assert belonging(reader, 1, [1]) == belonging(reader, 1, [2]) == [1, 2]
        assert belonging(reader, 1, [3, 5]) == [3, 5]


def erase(ledger: Ledger, *numbers: int, files: bool = False) -> int:
    """Erase tasks in one decision; returns how many texts went."""
    with ledger.reader() as reader:
        rows = {row for of_task in texts_of(reader, 1, numbers).values() for row in of_task}
    appends = []
    for n in numbers:
        state = ledger.state(task_stream(1, n))
        events = decide_task(state, Erase(operator="ann", files=files))
        appends.append(Append(task_stream(1, n), state.version, events))
    (outcome,) = ledger.commit([Decision(tuple(appends), 9, erases=tuple(rows))])
    assert isinstance(outcome, Committed)
    return len(rows)


def test_a_shared_upload_goes_with_the_last_task_that_used_it(ledger: Ledger) -> None:
    with ledger.reader() as reader:
        assert [len(rows) for rows in texts_of(reader, 1, [1, 2]).values()] == [3, 1]
        assert [len(rows) for rows in texts_of(reader, 1, [4]).values()] == [1]
        assert sum(len(rows) for rows in texts_of(reader, 1, [1, 2, 4]).values()) == 6
    assert erase(ledger, 1, 2) == 4
    with ledger.reader() as reader:
        assert [len(rows) for rows in texts_of(reader, 1, [4]).values()] == [2]
    assert erase(ledger, 4) == 2
    with ledger.reader() as reader:
        assert (erased_texts(reader), texts_of(reader, 1, [1, 2, 4])) == (6, {1: [], 2: [], 4: []})
    assert verify(ledger.path).ok


def test_an_image_stays_while_another_task_has_it(ledger: Ledger) -> None:
    with ledger.reader() as reader:
        digests = {image.sha256 for image in images_of(reader, 1, [1, 2, 4])}
        assert digests == {"aa", "bb"}
        assert needed_images(reader, 1, digests, but=[1, 2, 4]) == {"aa"}  # by chance
        assert needed_images(reader, 1, digests, but=[1, 2, 3, 4]) == set()
        assert files_erased(reader) == set()
    erase(ledger, 3, files=True)
    with ledger.reader() as reader:
        assert needed_images(reader, 1, digests, but=[1, 2, 4]) == set()
        assert files_erased(reader) == {task_stream(1, 3)}


def test_a_spare_is_an_image_of_its_task(ledger: Ledger) -> None:
    """MON-9: an attempt that was found after it had been bought again."""
    again = Decide(operator="ann", decision="buy_again", attempt=1)
    found = Decide(operator="ann", decision="adopt", attempt=1, job="j")
    do(ledger, 5, *UNKNOWN, again, INTEND, *bought(2, "cc"))
    do(ledger, 5, found, Record(ResultReady(attempt=1)), Record(completed(1, "dd")))
    with ledger.reader() as reader:
        assert [(image.version, image.sha256) for image in images_of(reader, 1, [5])] == [(1, "cc"), (0, "dd")]


def test_what_is_still_wanted_is_cancelled_with_its_text(ledger: Ledger) -> None:
    erase(ledger, 5)
    with ledger.reader() as reader:
        state = reader.state(task_stream(1, 5))
        assert (state.phase, state.erased, state.files_erased) == ("cancelled", True, False)
        assert all(task.request is not None for task in reader.queued(1))
    assert verify(ledger.path).ok


OPEN = [
    (INTEND,),
    (INTEND, bought(1)[0]),
    (INTEND, *bought(1)[:2]),
    UNKNOWN,
]


@pytest.mark.parametrize("story", OPEN)
def test_the_text_of_an_open_or_held_purchase_stays(story: tuple[Intend, ...]) -> None:
    state = after(*story)
    with pytest.raises(CommandRejected, match="still needed"):
        decide_task(state, ERASE)
    assert "still needed" in breach(state, TaskErased(operator="ann"))


def test_a_purchase_that_was_given_up_does_not_keep_the_text() -> None:
    state = after(*UNKNOWN, Decide(operator="ann", decision="give_up", attempt=1))
    assert decide_task(state, ERASE) == (TaskErased(operator="ann"),)


def test_erasing_twice_is_once_unless_there_is_more_to_erase() -> None:
    state = after(ERASE)
    assert (state.phase, decide_task(state, ERASE)) == ("cancelled", ())
    assert decide_task(state, Erase(operator="ann", files=True)) == (TaskErased(operator="ann", files=True),)
    assert decide_task(state, Erase(operator="ann", texts=1)) == (TaskErased(operator="ann"),)
    both = fold(state, (TaskErased(operator="ann", files=True), TaskErased(operator="ann")))
    assert (both.files_erased, decide_task(both, Erase(operator="ann", files=True))) == (True, ())


def test_nothing_is_wanted_again_for_an_erased_task() -> None:
    state = after(INTEND, Record(AttemptFailed(attempt=1, reason="policy")), ERASE)
    with pytest.raises(CommandRejected, match="erased"):
        decide_task(state, Retry(operator="ann"))
    assert breach(state, TaskRetried(operator="ann", version=1)) == "its texts were erased"
    given_up = after(*UNKNOWN, Decide(operator="ann", decision="give_up", attempt=1), ERASE)
    with pytest.raises(CommandRejected, match="erased"):
        decide_task(given_up, Decide(operator="ann", decision="adopt", attempt=1, job="j"))
    assert breach(given_up, AttemptAdopted(attempt=1, job="j", evidence="operator")) == "its texts were erased"


def test_a_task_that_was_not_settled_is_never_erased_alone() -> None:
    """Its text would be missed by whoever buys it: the audit says so too."""
    state: TaskState = after()
    assert breach(state, TaskErased(operator="ann")) == "the task is queued"
    cancelled = fold(state, (TaskCancelled(operator="ann"),))
    assert breach(cancelled, TaskErased(operator="ann")) == ""


def test_the_writer_stops_before_it_buys_for_an_erased_task(ledger: Ledger) -> None:
    erase(ledger, 5)
    stream = task_stream(1, 5)
    fields = {name: getattr(INTEND, name) for name in INTEND.__struct_fields__ if name != "beside"}
    intended = AttemptIntended(attempt=1, **fields)
    version = ledger.state(stream).version
    with pytest.raises(InvariantBroken):
        ledger.commit([Decision((Append(stream, version, (intended,)),), 9)])
