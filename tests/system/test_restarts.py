"""A run that was killed, begun again as nobody should: the bill knows nothing of it, and what is said leads to the end.

With the key of another account, from a backup that was taken in the middle, as two copies, from another directory, with
the clock set back.  For one provider of each class of evidence, and for all of them in one batch.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.system.shop import ROOT, Done, Shop, prompts, wait

TASKS = 24
FIRST = 16  # are wanted of the run that is killed; the others it never saw
WRONG_CLOCK = Path(__file__).with_name("wrongclock")
DAY_S = 86_400
ALL = "toapis,replicate,segmind,wavespeed,kie,together,google-batch"
CLASSES = (*ALL.split(","), ALL)
TOLD_BY_NOBODY = {"kie", "together", "wavespeed"}  # WaveSpeed's list shows that there is something, and not what


def often(quick: str) -> list[object]:
    """All classes; one of them often."""
    return [name if name == quick else pytest.param(name, marks=pytest.mark.slow) for name in CLASSES]


class Night:
    """A batch whose run was killed with submits in the air."""

    def __init__(self, shop: Shop, provider: str, test: str) -> None:
        self.shop = shop
        self.provider = provider
        table = shop.table("pots.jsonl", prompts(test, TASKS))
        self.command = ("run", table, "--provider", provider, "--max-at-risk", "50", "--sandbox")

    def kill(self, *, fault: str = "") -> None:
        fault = fault or ("reply_read:1" if "google" in self.provider else "reply_read:6")
        killed = self.shop.run(*self.command, "--limit", str(FIRST), fault=fault)
        assert killed.code == -9, killed.err

    def begin_again(self, shop: Shop | None = None) -> Done:
        return (shop or self.shop).run(*self.command)

    def doubtful(self) -> int:
        return sum(self.shop.doubtful(name) for name in self.provider.split(","))

    def ends_well(self, done: Done, shop: Shop | None = None, *, spared: bool = False) -> None:
        """MON-7, LIVE-1: nothing twice; what nobody can tell is held, and bought when that is decided.

        ``spared``: by a ledger that other tasks were bought with as well.
        """
        shop = shop or self.shop
        verdict = shop.verdict("pots")
        assert verdict.twice == [], done.err
        assert spared or verdict.agrees, verdict
        held = [row for row in shop.manifest("pots") if row.status == "held"]
        assert done.code == (3 if held else 0), done.err
        if held:
            assert {row.provider for row in held} <= TOLD_BY_NOBODY, held
            assert "bydawn resolve pots --sandbox" in done.err
            decided = shop.run("resolve", "pots", "--all", "--buy-again", "--sandbox")
            assert decided.code == 0, decided.err
            done = self.begin_again(shop)
            assert done.code == 0, done.err
            assert {each.id for each in shop.verdict("pots").twice} <= {row.id for row in held}
        assert shop.phases("pots") == {"succeeded": TASKS}
        assert shop.strangers("pots") == []
        assert shop.run("verify", "--sandbox", "--ledger", str(shop.ledger)).code == 0


@pytest.fixture
def night(shop: Shop, request: pytest.FixtureRequest) -> Night:
    return Night(shop, request.param, request.node.name)


def wrong_clock(shop: Shop, ahead_s: int) -> None:
    shop.env["PYTHONPATH"] = os.pathsep.join([str(WRONG_CLOCK), os.environ.get("PYTHONPATH", str(ROOT))])
    shop.env["WRONG_CLOCK_S"] = str(ahead_s)


# --- the key of another account -----------------------------------------------------------------------------


@pytest.mark.parametrize("night", often("replicate"), indirect=True)
def test_with_the_key_of_another_account(night: Night) -> None:
    """REC-9, W17: it proves nothing, so what is open stays so; with the right key again, it is looked up after all."""
    night.kill(fault="reply_read:1")  # nothing is accepted yet: such jobs are waited for, a minute
    doubtful = night.doubtful()
    night.shop.env["BYDAWN_SANDBOX_KEY"] = "sandbox-of-somebody-else"
    done = night.begin_again()
    assert done.code in (3, 6), done.err
    assert " made with another key or base URL" in done.err
    assert night.shop.verdict("pots").twice == []
    assert night.shop.phases("pots").get("held", 0) == doubtful
    if doubtful:
        assert "bought with another key than the account has now: set that key again, and run again" in done.err

    del night.shop.env["BYDAWN_SANDBOX_KEY"]
    night.ends_well(night.begin_again())


# --- a wrong clock ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("night", often("toapis"), indirect=True)
def test_with_the_clock_set_back_a_day(night: Night) -> None:
    """REC-8: what cannot be told by such a clock is held until it is right again."""
    night.kill()
    wrong_clock(night.shop, -DAY_S)
    done = night.begin_again()
    assert done.code in (0, 3), done.err
    # By a day, but for the time that has passed since the newest record.
    assert re.search(r"this machine's clock is (1 d 0 h|23 h \d+ min) behind", done.err), done.err
    assert night.shop.verdict("pots").twice == []
    if night.shop.phases("pots").get("held") and {*night.provider.split(",")} & {"replicate", "segmind"}:
        assert "this machine's clock is wrong, or was when they were bought: set it right" in done.err

    wrong_clock(night.shop, 0)
    night.ends_well(night.begin_again())


@pytest.mark.slow
@pytest.mark.parametrize("night", CLASSES, indirect=True)
def test_with_a_clock_that_was_a_day_ahead(night: Night) -> None:
    """REC-8: the recorded times are of tomorrow."""
    wrong_clock(night.shop, DAY_S)
    night.kill()
    wrong_clock(night.shop, 0)
    done = night.begin_again()
    assert "behind the newest record" in done.err
    night.ends_well(done)


# --- a backup that was taken in the middle ------------------------------------------------------------------


def refused(done: Done, why: str = "") -> None:
    assert done.code == 2, done.err
    assert "BD-113" in done.err
    assert "if no other copy goes on: bydawn ledger takeover --sandbox" in done.err
    assert why in done.err


def taken_over(shop: Shop) -> int:
    """Do what the refusal says; gives how many tasks may have been bought elsewhere."""
    taken = shop.run("ledger", "takeover", "--yes", "--json", "--sandbox")
    assert taken.code == 0, taken.err
    (said,) = taken.json()
    queued, adopted = said["queued"], said["adopted"]
    assert isinstance(queued, int)
    assert isinstance(adopted, int)
    assert not queued or "may have been bought with another copy since" in taken.err
    return queued - adopted


def in_the_middle(night: Night, how: str) -> dict[str, bytes]:
    """Copy the ledger while the run goes on, then kill that; gives the files of the copy."""
    run = night.shop.start(*night.command, "--limit", str(FIRST))
    night.shop.wait_phases(run, "pots", "succeeded", "accepted", least=2)
    if how == "backup":
        saved = night.shop.run("ledger", "backup", "kept.db", "--sandbox")
        assert saved.code == 0, saved.err
        kept = {night.shop.ledger.name: (night.shop.folder / "kept.db").read_bytes()}
    else:  # as by cp, of a ledger in use
        names = [night.shop.ledger.name + ending for ending in ("-wal", "")]
        kept = {name: (night.shop.folder / name).read_bytes() for name in names}
    run.kill()
    run.communicate()
    return kept


def put_back(shop: Shop, kept: dict[str, bytes]) -> None:
    for ending in ("", "-wal", "-shm"):
        shop.ledger.with_name(shop.ledger.name + ending).unlink(missing_ok=True)
    for name, data in kept.items():
        (shop.folder / name).write_bytes(data)


# What the last lines of a run may say, and what a user does then.  Lost is what lay in the spool when it was copied.
NEXT = [
    ("bydawn ledger takeover --buy-queued --sandbox", ("ledger", "takeover", "--buy-queued", "--yes")),
    ("bydawn resolve pots --sandbox", ("resolve", "pots", "--all", "--buy-again")),
    ("bydawn retry pots --sandbox", ("retry", "pots")),
]


@pytest.mark.slow
@pytest.mark.parametrize("night", CLASSES, indirect=True)
@pytest.mark.parametrize("how", ["backup", "cp"])
def test_with_a_backup_of_the_middle_of_the_run(night: Night, how: str) -> None:
    """REC-10, W18: the original had gone on, and had bought everything."""
    shop = night.shop
    kept = in_the_middle(night, how)
    finished = night.begin_again()
    assert finished.code in (0, 3), finished.err
    bill = {job["job"] for job in shop.bill()}
    put_back(shop, kept)
    refused(night.begin_again(), "it was made by `bydawn ledger backup`" if how == "backup" else "")
    assert {job["job"] for job in shop.bill()} == bill

    elsewhere = taken_over(shop)
    done = night.begin_again()
    assert {job["job"] for job in shop.bill()} == bill, "what may have been bought is not bought again"
    assert done.code == (5 if elsewhere else 3 if shop.phases("pots").get("held") else 0), done.err
    assert shop.phases("pots").get("queued", 0) == elsewhere
    allowed = elsewhere
    for said, command in NEXT:
        if said in done.err:
            allowed += sum(row.status in ("held", "failed") for row in shop.manifest("pots"))
            followed = shop.run(*command, "--sandbox")
            assert followed.code == 0, followed.err
            done = night.begin_again()
    assert done.code == 0, done.err
    assert len(shop.verdict("pots").twice) <= allowed, "at most what was said"
    assert shop.phases("pots") == {"succeeded": TASKS}
    assert shop.strangers("pots") == []
    assert shop.run("verify", "--sandbox").code == 0


# --- without its results ------------------------------------------------------------------------------------


def test_while_the_results_are_away_nothing_goes_on_that_would_lose_them(shop: Shop) -> None:
    """MON-9, W14: paid images that came inside their answers lie there, and nowhere else."""
    table = shop.table("pots.jsonl", prompts("on a disk that is not mounted", 4))
    command = ("run", table, "--provider", "together", "--sandbox")
    assert shop.run(*command, fault="reply_spooled:2").code == -9
    results, away = shop.folder / "pots-sandbox", shop.folder / "unmounted"
    results.rename(away)
    for _ in range(2):
        gone = shop.run(*command)
        assert (gone.code, "BD-082" in gone.err) == (7, True), gone.err
        assert not results.exists()
    away.rename(results)
    assert shop.run(*command).code in (0, 3)
    assert shop.phases("pots").get("failed", 0) == 0
    assert len(shop.verdict("pots").once) >= 2
    assert shop.verdict("pots").agrees


# --- two copies ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("night", CLASSES, indirect=True)
@pytest.mark.parametrize("first", ["original", "copy"])
def test_as_two_copies(night: Night, tmp_path: Path, first: str) -> None:
    """REC-10: started beside each other, in both orders, and one after the other."""
    night.kill()
    there = tmp_path.with_name(tmp_path.name + "-copy")
    shutil.copytree(night.shop.folder, there)
    with Shop(there, night.shop.url) as copy:
        copy._first_line = night.shop._first_line
        one, two = (night.shop, copy) if first == "original" else (copy, night.shop)
        refused(night.begin_again(copy), "it is another file than the one that was used")
        if one is copy:
            taken_over(copy)
            assert copy.run("ledger", "takeover", "--buy-queued", "--yes", "--sandbox").code == 0
        run = one.start(*night.command)
        refused(night.begin_again(two))
        done = wait(run)
        assert done.code in (0, 3), done.err
        bill = len(one.bill())
        refused(night.begin_again(two))
        assert len(one.bill()) == bill
        night.ends_well(done if one is night.shop else night.begin_again(one), one)


# --- another directory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("night", often("replicate"), indirect=True)
def test_from_another_directory(night: Night, tmp_path: Path) -> None:
    """REC-10: by its name, by a link, from below, and moved whole: it is the same file, and there is nothing to do."""
    night.kill()
    shop, elsewhere = night.shop, tmp_path.with_name(tmp_path.name + "-elsewhere")
    elsewhere.mkdir()
    (elsewhere / "bydawn.toml").touch()
    link = elsewhere / "linked.db"
    link.symlink_to(shop.ledger)
    below = shop.folder / "below"
    below.mkdir()
    ways = [(elsewhere, str(shop.ledger)), (elsewhere, "linked.db"), (below, f"../{shop.ledger.name}")]
    for place, named in ways:
        with Shop(place, shop.url) as there:
            looked = there.run(
                *("run", "pots", "--provider", night.provider, "--limit", "1", "--max-at-risk", "50"),
                *("--ledger", named, "--sandbox"),
            )
            assert looked.code in (0, 3), looked.err
            assert "BD-113" not in looked.err
    moved = elsewhere / "moved"
    os.rename(shop.folder, moved)
    with Shop(moved, shop.url) as there:
        there._first_line = shop._first_line
        night.ends_well(night.begin_again(there), there)
