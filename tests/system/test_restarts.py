"""A run that was killed, begun again as nobody should: the bill knows nothing of it, and what is said leads to the end.

With the key of another account, from a backup that was taken in the middle, as two copies, from another directory, with
the clock set back.  For one provider of each class of evidence, and for all of them in one batch.
"""

import os
from pathlib import Path

import pytest

from tests.system.shop import ROOT, Done, Shop, prompts

TASKS = 24
FIRST = 16  # are wanted of the run that is killed; the others it never saw
WRONG_CLOCK = Path(__file__).with_name("wrongclock")
DAY_S = 86_400
ALL = "toapis,replicate,segmind,wavespeed,kie,together,google-batch"
CLASSES = (*ALL.split(","), ALL)
OFTEN = ("replicate",)
EVERYWHERE = [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in CLASSES]
TOLD_BY_NOBODY = {"kie", "together", "wavespeed"}  # WaveSpeed's list shows that there is something, and not what


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


@pytest.mark.parametrize("night", EVERYWHERE, indirect=True)
def test_with_the_key_of_another_account(night: Night) -> None:
    """REC-9, W17: it proves nothing, so what is open stays so; with the right key again, it is looked up after all."""
    night.kill(fault="reply_read:1")  # nothing is accepted yet: such jobs are waited for, a minute
    doubtful = night.doubtful()
    night.shop.env["BYDAWN_SANDBOX_KEY"] = "sandbox-of-somebody-else"
    done = night.begin_again()
    assert done.code in (3, 6), done.err
    assert "open purchases were made with another key" in done.err
    assert night.shop.verdict("pots").twice == []
    assert night.shop.phases("pots").get("held", 0) == doubtful
    if doubtful:
        assert "bought with another key than the account has now: set that key again, and run again" in done.err

    del night.shop.env["BYDAWN_SANDBOX_KEY"]
    night.ends_well(night.begin_again())


# --- a wrong clock ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("night", EVERYWHERE, indirect=True)
def test_with_the_clock_set_back_a_day(night: Night) -> None:
    """REC-8: what cannot be told by such a clock is held until it is right again."""
    night.kill()
    wrong_clock(night.shop, -DAY_S)
    done = night.begin_again()
    assert done.code in (0, 3), done.err
    assert "this machine's clock is 23 h 59 min behind" in done.err or "clock is 1 d 0 h behind" in done.err
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
