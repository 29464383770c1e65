"""SEC-8: after a real night, the words of a task are in no file, and everything still works."""

import json
from pathlib import Path

from tests.system.shop import Shop, prompts


def left(folder: Path, words: str, *, but: str) -> list[str]:
    """The files that hold the words, or are named so."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name != but and path.is_file() and (words in str(path) or words.encode() in path.read_bytes())
    ]


def test_the_words_of_a_task_are_forgotten_and_the_night_goes_on(shop: Shop) -> None:
    words = "a quite unmistakable teapot"
    wanted = [words, *prompts("forgotten", 4), words]
    table = shop.table("pots.jsonl", wanted)
    run = ("run", table, "--sandbox", "--dedupe", "share")
    assert shop.run(*run).code == 0
    bill, cost = shop.bill(), sum(row.cost_microusd for row in shop.manifest("pots"))
    held = left(shop.folder, words, but=table)
    assert {"bydawn-sandbox.db", "pots-sandbox/manifest.jsonl"} <= set(held)

    assert shop.run("erase", "pots/t1", "--sandbox").code == 2  # nobody was asked
    done = shop.run("erase", "pots/t1", "--sandbox", "--yes", "--blobs", "--json")
    assert done.code == 0, done.err
    (erased,) = done.json()
    assert (erased["tasks"], erased["log_emptied"]) == (2, True)  # t6 shared the purchase
    assert left(shop.folder, words, but=table) == []
    assert "[erased]" in shop.run("show", "pots/t6", "--sandbox").out

    verified = shop.run("verify", "--sandbox", "--json")
    assert verified.code == 0, verified.out
    assert json.loads(verified.out)["erased"] == erased["texts"]
    rows = shop.manifest("pots")
    assert [row.file is None for row in rows] == [True, False, False, False, False, True]
    assert sum(row.cost_microusd for row in rows) == cost

    # The same command buys nothing: the rows are known, and what was bought is bought.
    again = shop.run(*run)
    assert again.code == 0, again.err
    assert shop.bill() == bill
    assert left(shop.folder, words, but=table) == []
    assert shop.run("verify", "--sandbox").code == 0


def test_a_prompt_given_on_the_command_line_can_be_forgotten_too(shop: Shop) -> None:
    words = "an unforgettable jug"
    made = shop.run("image", words, "--sandbox")
    assert made.code == 0, made.err
    (task,) = (json.loads(line) for line in shop.run("tasks", "single", "--sandbox", "--json").out.splitlines())
    done = shop.run("erase", "single", "--id", str(task["id"]), "--sandbox", "--yes")
    assert done.code == 0, done.err
    assert left(shop.folder, words, but="") == []
    assert shop.run("verify", "--sandbox").code == 0
