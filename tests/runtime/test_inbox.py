"""The inbox: whole messages, in order, from anybody, taken once."""

from pathlib import Path

from runtime.inbox import CancelBatch, ResolveTasks, RetryTasks, inbox_of, leave, message_key, waiting


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
