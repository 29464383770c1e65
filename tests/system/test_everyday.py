"""What users rely on every day: the same command twice, parts of a batch, equal rows, JSON, real accounts."""

import json

import pytest

from ledger.reader import Reader
from tests.system.shop import Shop, prompts

SUMMARY = {
    *("batch", "tasks", "succeeded", "failed", "held", "cancelled", "rejected", "flagged", "shared", "reused"),
    *("cost_microusd", "run_cost_microusd", "at_risk_microusd", "duplicates_paid", "surplus", "surplus_microusd"),
    *("lost", "lost_microusd", "stopped_by", "seconds"),
}


def test_the_same_command_twice_buys_once(shop: Shop) -> None:
    table = shop.table("pots.jsonl", prompts("twice the same", 10))
    assert shop.run("run", table, "--sandbox").code == 0
    files = {path: path.stat().st_mtime_ns for path in (shop.output("pots") / "blobs").rglob("*") if path.is_file()}
    bill = shop.bill()
    for command in (("run", table, "--sandbox"), ("run", "pots", "--sandbox")):
        done = shop.run(*command)
        assert done.code == 0, done.err
        assert shop.bill() == bill
    assert len(files) == 10
    assert all(path.stat().st_mtime_ns == at for path, at in files.items())


def test_a_part_first_and_then_the_rest(shop: Shop) -> None:
    table = shop.table("pots.jsonl", prompts("a part", 30))
    first = shop.run("run", table, "--sandbox", "--limit", "8", "--json")
    assert first.code == 0, first.err
    assert [row.status for row in shop.manifest("pots")] == ["succeeded"] * 8 + ["queued"] * 22
    assert len(shop.bill()) == 8
    assert shop.run("run", table, "--sandbox", "--limit", "8").code == 0
    assert len(shop.bill()) == 8  # the same part each time
    rest = shop.run("run", table, "--sandbox")
    assert rest.code == 0, rest.err
    verdict = shop.verdict("pots")
    assert verdict.agrees, verdict
    assert len(verdict.once) == 30


def test_a_sample_is_spread_and_stays_the_same(shop: Shop) -> None:
    table = shop.table("pots.jsonl", prompts("a sample", 30))
    assert shop.run("run", table, "--sandbox", "--sample", "5").code == 0
    chosen = [n for n, row in enumerate(shop.manifest("pots"), 1) if row.status == "succeeded"]
    assert len(chosen) == 5
    assert chosen[-1] - chosen[0] >= 20
    assert shop.run("run", "pots", "--sandbox", "--sample", "5").code == 0
    assert len(shop.bill()) == 5
    planned = shop.run("plan", "pots", "--sandbox", "--sample", "20%")
    assert "--sample: 1 task of 25" in planned.out
    assert shop.run("run", "pots", "--sandbox", "--sample", "16.5%").code == 0  # five of thirty, rounded up
    assert len(shop.bill()) == 5
    assert shop.run("run", "pots", "--sandbox", "--sample", "20%").code == 0
    assert len(shop.bill()) > 5
    with Reader(shop.ledger) as reader:
        assert (reader.batch(1).settings.sample, reader.batch(1).settings.sample_ppm) == (0, 200_000)
    assert shop.run("run", "pots", "--sandbox", "--sample", "5").code == 0
    with Reader(shop.ledger) as reader:
        assert (reader.batch(1).settings.sample, reader.batch(1).settings.sample_ppm) == (5, 0)


def test_equal_rows_are_bought_once_and_shared(shop: Shop) -> None:
    wanted = [*prompts("equal", 5), *prompts("equal", 5)]
    table = shop.table("pots.jsonl", wanted)
    done = shop.run("run", table, "--sandbox")
    assert done.code == 2, done.err  # half of the rows: usually a forgotten column
    assert "--dedupe" in done.err
    assert shop.bill() == []

    done = shop.run("run", table, "--sandbox", "--dedupe", "share", "--json")
    assert done.code == 0, done.err
    assert done.json()[-1]["shared"] == 5
    rows = shop.manifest("pots")
    assert [row.status for row in rows] == ["succeeded"] * 10
    assert [row.shared_with for row in rows] == [None] * 5 + ["t1", "t2", "t3", "t4", "t5"]
    assert all(row.cost_microusd == 0 for row in rows[5:])
    assert len(shop.bill()) == 5
    assert shop.verdict("pots").agrees
    assert shop.strangers("pots") == []


def test_equal_rows_are_each_bought_when_told(shop: Shop) -> None:
    table = shop.table("pots.jsonl", [*prompts("each", 3), *prompts("each", 3)])
    planned = shop.run("plan", table, "--sandbox", "--dedupe", "off", "--json")
    assert planned.json()[-1]["images"] == 6
    done = shop.run("run", table, "--sandbox", "--dedupe", "off")
    assert done.code == 0, done.err
    assert len(shop.bill()) == 6
    verdict = shop.verdict("pots")
    assert verdict.agrees, verdict
    assert len(verdict.once) == 6


def test_new_rows_are_added_and_only_they_are_bought(shop: Shop) -> None:
    wanted = prompts("grown", 6)
    assert shop.run("run", shop.table("pots.jsonl", wanted[:4]), "--sandbox").code == 0
    assert shop.run("run", shop.table("pots.jsonl", wanted), "--sandbox").code == 0
    verdict = shop.verdict("pots")
    assert verdict.agrees, verdict
    assert len(verdict.once) == 6


def test_every_line_of_json_mode_is_json(shop: Shop) -> None:
    table = shop.table("pots.jsonl", prompts("json", 6))
    done = shop.run("run", table, "--sandbox", "--json")
    assert done.code == 0, done.err
    lines = done.json()
    summary = lines[-1]
    assert summary["type"] == "summary"
    assert set(summary) - {"type"} >= SUMMARY
    results = [line for line in lines if line["type"] == "result"]
    assert sorted(str(line["id"]) for line in results) == [f"t{n}" for n in range(1, 7)]
    assert all(line["status"] == "succeeded" for line in results)
    assert summary["cost_microusd"] == sum(job["charged_microusd"] for job in shop.bill())


def test_json_mode_tells_an_error_as_json(shop: Shop) -> None:
    done = shop.run("run", "mugs", "--sandbox", "--json")
    assert done.code == 10
    error = json.loads(done.err.splitlines()[-1])
    assert error["type"] == "error"
    assert error["exit_code"] == 10


@pytest.mark.slow
def test_base_urls_send_a_batch_to_any_server_of_that_format(shop: Shop) -> None:
    """Without ``--sandbox``: real accounts, whose base URLs carry a path prefix."""
    shop.leave_practice()
    providers = ("kie", "replicate", "segmind")
    wanted = (
        {"id": f"t{n}", "prompt": prompt, "provider": providers[n % 3]}
        for n, prompt in enumerate(prompts("elsewhere", 9))
    )
    (shop.folder / "pots.jsonl").write_text("".join(json.dumps(row) + "\n" for row in wanted))
    done = shop.run("run", "pots.jsonl", "--ledger", "bydawn.db", "--yes", "--json")
    assert done.code == 0, done.err
    assert done.json()[-1]["succeeded"] == 9
    assert [row.provider for row in shop.manifest("pots")] == [*providers] * 3
    verdict = shop.verdict("pots")
    assert verdict.agrees, verdict
    assert shop.strangers("pots") == []
    checked = shop.run("verify", "--ledger", "bydawn.db")
    assert checked.code == 0, checked.out
