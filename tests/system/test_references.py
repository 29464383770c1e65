"""Batches with local reference images: each task gets its own, each file goes to an account once, whatever happens."""

import json
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from ledger.events import ReferenceUploaded
from ledger.reader import Reader
from ledger.streams import account_stream
from tests.runtime.pictures import picture
from tests.system.shop import Shop

TASKS = 20


def stock(shop: Shop, name: str, *, tasks: int = TASKS, each_from: Sequence[str] = ("",)) -> str:
    """A table whose rows have two local references each, one that all share and one of their own.

    ``each_from``: providers that the rows name, one after the other.
    """
    folder = shop.folder / "pics"
    folder.mkdir(exist_ok=True)
    (folder / "logo.png").write_bytes(picture("image/png", 30))
    rows = []
    for n in range(1, tasks + 1):
        (folder / f"{n}-front.webp").write_bytes(picture("image/webp", 30 + n))
        row = {"id": f"t{n}", "prompt": f"{shop.folder.name}: pot {n}", "images": f"pics/logo.png|pics/{n}-*"}
        row |= {"provider": each_from[n % len(each_from)]}
        rows.append(row | {"aspect_ratio": "1:1"})  # not every provider follows the first reference
    (shop.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return name


def uploads(shop: Shop) -> Counter[tuple[str, str]]:
    """How often each file was uploaded to each account."""
    with Reader(shop.ledger) as reader:
        names: dict[int, str] = {account_stream(row.n): row.name for row in reader.accounts()}
        found = [(row.stream, row.event) for row in reader.events(limit=1_000_000)]
    return Counter((names[stream], event.sha256) for stream, event in found if isinstance(event, ReferenceUploaded))


def command(table: str, providers: Sequence[str]) -> tuple[str, ...]:
    return ("run", table, "--provider", ",".join(providers), "--max-at-risk", "50", "--sandbox")


def all_is_well(shop: Shop, *, tasks: int = TASKS) -> None:
    verdict = shop.verdict("pots")
    assert verdict.agrees, verdict
    assert len(verdict.once) == tasks
    assert shop.strangers("pots") == []  # by the pixels: its prompt, its references
    checked = shop.run("verify", "--sandbox")
    assert checked.code == 0, checked.out


def test_a_batch_with_files_over_an_uploading_and_an_inline_provider(shop: Shop) -> None:
    both = ("replicate", "apertis")
    done = shop.run(*command(stock(shop, "pots.jsonl", each_from=both), both))
    assert done.code == 0, done.err
    all_is_well(shop)
    bought = Counter(row.provider for row in shop.manifest("pots"))
    assert bought == {"replicate": TASKS // 2, "apertis": TASKS // 2}
    sent = uploads(shop)
    assert {account for account, _ in sent} == {"replicate"}
    assert set(sent.values()) == {1}
    assert len(sent) == 1 + TASKS // 2


@pytest.mark.parametrize(
    ("fault", "provider"),
    [("intent_recorded:9", "replicate"), pytest.param("reply_read:5", "toapis", marks=pytest.mark.slow)],
)
def test_a_killed_batch_uploads_nothing_twice(shop: Shop, fault: str, provider: str) -> None:
    run = command(stock(shop, "pots.jsonl"), (provider,))
    assert shop.run(*run, fault=fault).code == -9
    before = uploads(shop)
    assert before
    done = shop.run(*run)
    assert done.code == 0, done.err
    all_is_well(shop)
    sent = uploads(shop)
    assert set(sent.values()) == {1}
    assert len(sent) == 1 + TASKS


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("provider", ["kie", "newportai", "replicate", "segmind", "toapis", "wavespeed"])
def test_every_provider_that_takes_uploads(shop: Shop, provider: str, seed: int) -> None:
    run = command(stock(shop, "pots.jsonl"), (provider,))
    point = random.Random(seed).choice(("before_intent", "acceptance_recorded", "result_seen", "completion_recorded"))
    assert shop.run(*run, fault=f"{point}:{4 * seed}").code == -9
    assert shop.run(*run).code in (0, 3)
    assert shop.verdict("pots").agrees
    assert shop.strangers("pots") == []
    assert set(uploads(shop).values()) == {1}


def test_a_file_that_changed_stops_its_task_and_buys_nothing_for_it(shop: Shop) -> None:
    table = stock(shop, "pots.jsonl", tasks=6)
    limited = shop.run(*command(table, ("replicate",)), "--limit", "2")
    assert limited.code == 0, limited.err
    (shop.folder / "pics" / "4-front.webp").write_bytes(picture("image/webp", 99))
    (shop.folder / "pics" / "5-front.webp").unlink()
    done = shop.run(*command(table, ("replicate",)))
    assert done.code == 3, done.err
    assert {row.id: row.error for row in shop.manifest("pots") if row.status == "failed"} == {
        "t4": "input_changed",
        "t5": "input_changed",
    }
    assert len(shop.bill()) == 4
    assert len(uploads(shop)) == 5
    (shop.folder / "pics" / "5-front.webp").write_bytes(picture("image/webp", 35))
    assert shop.run("retry", "pots", "--sandbox").code == 0
    assert shop.run("run", "pots", "--sandbox").code == 3
    assert [row.id for row in shop.manifest("pots") if row.status == "failed"] == ["t4"]
    assert len(shop.bill()) == 5


def test_files_that_were_moved_are_the_same_request(shop: Shop) -> None:
    table = stock(shop, "pots.jsonl", tasks=4)
    assert shop.run(*command(table, ("replicate",)), "--limit", "1").code == 0
    (shop.folder / "pics").rename(shop.folder / "elsewhere")
    path = shop.folder / table
    path.write_text(path.read_text("utf-8").replace("pics/", "elsewhere/"), "utf-8")
    done = shop.run(*command(table, ("replicate",)))
    assert done.code == 0, done.err
    assert [row.status for row in shop.manifest("pots")] == ["succeeded"] * 4
    assert len(shop.bill()) == 4
    assert set(uploads(shop).values()) == {1}


@pytest.mark.slow
def test_a_folder_that_was_moved_as_a_whole_goes_on(shop: Shop) -> None:
    """The table is the same to the byte, so nothing of it would be read again."""
    home = shop.folder / "here"
    home.mkdir()
    table = stock(shop, "pots.jsonl", tasks=4)
    (shop.folder / table).rename(home / table)
    (shop.folder / "pics").rename(home / "pics")
    assert shop.run(*command(f"here/{table}", ("replicate",)), "--limit", "1").code == 0
    home.rename(shop.folder / "there")
    done = shop.run(*command(f"there/{table}", ("replicate",)))
    assert done.code == 0, done.err
    assert len(shop.bill()) == 4


def test_the_plan_tells_of_local_files_and_who_takes_none(shop: Shop) -> None:
    table = stock(shop, "pots.jsonl", tasks=3)
    files = [shop.folder / "pics" / name for name in ("logo.png", "1-front.webp", "2-front.webp", "3-front.webp")]
    size = sum(file.stat().st_size for file in files)
    plan = shop.run("plan", table, "--provider", "replicate,apertis,together", "--sandbox")
    assert plan.code == 0, plan.err
    assert f"4 local reference files, {size:,} bytes" in plan.out
    assert "replicate: uploaded once each, which is free" in plan.out
    assert "apertis: sent inside each request" in plan.out
    assert "together cannot take 3 tasks: reference 1: Together" in plan.out
    told = shop.run("plan", table, "--provider", "replicate", "--sandbox", "--json").json()[-1]
    assert (told["local_files"], told["local_bytes"]) == (4, size)
    assert shop.bill() == []
