"""One ledger, one life (REC-10, W18): copies, restored ledgers and moved ones, held against the bill."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.shop import Done, Shop, kill, prompts, sandbox, wait

TASKS = 20
FILES = ("bydawn-sandbox.db", "bydawn-sandbox.db.key")
# Who shows what another copy bought: of every kind of evidence one, of all of them when there is time.
TOLD_BY = ["replicate", *(pytest.param(name, marks=pytest.mark.slow) for name in ("google-batch", "segmind", "toapis"))]


@contextmanager
def copied(shop: Shop, to: Path) -> Iterator[Shop]:
    """The whole folder once more, as somebody would copy it."""
    shutil.copytree(shop.folder, to)
    with Shop(to, shop.url) as other:
        yield other


def killed_halfway(shop: Shop, test: str, provider: str = "kie") -> tuple[str, ...]:
    """Begin a batch, kill the run when some images are there and others are not yet bought; returns the command."""
    table = shop.table("pots.jsonl", prompts(test, TASKS))
    command = ("run", table, "--provider", provider, "--max-at-risk", "50", "--sandbox")
    assert shop.run(*command, "--limit", str(TASKS - 8), fault="blob_stored:5").code == -9
    return command


def refused(done: Done) -> bool:
    return done.code == 2 and "BD-113" in done.err and "bydawn ledger takeover --sandbox" in done.err


def test_a_copy_buys_nothing_beside_the_original(shop: Shop, tmp_path: Path) -> None:
    """REC-10, MON-7: neither in the copy's folder, nor at the same time."""
    command = killed_halfway(shop, "a copy")
    with copied(shop, tmp_path.with_name(tmp_path.name + "-copy")) as copy:
        before = len(shop.bill())
        assert refused(copy.run(*command))
        assert refused(copy.run(*command)), "a start in the wrong place moves nothing"
        assert len(shop.bill()) == before
        assert copy.run("status", "--sandbox").code == 0
        assert copy.run("verify", "--no-files", "--sandbox").code == 0

        original = shop.start(*command)
        assert refused(copy.run("run", "pots", "--sandbox"))
        done = wait(original)
    assert done.code in (0, 3), done.err
    assert shop.verdict("pots").twice == []


def test_an_older_ledger_in_the_same_place_is_known_by_the_sealed_head(shop: Shop) -> None:
    """REC-10: the very same file by inode, with an older content."""
    command = killed_halfway(shop, "restored")
    older = shop.folder / "older.db"
    saved = shop.run("ledger", "backup", str(older), "--sandbox")
    assert saved.code == 0, saved.err
    shutil.copy(shop.ledger, shop.folder / "raw.db")  # nobody writes: the log is folded away, or comes along
    raw_log = shop.ledger.with_name(shop.ledger.name + "-wal")
    if raw_log.exists():
        shutil.copy(raw_log, shop.folder / "raw.db-wal")
    assert shop.run(*command).code in (0, 3)
    bill = len(shop.bill())

    inode = shop.ledger.stat().st_ino
    shop.ledger.write_bytes((shop.folder / "raw.db").read_bytes())
    if (shop.folder / "raw.db-wal").exists():
        raw_log.write_bytes((shop.folder / "raw.db-wal").read_bytes())
    assert shop.ledger.stat().st_ino == inode
    done = shop.run(*command)
    assert refused(done)
    assert "the results are of a later ledger" in done.err
    assert len(shop.bill()) == bill


@pytest.mark.slow
def test_a_copy_by_cp_that_no_sealed_head_knows_of_is_known_by_the_lock(shop: Shop) -> None:
    """REC-10, W18: put back into the same file, of a run that was killed before it sealed another head."""
    command = killed_halfway(shop, "between two seals")
    files = [shop.ledger, shop.ledger.with_name(shop.ledger.name + "-wal")]
    kept = {file: file.read_bytes() for file in files}
    head = (shop.output("pots") / "sealed-head.json").read_bytes()
    assert shop.run(*command, fault="completion_recorded:2").code == -9
    (shop.output("pots") / "sealed-head.json").write_bytes(head)  # it would have been sealed two seconds later
    bill = len(shop.bill())
    inode = shop.ledger.stat().st_ino
    for file, data in kept.items():
        file.write_bytes(data)
    assert shop.ledger.stat().st_ino == inode

    for _ in range(2):  # that it was opened does not make it the newest
        done = shop.run(*command)
        assert refused(done)
        assert "a later one was in this place" in done.err
    assert len(shop.bill()) == bill
    assert shop.run("ledger", "takeover", "--yes", "--sandbox").code == 0
    assert shop.run(*command).code in (3, 5)
    assert len(shop.bill()) == bill


def test_a_moved_folder_goes_on(shop: Shop, tmp_path: Path) -> None:
    """REC-10: by the same file system's rename nothing is copied."""
    command = killed_halfway(shop, "moved")
    doubtful = shop.doubtful()
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    os.rename(shop.folder, moved)
    with Shop(moved, shop.url) as there:
        there._first_line = shop._first_line
        done = there.run(*command)
        assert done.code == (3 if doubtful else 0), done.err
        assert not shop.folder.exists()
        assert there.output("pots") == moved / "pots-sandbox"
        assert there.run("verify", "--sandbox").code == 0
        verdict = there.verdict("pots")
        assert verdict.agrees, verdict
        assert len(verdict.once) >= TASKS - doubtful


@pytest.mark.slow
def test_what_may_have_been_bought_waits_for_the_operator(shop: Shop, tmp_path: Path) -> None:
    """REC-10, W18: taking over collects what is known; the rest is bought only when told, with its dollars said."""
    command = killed_halfway(shop, "taken over")
    with copied(shop, tmp_path.with_name(tmp_path.name + "-copy")) as copy:
        unasked = copy.run("ledger", "takeover", "--sandbox")
        assert unasked.code == 2
        assert "BD-114" in unasked.err
        assert refused(copy.run(*command))

        taken = copy.run("ledger", "takeover", "--yes", "--json", "--sandbox")
        assert taken.code == 0, taken.err
        (said,) = taken.json()
        queued = said["queued"]
        assert isinstance(queued, int)
        assert queued > 0
        assert said["signs"] == ["file"]
        assert "may have been bought with another copy" in taken.err
        assert "$" in taken.err
        before = {job["job"] for job in shop.bill()}
        collected = copy.run("run", "pots", "--sandbox", "--json")
        assert collected.code == 5, collected.err
        assert collected.json()[-1]["stopped_by"] == "takeover"
        assert "bydawn ledger takeover --buy-queued" not in collected.out
        assert {job["job"] for job in shop.bill()} == before
        assert copy.phases("pots")["queued"] == queued

        # The original shares the results' folder: it finds the head of the other life there.
        assert refused(shop.run(*command))
        assert {job["job"] for job in shop.bill()} == before

        leave = copy.run("ledger", "takeover", "--buy-queued", "--yes", "--sandbox")
        assert leave.code == 0, leave.err
        done = copy.run("run", "pots", "--max-at-risk", "50", "--sandbox")
        assert done.code in (0, 3), done.err
        assert "queued" not in copy.phases("pots") or copy.phases("pots")["queued"] == 0
        assert copy.run("verify", "--no-files", "--sandbox").code == 0
        assert copy.run("ledger", "takeover", "--sandbox").out == "nothing to take over: the ledger is at home here\n"
    assert shop.verdict("pots").twice == []


@pytest.mark.parametrize("provider", TOLD_BY)
def test_what_the_other_copy_bought_is_adopted(shop: Shop, tmp_path: Path, provider: str) -> None:
    """REC-10, REC-5, W18, MON-7: the other copy bought the rest; here it is fetched, and nothing is bought again."""
    command = killed_halfway(shop, f"adopted at {provider}", provider)
    with copied(shop, tmp_path.with_name(tmp_path.name + "-copy")) as copy:
        assert shop.run(*command).code == 0
        assert len(shop.bill()) == TASKS

        taken = copy.run("ledger", "takeover", "--buy-queued", "--yes", "--json", "--sandbox")
        assert taken.code == 0, taken.err
        (said,) = taken.json()
        assert isinstance(said["queued"], int)
        assert said["adopted"] == said["queued"] >= 8
        done = copy.run(*command)
        held = copy.phases("pots").get("held", 0)
        assert done.code == (3 if held else 0), done.err
        assert len(shop.bill()) == TASKS
        # What was in doubt when the copy was made may have been judged, and bought again, by the other one.
        assert {attempt.reason for state in copy.tasks("pots") for attempt in state.attempts if attempt.doubtful} <= {
            "taken_over"
        }
        assert copy.phases("pots") == {"succeeded": TASKS - held} | ({"held": held} if held else {})
        assert copy.strangers("pots") == []
        assert copy.run("verify", "--sandbox").code == 0


@pytest.mark.parametrize("provider", TOLD_BY)
def test_what_two_copies_bought_both_is_surplus(shop: Shop, tmp_path: Path, provider: str) -> None:
    """MON-7, MON-9, MON-10, REC-10: both went on, against the word that was given.  What the other one bought of tasks
    that are settled here is on record with its dollars, and its image is kept."""
    table = shop.table("pots.jsonl", prompts(f"both at {provider}", TASKS))
    command = ("run", table, "--provider", provider, "--sandbox")
    assert shop.run(*command, "--limit", str(TASKS - 5)).code == 0
    with copied(shop, tmp_path.with_name(tmp_path.name + "-copy")) as copy:
        assert copy.run("ledger", "takeover", "--buy-queued", "--yes", "--sandbox").code == 0
        done = copy.run(*command, "--to", str(copy.folder / "pots-sandbox"), "--limit", str(TASKS))
        assert done.code == 0, done.err
        (shop.output("pots") / "sealed-head.json").unlink()  # else the original would know
        assert shop.run(*command).code == 0
        assert len(shop.bill()) == TASKS + 5
    with copied(copy, tmp_path.with_name(tmp_path.name + "-third")) as third:
        taken = third.run("ledger", "takeover", "--yes", "--json", "--sandbox")
        assert taken.code == 0, taken.err
        (said,) = taken.json()
        assert (said["adopted"], said["surplus"]) == (0, 5)
        assert third.run("ledger", "takeover", "--yes", "--sandbox").out.startswith("nothing to take over")
        collected = third.run("run", "pots", "--provider", provider, "--sandbox")
        assert collected.code == 0, collected.err
        assert len(shop.bill()) == TASKS + 5

        (told,) = third.run("status", "pots", "--json", "--sandbox").json()
        assert told["surplus"] == 5
        charged = sum(job["charged_microusd"] for job in shop.bill())
        assert (told["cost_microusd"], told["reserved_microusd"]) == (charged, 0)
        assert told["surplus_microusd"] == charged * 5 // (TASKS + 5), "all cost the same"
        assert isinstance(said["surplus_microusd"], int)
        assert said["surplus_microusd"] * (TASKS + 5) >= charged * 5, "by the ceilings"
        assert third.phases("pots") == {"succeeded": TASKS}
        spares = [each for state in third.tasks("pots") for each in state.attempts if each.phase == "surplus"]
        assert {each.job for state in third.tasks("pots") for each in state.attempts} == {
            job["job"] for job in shop.bill()
        }
        assert len(spares) == 5
        assert third.run("verify", "--sandbox").code == 0  # the spares too hash to what was recorded
        assert third.strangers("pots") == []
    with copied(third, tmp_path.with_name(tmp_path.name + "-fourth")) as fourth:
        again = fourth.run("ledger", "takeover", "--yes", "--json", "--sandbox").json()[0]
        assert (again["adopted"], again["surplus"]) == (0, 0), "once is enough"


def test_what_is_in_a_file_that_is_not_done_is_not_bought_again(tmp_path: Path) -> None:
    """REC-10, MON-1, W18: the other copy's files are known by their names, and not yet what they hold."""
    there = tmp_path / "shop"
    there.mkdir()
    with sandbox(tmp_path / "sandbox", latency=3600.0) as url, Shop(there, url) as shop:
        table = shop.table("pots.jsonl", prompts("silent files", TASKS))
        command = ("run", table, "--provider", "google-batch", "--max-at-risk", "50", "--sandbox")
        assert shop.run(*command, fault="before_intent:1").code == -9
        with copied(shop, tmp_path / "copy") as copy:
            original = shop.start(*command)
            shop.wait_phases(original, "pots", "accepted", least=TASKS)
            kill(original)
            assert len(shop.bill()) == TASKS
            for signs in (True, False):  # the second time the ledger is at home, and the file still not done
                taken = copy.run("ledger", "takeover", "--buy-queued", "--yes", "--json", "--sandbox")
                assert taken.code == 0, taken.err
                (said,) = taken.json()
                assert bool(said["signs"]) is signs
                assert (said["adopted"], bool(said["silent_files"]), said["buys_queued"]) == (0, True, False)
                done = copy.run("run", "pots", "--sandbox", "--json")
                assert (done.code, done.json()[-1]["stopped_by"]) == (5, "takeover")
            assert copy.phases("pots") == {"queued": TASKS}
        assert len(shop.bill()) == TASKS


@pytest.mark.slow
def test_a_backup_of_a_running_ledger_is_whole_and_buys_nothing(shop: Shop, tmp_path: Path) -> None:
    """REC-10, LED-4: taken in the middle of a run, restored after it."""
    table = shop.table("pots.jsonl", prompts("backup", 4 * TASKS))
    command = ("run", table, "--provider", "kie,replicate", "--max-at-risk", "50", "--sandbox")
    run = shop.start(*command)
    shop.wait_phases(run, "pots", "succeeded", least=3)
    there = tmp_path / "kept" / "pots.db"
    saved = shop.run("ledger", "backup", str(there), "--sandbox", "--json")
    assert saved.code == 0, saved.err
    run.kill()  # unless it has ended by now, on a fast machine
    run.communicate()
    bill = len(shop.bill())
    assert saved.json()[0]["key"] is True
    assert there.with_name("pots.db.key").read_bytes() == (shop.folder / FILES[1]).read_bytes()
    assert [oct(file.stat().st_mode & 0o777) for file in sorted(there.parent.iterdir())] == ["0o600", "0o600"]
    assert shop.run("verify", "--no-files", "--ledger", str(there), "--sandbox").code == 0

    again = shop.run("ledger", "backup", str(there), "--sandbox")
    assert again.code == 2
    assert "BD-115" in again.err
    assert shop.run("ledger", "backup", str(shop.ledger), "--force", "--sandbox").code == 2

    # Put back over the very file, within the two seconds in which no newer head may have been sealed.
    shop.ledger.write_bytes(there.read_bytes())
    for ending in ("-wal", "-shm"):
        shop.ledger.with_name(shop.ledger.name + ending).unlink(missing_ok=True)
    done = shop.run(*command)
    assert refused(done)
    assert "bydawn ledger backup" in done.err
    assert len(shop.bill()) == bill
    assert shop.run("ledger", "backup", str(there), "--force", "--sandbox").code == 0


@pytest.mark.slow
def test_the_machine_may_be_named(shop: Shop) -> None:
    """REC-10: where the system's own id changes at every start, as in containers."""
    table = shop.table("pots.jsonl", prompts("machine", 2))
    command = ("run", table, "--sandbox")
    shop.env["BYDAWN_MACHINE"] = "pots-volume"
    assert shop.run(*command).code == 0
    assert shop.run("run", "pots", "--sandbox").code == 0
    shop.env["BYDAWN_MACHINE"] = "another"
    assert refused(shop.run("run", "pots", "--sandbox"))


@pytest.mark.parametrize("arguments", [("backup", "x.db"), ("takeover",)])
def test_without_a_ledger_nothing_is_made(shop: Shop, arguments: tuple[str, ...]) -> None:
    done = shop.run("ledger", *arguments, "--sandbox")
    assert done.code == 10
    assert [file.name for file in shop.folder.iterdir()] == ["bydawn.toml"]
