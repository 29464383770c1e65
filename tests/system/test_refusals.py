"""What stops a run before anything is sent: bad rows, bad keys, a ledger that is held, newer, damaged or unknown."""

import csv
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # re-exported, though not on purpose

from ledger.reader import Reader
from tests.system.shop import Done, Shop, kill, prompts, sandbox

BAD: tuple[tuple[str, Callable[[int], tuple[str, str, str]]], ...] = (
    ("prompt", lambda n: ("", "1:1", "1K")),
    ("aspect_ratio", lambda n: (f"good prompt {n}", "17:23", "1K")),
    ("resolution", lambda n: (f"good prompt {n}", "1:1", "9K")),
    ("prompt", lambda n: ("x" * 100_001, "1:1", "1K")),
)


def write_table_with_bad_rows(path: Path) -> dict[int, str]:
    """Write 1,000 rows, every 25th of them bad; gives row -> column of the bad ones."""
    bad: dict[int, str] = {}
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(("id", "prompt", "aspect_ratio", "resolution"))
        for n in range(1, 1001):
            cells = (f"good prompt {n}", "1:1", "1K")
            if n % 25 == 0:
                column, spoil = BAD[n // 25 % len(BAD)]
                cells = spoil(n)
                bad[n] = column
            out.writerow((f"sku-{n}", *cells))
    return bad


def test_all_bad_rows_are_named_and_nothing_is_sent(shop: Shop) -> None:
    bad = write_table_with_bad_rows(shop.folder / "stock.csv")
    assert len(bad) == 40
    done = shop.run("run", "stock.csv", "--provider", "kie", "--sandbox")
    assert done.code == 2
    assert "40 of 1,000 rows are not usable; nothing was sent" in done.err
    with (shop.folder / "stock-sandbox" / "rejected.csv").open(newline="", encoding="utf-8") as file:
        rejected = list(csv.DictReader(file))
    assert {int(row["row"]): row["column"] for row in rejected} == bad
    assert len(rejected) == 40
    for row in rejected:
        assert row["reason"]
        assert f"row {row['row']}, {row['column']}: {row['reason']}" in done.err
    assert shop.bill() == []
    assert not shop.ledger.exists()


def test_bad_rows_are_left_out_when_told(shop: Shop) -> None:
    write_table_with_bad_rows(shop.folder / "stock.csv")
    done = shop.run("plan", "stock.csv", "--provider", "kie", "--skip-invalid", "--sandbox")
    assert done.code == 0, done.err
    assert "960 tasks" in done.out


# --- keys -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_going_on_at_a_dearer_provider_needs_a_new_consent_and_a_refusal_changes_nothing(shop: Shop) -> None:
    shop.leave_practice()
    table = shop.table("pots.jsonl", prompts("dearer", 8))
    started = ("run", table, "--ledger", "bydawn.db", "--provider", "kie", "--yes")
    assert shop.run(*started, fault="before_intent:1").code == -signal.SIGKILL  # agreed to, nothing bought yet
    refused = shop.run("run", "pots", "--ledger", "bydawn.db", "--provider", "segmind", "--attempts", "9")
    assert refused.code == 2, refused.err
    assert "BD-072" in refused.err
    assert shop.bill() == []
    with Reader(shop.ledger) as reader:
        settings = reader.batch(1).settings
    assert (settings.providers, settings.attempts) == (("kie",), None)
    done = shop.run("run", "pots", "--ledger", "bydawn.db")
    assert done.code == 0, done.err
    assert {job["provider"] for job in shop.bill()} == {"kie"}


@pytest.mark.parametrize("provider", ["kie", "replicate", "segmind"])
def test_a_wrong_key_ends_the_run_before_the_import(shop: Shop, provider: str) -> None:
    shop.leave_practice(**{provider: "sandbox-wrong-key"})
    table = shop.table("pots.jsonl", prompts("wrong key", 5))
    done = shop.run("run", table, "--ledger", "bydawn.db", "--yes")
    assert done.code == 4, done.err
    assert f"{provider}: the key is rejected" in done.err
    assert "sandbox-wrong-key" not in done.err
    assert not shop.ledger.exists()
    assert shop.bill() == []


@pytest.mark.parametrize("provider", ["kie", "segmind"])
def test_an_account_without_credit_ends_the_run_before_the_import(shop: Shop, provider: str) -> None:
    shop.leave_practice(**{provider: "sandbox-broke"})
    table = shop.table("pots.jsonl", prompts("broke", 5))
    done = shop.run("run", table, "--ledger", "bydawn.db", "--yes", "--provider", provider)
    assert done.code == 4, done.err
    assert f"{provider}: no credit is left" in done.err
    assert not shop.ledger.exists()
    assert shop.bill() == []


def test_an_account_that_shows_its_lack_of_credit_late_buys_nothing(shop: Shop) -> None:
    """Replicate tells it by refusing the first purchase: the account is parked, and nothing is charged."""
    shop.leave_practice(replicate="sandbox-broke")
    table = shop.table("pots.jsonl", prompts("broke at replicate", 5))
    done = shop.run("run", table, "--ledger", "bydawn.db", "--yes", "--provider", "replicate")
    assert done.code == 6, done.err
    assert "account replicate was parked: no_credit" in done.err
    assert shop.phases("pots") == {"queued": 5}
    assert shop.bill() == []


def test_missing_keys_are_named_together(shop: Shop) -> None:
    shop.env = {}
    table = shop.table("pots.jsonl", prompts("no keys", 2))
    done = shop.run("run", table, "--ledger", "bydawn.db", "--yes", "--provider", "kie,replicate")
    assert done.code == 4
    assert "KIE_API_KEY" in done.err
    assert "REPLICATE_API_TOKEN" in done.err
    assert not shop.ledger.exists()


def test_consent_is_needed_off_a_terminal(shop: Shop) -> None:
    shop.leave_practice()
    table = shop.table("pots.jsonl", prompts("no consent", 5))
    done = shop.run("run", table, "--ledger", "bydawn.db")
    assert done.code == 2, done.err
    assert "--yes" in done.err
    assert shop.bill() == []


# --- ledgers ----------------------------------------------------------------------------------------------


def test_an_unknown_batch(shop: Shop) -> None:
    done = shop.run("run", "mugs", "--sandbox")
    assert done.code == 10
    assert "there is no batch named mugs" in done.err


def test_a_second_process_on_the_same_ledger_leaves(tmp_path: Path) -> None:
    with sandbox(tmp_path / "sandbox", latency=3600) as url, Shop(tmp_path, url) as shop:
        table = shop.table("pots.jsonl", prompts("second process", 12))
        first = shop.start("run", table, "--sandbox")
        shop.wait_phases(first, "pots", "accepted", least=1)
        second = shop.run("run", table, "--sandbox")
        kill(first)
    assert second.code == 11, second.err
    assert "another bydawn is running on this ledger" in second.err


def a_finished_batch(shop: Shop) -> str:
    table = shop.table("pots.jsonl", prompts("finished", 3))
    done = shop.run("run", table, "--sandbox")
    assert done.code == 0, done.err
    return table


def refused_ledger(shop: Shop, table: str) -> Done:
    """Run again, and check that nothing was bought or changed."""
    before = shop.ledger.read_bytes()
    bill = shop.bill()
    done = shop.run("run", table, "--sandbox")
    assert shop.bill() == bill
    assert shop.ledger.read_bytes() == before
    return done


def test_a_newer_ledger_is_not_written(shop: Shop) -> None:
    table = a_finished_batch(shop)
    with sqlite3.connect(shop.ledger) as db:
        db.execute("PRAGMA user_version = 99")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    done = refused_ledger(shop, table)
    assert done.code == 12, done.err
    assert "newer" in done.err


def test_a_damaged_ledger_is_not_written(shop: Shop) -> None:
    table = a_finished_batch(shop)
    with sqlite3.connect(shop.ledger) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    whole = shop.ledger.read_bytes()
    shop.ledger.write_bytes(b"not a ledger at all".ljust(4096, b".") + whole[4096:])
    done = refused_ledger(shop, table)
    assert done.code == 12, done.err
