"""``bydawn rerun``: everything once more as a new batch, from the ledger alone, and never a third time."""

import csv
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from adapters.registry import codec
from bydawn.importing import append_batch
from bydawn.inputs.past import PastBatch
from ledger.events import BatchOpened
from ledger.journal import Ledger
from ledger.past import past_tasks
from ledger.reader import Reader
from ledger.streams import batch_stream
from scripts import check_bill
from tests.runtime.pictures import picture
from tests.system.shop import Shop, prompts

TASKS = 40


def stock(shop: Shop, name: str, wanted: list[str], **columns: str) -> str:
    """A table with a column that is only carried along."""
    rows = [{"id": f"t{n}", "prompt": text, "Shelf": f"s{n}"} | columns for n, text in enumerate(wanted, 1)]
    (shop.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return name


def texts(shop: Shop, batch: str) -> list[tuple[str, int, str | None, int]]:
    """What the tasks of a batch ask for, as it stands in the ledger: id, row of the table, request, owner."""
    with Reader(shop.ledger) as reader:
        number = reader.batch_by_name(batch)
        assert number is not None
        return [
            (each.queued.id, each.queued.line, each.request, each.queued.owner) for each in past_tasks(reader, number)
        ]


def names(shop: Shop) -> list[str]:
    with Reader(shop.ledger) as reader:
        return [row.name for row in reader.batches()]


def both(shop: Shop, *batches: str) -> check_bill.Verdict:
    """Hold the bill against all these batches together."""
    return check_bill.compare(shop.bill(), [task for batch in batches for task in shop.wanted(batch)])


def test_everything_is_bought_once_more_and_not_a_third_time(shop: Shop) -> None:
    wanted = prompts("once more", 6)
    table = stock(shop, "pots.jsonl", [*wanted, wanted[0]])
    options = ("--aspect", "1:1,4:3", "--dedupe", "share", "--name-template", "{Shelf}-{aspect}")
    assert shop.run("run", table, *options, "--sandbox").code == 0
    (shop.folder / table).unlink()  # the ledger is all that is needed

    done = shop.run("rerun", "pots", "--sandbox")
    assert done.code == 0, done.err
    assert "everything of pots again, as pots-2: 14 tasks" in done.err
    assert texts(shop, "pots-2") == texts(shop, "pots")
    assert both(shop, "pots", "pots-2").agrees
    assert Counter(job["digest"] for job in shop.bill()) == Counter({job["digest"]: 2 for job in shop.bill()})
    assert len(shop.bill()) == 24
    first, second = shop.manifest("pots"), shop.manifest("pots-2")
    assert [(row.id, row.row, row.file, row.shared_with) for row in first] == [
        (row.id, row.row, row.file, row.shared_with) for row in second
    ]
    first_line = (shop.output("pots-2") / "manifest.jsonl").read_text("utf-8").partition("\n")[0]
    assert json.loads(first_line)["Shelf"] == "s1"
    with Reader(shop.ledger) as reader:
        opened = reader.events(stream=batch_stream(2))[0].event
    assert isinstance(opened, BatchOpened)
    assert opened.rerun_of == 1

    again = shop.run("rerun", "pots", "--sandbox")
    assert again.code == 0, again.err
    assert "pots is being done again as pots-2" in again.err
    assert (names(shop), len(shop.bill())) == (["pots", "pots-2"], 24)
    assert shop.run("rerun", "pots", "--new", "--limit", "1", "--sandbox").code == 0
    assert (names(shop), len(shop.bill())) == (["pots", "pots-2", "pots-3"], 25)
    other = shop.run("rerun", "pots-2", "--name", "pots", "--sandbox")
    assert (other.code, "BD-079" in other.err) == (2, True)
    nobody = shop.run("rerun", "jugs", "--sandbox")
    assert (nobody.code, "BD-101" in nobody.err) == (10, True)
    assert shop.run("verify", "--sandbox").code == 0


@pytest.mark.slow
def test_what_was_bought_each_is_bought_each_again(shop: Shop) -> None:
    table = stock(shop, "pots.jsonl", ["the same pot, each"] * 3)
    assert shop.run("run", table, "--dedupe", "off", "--sandbox").code == 0
    dry = shop.run("rerun", "pots", "--dry-run", "--json", "--sandbox").json()
    assert [(line["type"], line.get("images")) for line in dry] == [("rerun", 3), ("plan", 3)]
    assert names(shop) == ["pots"]
    assert shop.run("rerun", "pots", "--sandbox").code == 0
    assert len(shop.bill()) == 6
    assert shop.run("rerun", "pots", "--name", "shared", "--dedupe", "share", "--sandbox").code == 0
    assert len(shop.bill()) == 7


@pytest.mark.parametrize(
    "fault",
    [
        "acceptance_recorded:20",
        pytest.param("intent_recorded:9", marks=pytest.mark.slow),
        pytest.param("completion_recorded:11", marks=pytest.mark.slow),
    ],
)
def test_a_killed_rerun_goes_on_and_pays_nothing_twice(shop: Shop, fault: str) -> None:
    """MON-1, LED-11: the second batch is as safe as the first, whether it goes on by itself or by its name."""
    shop.env["BYDAWN_PROVIDER"] = "replicate"  # its listing tells everything
    table = stock(shop, "pots.jsonl", prompts(f"killed {fault}", TASKS))
    assert shop.run("run", table, "--sandbox").code == 0
    assert shop.run("rerun", "pots", "--sandbox", fault=fault).code == -9
    assert shop.run("rerun", "pots", "--sandbox", fault=f"completion_recorded:{TASKS // 3}").code == -9
    done = shop.run("run", "pots-2", "--sandbox")
    assert done.code == 0, done.err
    assert both(shop, "pots", "pots-2").agrees
    assert len(shop.bill()) == 2 * TASKS
    assert shop.strangers("pots-2") == []
    assert shop.run("verify", "--sandbox").code == 0

    # What the runs did adds up to the batch, although two of them wrote no end.
    told = [line for line in shop.run("log", "pots-2", "--sandbox", "--json").json() if line["type"] == "run"]
    assert [line["state"] for line in told] == ["ended", "killed", "killed"]
    assert sum(int(str(line["run_succeeded"])) for line in told) == TASKS
    assert sum(int(str(line["run_cost_microusd"])) for line in told) == sum(
        row.cost_microusd for row in shop.manifest("pots-2")
    )


@pytest.mark.parametrize("erased", [False, True])
def test_an_import_that_was_cut_short_goes_on_or_begins_anew(shop: Shop, erased: bool) -> None:
    """LED-11: half a rerun is never bought.  Where the batch asks for the same still it goes on, else it is dropped."""
    table = stock(shop, "pots.jsonl", prompts(f"cut short {erased}", 6))
    assert shop.run("run", table, "--sandbox").code == 0
    past = PastBatch(shop.ledger, 1)
    checked = past.check({"kie": codec("kie")})
    with Ledger.create_or_open(shop.ledger, create=False) as ledger:
        ledger.start_epoch(machine="m", pid=1, app_version="0", operator="o", command="rerun", at_us=1)
        folder = str(shop.folder / "pots-2-sandbox")
        append_batch(ledger, 2, BatchOpened(name="pots-2", folder=folder, sandbox=True, operator="o", rerun_of=1))
        ledger.stage(2, past.tasks(), input_digest=checked.digest)

        def killed(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ledger.import_staged(
                2, source="pots", input_digest=checked.digest, at_us=1, share=False, page=4, progress=killed
            )
    by_name = shop.run("run", "pots-2", "--sandbox")
    assert (by_name.code, "bydawn rerun pots --name pots-2 --sandbox" in by_name.err) == (2, True)
    if erased:
        assert shop.run("erase", "pots/t2", "--yes", "--sandbox").code == 0
    takeover = shop.run("ledger", "takeover", "--yes", "--sandbox")
    assert takeover.code == 0, takeover.err
    done = shop.run("rerun", "pots", "--sandbox")
    assert done.code == 0, done.err
    assert ("went on with an import" in done.err) != erased
    assert names(shop) == ["pots", "pots-2"]
    assert [row.id for row in shop.manifest("pots-2")] == [f"t{n}" for n in range(1, 7) if n != 2 or not erased]
    assert len(shop.bill()) == 11 if erased else 12
    assert shop.run("verify", "--sandbox").code == 0


def test_references_are_known_by_their_bytes(shop: Shop) -> None:
    """A file that is not the same any more is named, and nothing is bought for it."""
    pics = shop.folder / "pics"
    pics.mkdir()
    rows = []
    for n in range(1, 5):
        (pics / f"{n}.png").write_bytes(picture("image/png", 30 + n))
        row = {"id": f"t{n}", "prompt": f"{shop.folder.name}: pot {n}", "images": f"pics/{n}.png"}
        rows.append(row | {"aspect_ratio": "1:1"})
    (shop.folder / "pots.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert shop.run("run", "pots.jsonl", "--provider", "replicate", "--sandbox").code == 0
    good = (pics / "2.png").read_bytes()
    (pics / "2.png").write_bytes(picture("image/png", 99))
    (pics / "3.png").unlink()

    refused = shop.run("rerun", "pots", "--sandbox")
    assert (refused.code, "BD-078" in refused.err) == (2, True)
    assert "pics/2.png' is not the file that it was" in refused.err
    assert "pics/3.png' cannot be read: No such file or directory" in refused.err
    assert (names(shop), len(shop.bill())) == (["pots"], 4)

    partly = shop.run("rerun", "pots", "--skip-invalid", "--name", "partly", "--sandbox")
    assert partly.code == 0, partly.err
    assert "left out: 2 tasks that cannot be asked for again" in partly.err
    assert [row.id for row in shop.manifest("partly")] == ["t1", "t4"]
    listed = (shop.output("partly") / "rejected.csv").read_text("utf-8").splitlines()
    assert [cells[0] for cells in csv.reader(listed)] == ["row", "2", "3"]

    (pics / "2.png").write_bytes(good)
    (pics / "3.png").write_bytes(picture("image/png", 33))
    done = shop.run("rerun", "pots", "--new", "--sandbox")
    assert done.code == 0, done.err
    assert texts(shop, "pots-2") == texts(shop, "pots")
    assert len(shop.bill()) == 10
    assert both(shop, "pots", "partly", "pots-2").agrees


def test_copies_that_were_made_to_fit_are_found_where_the_batch_is_now(shop: Shop) -> None:
    noise = Image.frombytes("RGB", (1700, 1500), random.Random(1).randbytes(1700 * 1500 * 3))
    noise.save(shop.folder / "pot.png")  # more than one provider takes
    row = {"id": "t1", "prompt": f"{shop.folder.name}: fitted", "images": "pot.png", "aspect_ratio": "1:1"}
    (shop.folder / "pots.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    shop.env["BYDAWN_PROVIDER"] = "google"
    assert shop.run("run", "pots.jsonl", "--fit-references", "--sandbox").code == 0
    shop.output("pots").rename(shop.folder / "kept")
    assert shop.run("run", "pots", "--to", "kept", "--sandbox").code == 0
    done = shop.run("rerun", "pots", "--sandbox")
    assert done.code == 0, done.err
    assert "kept/references/" in str(texts(shop, "pots-2")[0][2])
    assert shop.strangers("pots-2") == []


def test_prices_are_compared_and_consent_is_asked_anew(shop: Shop) -> None:
    """The budget of the batch before is a cap for the new one (MON-8), and no leave to buy."""
    shop.leave_practice(google="sandbox-of-a-test", together="sandbox-of-a-test")
    table = stock(shop, "pots.jsonl", prompts("prices", 4))
    run = shop.run("run", table, "--provider", "together,google", "--budget", "5", "--attempts", "2")
    assert run.code == 0, run.err
    spent = sum(row.cost_microusd for row in shop.manifest("pots"))
    prices = '[prices.together.nano-banana-2]\n"1K" = 0.09\n[prices.google.nano-banana-2]\n"1K" = 0.09\n'
    (shop.folder / "bydawn.toml").write_text(prices, "utf-8")

    told, plan = shop.run("rerun", "pots", "--dry-run", "--json").json()
    assert (told["batch"], told["rerun_of"], told["images"], told["tasks"]) == ("pots-2", "pots", 4, 4)
    assert told["cost_microusd"] == spent
    assert told["now_expected_microusd"] == plan["expected_microusd"] == 360_000
    found = told["prices"]
    assert isinstance(found, list)
    assert {each["now_microusd"] for each in found} == {90_000}
    assert sum(each["then_microusd"] * each["images"] for each in found) == spent

    refused = shop.run("rerun", "pots")
    assert (refused.code, "BD-072" in refused.err) == (2, True)
    assert "the budget of $5.00 holds" in refused.err
    del shop.env["TOGETHER_API_KEY"]
    gone = shop.run("rerun", "pots")
    assert (gone.code, "BD-041" in gone.err) == (4, True)  # it was named then, so it is missed now
    other = shop.run("rerun", "pots", "--provider", "google,segmind", "--name", "others", "--dry-run")
    assert other.code == 0, other.err
    assert "not bought there now: no key is set (TOGETHER_API_KEY)" in other.out
    assert len(shop.bill()) == 4

    shop.env["TOGETHER_API_KEY"] = "sandbox-of-a-test"
    done = shop.run("rerun", "pots", "--yes")
    assert done.code == 0, done.err
    assert len(shop.bill()) == 8
    with Reader(shop.ledger) as reader:
        settings = reader.batch(2).settings
    assert (settings.budget_microusd, settings.attempts, settings.providers) == (5_000_000, 2, ("together", "google"))


def test_the_budget_of_the_batch_before_is_no_leave_for_the_rest_of_its_rerun_either(shop: Shop) -> None:
    """MON-8: it was one from the second run on, when a part had been agreed to."""
    shop.leave_practice(google="sandbox-of-a-test", together="sandbox-of-a-test")
    table = stock(shop, "pots.jsonl", prompts("the rest", 4))
    assert shop.run("run", table, "--provider", "together", "--budget", "5").code == 0
    assert shop.run("rerun", "pots", "--limit", "2", "--yes").code == 0
    refused = shop.run("rerun", "pots", "--limit", "4")
    assert (refused.code, "BD-072" in refused.err, len(shop.bill())) == (2, True, 6)
    done = shop.run("rerun", "pots", "--limit", "3", "--budget", "1")
    assert done.code == 0, done.err
    assert shop.run("rerun", "pots", "--limit", "4").code == 0  # that budget was given for this batch
    assert len(shop.bill()) == 8


def test_a_plan_of_a_rerun_is_approved_like_any_other(shop: Shop) -> None:
    shop.leave_practice(google="sandbox-of-a-test", together="sandbox-of-a-test")
    table = stock(shop, "pots.jsonl", prompts("approved rerun", 3))
    assert shop.run("run", table, "--provider", "together", "--yes").code == 0
    assert shop.run("rerun", "pots", "--dry-run", "--save", "plan.json").code == 0
    done = shop.run("rerun", "pots", "--approved", "plan.json")
    assert done.code == 0, done.err
    other = shop.run("rerun", "pots-2", "--approved", "plan.json")
    assert (other.code, "BD-077" in other.err) == (2, True)
    assert len(shop.bill()) == 6

    # What that left unbought is planned, approved and bought by its name.
    assert shop.run("plan", "pots-2-2", "--save", "rest.json").code == 0
    done = shop.run("run", "pots-2-2", "--approved", "rest.json")
    assert done.code == 0, done.err
    assert len(shop.bill()) == 9


@pytest.mark.slow
def test_what_was_erased_stays_erased(shop: Shop) -> None:
    """SEC-8: the words of an erased task cannot come back with a rerun."""
    words = "a teapot that nobody shall know"
    table = stock(shop, "pots.jsonl", [*prompts("erased", 3), words])
    assert shop.run("run", table, "--sandbox").code == 0
    (shop.folder / table).unlink()
    assert shop.run("erase", "pots/t4", "--yes", "--sandbox").code == 0
    done = shop.run("rerun", "pots", "--sandbox")
    assert done.code == 0, done.err
    assert "left out: 1 task whose texts were erased" in done.err
    assert [row.id for row in shop.manifest("pots-2")] == ["t1", "t2", "t3"]
    holding = [path for path in Path(shop.folder).rglob("*") if path.is_file() and words.encode() in path.read_bytes()]
    assert holding == []
    for n in (1, 2, 3):
        assert shop.run("erase", f"pots/t{n}", "--yes", "--sandbox").code == 0
    nothing = shop.run("rerun", "pots", "--new", "--sandbox")
    assert (nothing.code, "BD-078" in nothing.err) == (2, True)
    assert names(shop) == ["pots", "pots-2"]
