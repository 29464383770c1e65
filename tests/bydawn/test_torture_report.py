"""What a torture says in the end: a promise that was not kept is named, with its tasks, and never an exit 0."""

import json
import signal
from pathlib import Path

import pytest

from adapters.sandbox.faults import PROFILES
from bydawn.cli.torture import report, summary
from bydawn.torture.judging import Again, Broken, Cut, Verdict
from bydawn.torture.planning import MIXED, Kill, Round, Target
from bydawn.torture.stage import Input, Life, Outcome, Stage

KIE, GOOGLE = Target("kie", "async", "callback"), Target("google", "sync", "none")
OPEN = Cut(3, open=frozenset({"t1", "t2"}))


def verdict(*broken: Broken, again: Again | None = None, twice: int = 0) -> Verdict:
    return Verdict(
        tasks=20,
        jobs=22,
        charged_microusd=1_340_000,
        fruitless_microusd=0,
        twice=tuple(f"t{n}" for n in range(twice)),
        twice_microusd=67_000 * twice,
        held=("t8", "t9"),
        held_billed=1,
        lost=(),
        unfinished=(),
        failed=0,
        broken=broken,
        again=again,
    )


def outcome(target: Target, found: Verdict, *kills: str, late: int = 0) -> Outcome:
    lives = [Life(Kill(at, 1, 10), -signal.SIGKILL, 0.5, OPEN) for at in kills]
    lives += [Life(Kill("random", 9, 20), 0, 0.5, Cut(9))] * late
    played = Round(target.provider, (target,), 20, tuple(life.kill for life in lives if life.kill))
    return Outcome(played, (*lives, Life(None, 3, 0.7, Cut(9))), found)


def told(capsys: pytest.CaptureFixture[str], folder: Path, *outcomes: Outcome) -> str:
    stage = Stage(folder, Input(folder / "in.csv"), chaos="none", profile=PROFILES["none"], seed=0)
    report(stage, outcomes)
    return capsys.readouterr().out


def test_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kie = outcome(KIE, verdict(), "blob_stored", "drain", "machine", late=1)
    google = outcome(GOOGLE, verdict(), "request_sent", "random")
    out = told(capsys, tmp_path, kie, google)
    rows = {line.split()[0]: line.split() for line in out.splitlines()[:4]}
    assert rows["callback"][1:10] == ["kie", "3", "3", "6", "20", "$1.34", "0", "2", "1"]
    assert rows["all"][1:11] == ["google,", "kie", "5", "5", "10", "40", "$2.68", "0", "4", "2"]
    assert (
        "2 kills at fault points; by chance 1 after some request, 1 after SIGTERM, 1 together with bydawn serve" in out
    )
    assert "1 kill came too late: the run had ended" in out
    assert out.endswith("every promise held\n")


def test_what_was_not_kept_is_named_with_the_command_that_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Broken("nothing is paid twice", tuple(f"t{n}" for n in range(7)))
    other = Broken("verify finds nothing", (), "verify ended with a mismatch")
    out = told(capsys, tmp_path, outcome(KIE, verdict(broken, other, twice=7), "random"))
    assert "kie: not kept: nothing is paid twice" in out
    assert f"t4: bydawn show 'torture/t4' --sandbox --ledger {tmp_path}/kie/bydawn-sandbox.db" in out
    assert "and 2 more: t5, t6" in out
    assert "kie: not kept: verify finds nothing (verify ended with a mismatch)" in out
    assert "7 ($0.47)" in out
    assert out.endswith("2 promises not kept\n")


def test_kills_that_nobody_tried_did_not_come_too_late(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that ends as it should not breaks its round off."""
    broken = Broken("every run ends as it should", (), "exit 1")
    planned = tuple(Kill("random", 1, limit) for limit in (5, 10, 15, 20))
    lives = (Life(planned[0], -signal.SIGKILL, 0.5, OPEN), Life(planned[1], 1, 0.5, Cut(3)))
    out = told(capsys, tmp_path, Outcome(Round("kie", (KIE,), 20, planned), lives, verdict(broken)))
    assert "1 after some request; 1 kill came too late: the run had ended" in out


def test_what_buying_again_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = Again(2_000_000, purchases=5, cost_microusd=335_000)
    out = told(capsys, tmp_path, outcome(GOOGLE, verdict(again=again, twice=4), "random"))
    assert "4 ($0.27)" in out
    assert (
        "5 doubtful tasks bought again for $0.34, of it $0.27 for images that were paid already;"
        " at most $2.00 was allowed in a round" in out
    )


def test_the_summary_for_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    broken = Broken("every task ends", ("t1",))
    mixed = Outcome(Round(MIXED, (KIE, GOOGLE), 20, ()), (), verdict(broken))
    summary([outcome(KIE, verdict(), "random"), mixed])
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert found["broken"] == [{"round": MIXED, "promise": "every task ends", "tasks": ["t1"]}]
    assert (found["kills"], found["open_submits"], found["tasks"]) == (1, 2, 40)
    assert (found["held"], found["held_billed"]) == (4, 2)
