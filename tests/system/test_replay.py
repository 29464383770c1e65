"""REC-1: a real night in two runs, told again at three moments."""

from tests.system.shop import Shop, prompts


def test_a_night_is_told_again_at_any_moment(shop: Shop) -> None:
    table = shop.table("pots.jsonl", prompts("told again", 12))
    assert shop.run("run", table, "--sandbox", "--limit", "5").code == 0
    told = shop.run("replay", "pots", "--json")
    assert told.code == 0, told.err
    (then,) = told.json()
    assert (then["succeeded"], then["queued"], then["tasks"]) == (5, 7, 12)
    spent = sum(job["charged_microusd"] for job in shop.bill())
    assert then["cost_microusd"] == spent
    assert shop.run("run", table, "--sandbox").code == 0

    # Later events change nothing about an earlier moment.
    at = str(then["seq"])
    assert shop.run("replay", "pots", "--seq", at, "--json").out == told.out
    (first,) = shop.run("replay", "pots", "--seq", "0", "--json").json()
    assert (first["opened"], first["tasks"], first["cost_microusd"]) == (False, 0, 0)
    (last,) = shop.run("replay", "pots", "--json").json()
    assert (last["succeeded"], last["at_risk_microusd"], last["reserved_microusd"]) == (12, 0, 0)
    bill = sum(job["charged_microusd"] for job in shop.bill())
    assert last["cost_microusd"] == bill
    assert isinstance(last["runs"], list)
    assert [run["stopped_by"] for run in last["runs"]] == ["done", "done"]

    difference = shop.run("replay", "pots", "--diff", at, str(last["seq"]), "--json")
    step, *events = difference.json()
    assert step["transitions"] == [{"from": "queued", "to": "succeeded", "tasks": 7}]
    assert step["cost_microusd"] == bill - spent
    assert events[0]["event"] == "runtime.epoch_started.v1"
    assert shop.run("replay", "pots", "--diff", at, str(last["seq"]), "--json").out == difference.out
