"""The inbox: whole messages, in order, from anybody, taken once."""

import os
import threading
from pathlib import Path

import msgspec
import pytest

from runtime.inbox import (
    CancelBatch,
    Hint,
    InboxFull,
    ResolveTasks,
    RetryTasks,
    hints,
    hints_of,
    inbox_of,
    leave,
    leave_hint,
    message_key,
    waiting,
)


def test_messages_come_back_whole_and_in_the_order_of_their_names(tmp_path: Path) -> None:
    inbox = inbox_of(tmp_path / "bydawn.db")
    retry = RetryTasks(batch=1, operator="ann", tasks=(3, 4))
    cancel = CancelBatch(batch=2, operator="bob")
    resolve = ResolveTasks(batch=1, operator="ann", decision="buy_again")
    for name, message in (("2-b", cancel), ("1-a", retry), ("3-c", resolve)):
        leave(inbox, message, name=name)
    assert [message for _, message in waiting(inbox)] == [retry, cancel, resolve]


def test_messages_are_private_from_the_first_byte(tmp_path: Path) -> None:
    """SEC-7."""
    inbox = inbox_of(tmp_path / "bydawn.db")
    path = leave(inbox, CancelBatch(batch=1, operator="ann"), name="1")
    assert path.stat().st_mode & 0o777 == 0o600
    assert inbox.stat().st_mode & 0o777 == 0o700


def test_garbage_and_giants_are_shown_as_unreadable(tmp_path: Path) -> None:
    inbox = inbox_of(tmp_path / "bydawn.db")
    leave(inbox, CancelBatch(batch=1, operator="ann"), name="1")
    (inbox / "2.json").write_bytes(b'{"type":"format the disk"}')
    (inbox / "3.json").write_bytes(b" " * 70_000)
    (inbox / ".4.part").write_bytes(b"half")
    assert [message for _, message in waiting(inbox)][1:] == [None, None]


def test_keys_differ_by_name_and_have_sixteen_bytes() -> None:
    assert len(message_key("1.json")) == 16
    assert message_key("1.json") != message_key("2.json")


def test_no_inbox_is_an_empty_one(tmp_path: Path) -> None:
    assert list(waiting(tmp_path / "nothing.inbox")) == []
    assert list(hints(tmp_path / "nothing.inbox")) == []


# --- hints ----------------------------------------------------------------------------------------------------

HINT = Hint("kie", 1, 12, 3, "j7")


def test_the_same_hint_is_one_file(tmp_path: Path) -> None:
    """Duplicates cost a provider nothing, and us no second look."""
    inbox = inbox_of(tmp_path / "bydawn.db")
    paths = {leave_hint(inbox, HINT) for _ in range(3)}
    assert len(paths) == 1
    assert leave_hint(inbox, msgspec.structs.replace(HINT, job="j8")) not in paths
    assert [hint.job for _, hint in hints(inbox) if hint] in (["j7", "j8"], ["j8", "j7"])


def test_hints_are_no_messages_and_private(tmp_path: Path) -> None:
    """SEC-7."""
    inbox = inbox_of(tmp_path / "bydawn.db")
    path = leave_hint(inbox, HINT)
    assert list(waiting(inbox)) == []
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not [name for name in os.listdir(path.parent) if name.endswith(".part")]


def test_a_hint_survives_two_writers_at_once(tmp_path: Path) -> None:
    inbox = inbox_of(tmp_path / "bydawn.db")
    writers = [threading.Thread(target=leave_hint, args=(inbox, HINT)) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [hint for _, hint in hints(inbox)] == [HINT]


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[]", b'{"account":"kie","batch":0,"n":1,"attempt":1,"job":"j"}', msgspec.json.encode(HINT)[:-1]],
)
def test_a_hint_that_cannot_be_read_is_shown_as_none(tmp_path: Path, text: bytes) -> None:
    inbox = inbox_of(tmp_path / "bydawn.db")
    hints_of(inbox).mkdir(parents=True)
    (hints_of(inbox) / "1.json").write_bytes(text)
    assert [hint for _, hint in hints(inbox)] == [None]


def test_a_full_folder_takes_no_more_hints_but_still_messages(tmp_path: Path) -> None:
    """SEC-4: and what dead writers left is no reason to be full."""
    inbox = inbox_of(tmp_path / "bydawn.db")
    leave_hint(inbox, HINT)
    for name in (".old.part", ".new.part"):
        (hints_of(inbox) / name).write_bytes(b"half")
    os.utime(hints_of(inbox) / ".old.part", (0, 0))
    leave_hint(inbox, msgspec.structs.replace(HINT, n=13), most=3)
    assert sorted(os.listdir(hints_of(inbox)))[0] == ".new.part"
    with pytest.raises(InboxFull):
        leave_hint(inbox, msgspec.structs.replace(HINT, n=14), most=3)
    leave(inbox, CancelBatch(batch=1, operator="ann"), name="1")
