"""A key that is replaced between two runs: recognised by a job, confirmed by a person, or another account's (REC-9)."""

import pytest

from ledger.events import AccountKeyChanged
from ledger.reader import Reader
from tests.system.shop import Shop, prompts


def killed(shop: Shop, what: str, fault: str) -> tuple[str, ...]:
    """A batch of one image at Replicate, whose run dies; outside of practice, where keys are the user's."""
    shop.leave_practice(replicate="sandbox-of-ann")
    table = shop.table("pots.jsonl", prompts(what, 1))
    command = ("run", table, "--provider", "replicate", "--ledger", "bydawn.db")
    assert shop.run(*command, "--yes", fault=fault).code == -9
    return command


def new_key(shop: Shop, key: str) -> None:
    shop.env["REPLICATE_API_TOKEN"] = key


def confirmations(shop: Shop) -> list[str]:
    with Reader(shop.ledger) as reader:
        events = [row.event for row in reader.events(limit=10_000)]
    return [event.confirmed_by for event in events if isinstance(event, AccountKeyChanged)]


@pytest.mark.slow
def test_a_new_key_that_reads_an_old_job_is_the_same_account(shop: Shop) -> None:
    """REC-9."""
    command = killed(shop, "recognised", "result_seen:1")
    new_key(shop, "sandbox-of-ann+2")
    done = shop.run(*command)
    assert done.code == 0, done.err
    assert "BD-118" not in done.err
    first, second = confirmations(shop)
    assert first == ""
    assert second.startswith("job ")
    assert len(shop.bill()) == 1
    assert shop.run("verify", "--ledger", "bydawn.db").code == 0
    for secret in ("sandbox-of-ann", "+2"):
        assert secret not in done.err


def test_where_no_job_can_be_read_a_person_says_so(shop: Shop) -> None:
    """REC-9: held until then; afterwards its job is found and its image fetched, and it is paid once."""
    command = killed(shop, "confirmed", "reply_read:1")
    new_key(shop, "sandbox-of-ann+2")
    held = shop.run(*command)
    assert held.code == 3, held.err
    assert "BD-118" in held.err
    assert "bydawn providers confirm replicate" in held.err
    asked = shop.run("providers", "confirm", "replicate", "--ledger", "bydawn.db")
    assert asked.code == 2
    assert "BD-072" in asked.err
    assert confirmations(shop) == [""]
    said = shop.run("providers", "confirm", "replicate", "--yes", "--json", "--ledger", "bydawn.db")
    assert said.code == 0, said.err
    assert said.json()[-1] == {
        "type": "confirmed",
        "account": "replicate",
        "keys": 1,
        "purchases": 1,
        "purchases_microusd": said.json()[-1]["purchases_microusd"],
    }
    assert confirmations(shop) == ["", "tester"]
    again = shop.run("providers", "confirm", "replicate", "--yes", "--ledger", "bydawn.db")
    assert again.code == 2
    assert "BD-119" in again.err
    done = shop.run(*command)
    assert done.code == 0, done.err
    assert len(shop.bill()) == 1
    assert shop.run("verify", "--ledger", "bydawn.db").code == 0


def test_another_accounts_key_recognises_nothing(shop: Shop) -> None:
    """REC-9: it does not see the job, and nothing is bought for that."""
    command = killed(shop, "another account", "reply_read:1")
    new_key(shop, "sandbox-of-bob")
    held = shop.run(*command)
    assert held.code == 3, held.err
    assert "BD-118" in held.err
    new_key(shop, "sandbox-of-ann")
    done = shop.run(*command)
    assert done.code == 0, done.err
    assert len(shop.bill()) == 1


def test_there_must_be_something_to_confirm(shop: Shop) -> None:
    shop.leave_practice(together="sandbox-of-a-test")
    table = shop.table("pots.jsonl", prompts("nothing to confirm", 1))
    assert shop.run("run", table, "--provider", "together", "--ledger", "bydawn.db", "--yes").code == 0
    for name in ("together", "replicate"):
        done = shop.run("providers", "confirm", name, "--yes", "--ledger", "bydawn.db")
        assert done.code == 2
        assert "BD-119" in done.err
