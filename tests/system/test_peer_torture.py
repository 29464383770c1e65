"""The comparison of docs/benchmarks/pay-once.md: its judge, its plan, and that it refuses to compare with nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.sandbox.base import Job
from adapters.sandbox.picture import draw, request_digest
from scripts import check_bill, peer_torture
from scripts.peers import cookbook
from scripts.peers.shop import Shop

ROOT = Path(__file__).resolve().parents[2]
PARTI = ROOT / "examples" / "parti-prompts.tsv"
CENT = 10_000


def torture(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "scripts" / "peer_torture.py"), str(PARTI), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def digest(prompt: str) -> bytes:
    return request_digest(prompt, (), "1:1", "1K")


def job(n: int, prompt: str, charged: int = 7 * CENT) -> check_bill.Job:
    state = "succeeded" if charged else "failed"
    return {
        "n": n,
        "job": f"job-{n}",
        "provider": "replicate",
        "digest": digest(prompt).hex(),
        "prompt": prompt,
        "aspect": "1:1",
        "resolution": "1K",
        "charged_microusd": charged,
        "state": state,
    }


def test_the_bill_and_the_images_judge() -> None:
    bill = [job(1, "a"), job(2, "b"), job(3, "a"), job(4, "a", charged=9 * CENT), job(5, "c"), job(6, "d", charged=0)]
    found = peer_torture.judge(["a", "b", "c", "d", "e"], [digest("a"), digest("b")], bill)
    assert (found.tasks, found.charged_microusd) == (5, 37 * CENT)
    assert (found.again, found.again_microusd) == (2, 16 * CENT)
    assert (found.missing, found.missing_paid) == (3, 1)  # c was paid for, d and e were not
    assert found.unpaid == 0


def test_an_image_that_nobody_charged_for_is_seen() -> None:
    assert peer_torture.judge(["a"], [digest("a")], []).unpaid == 1


def test_a_job_that_no_prompt_asks_for_is_a_broken_torture() -> None:
    with pytest.raises(peer_torture.Failed, match="no prompt asks for"):
        peer_torture.judge(["a"], [], [job(1, "another")])


def test_only_whole_pictures_count_as_images(tmp_path: Path) -> None:
    drawing = Job("j", "replicate", "a", "m", "{}", "a pot", (), "1:1", "1K", "jpg", 0, 0, 0, 0)
    picture = draw(drawing, short_side=64)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "0.jpg").write_bytes(picture)
    (tmp_path / "1.jpg").write_bytes(picture[:100])
    (tmp_path / "2.part").write_bytes(picture)
    assert list(peer_torture.drawn(tmp_path)) == [digest("a pot")]


def test_every_peer_gets_the_same_kills() -> None:
    plan = peer_torture.plan(tasks=240, kills=20, provider="replicate", seed=3)
    assert plan == peer_torture.plan(tasks=240, kills=20, provider="replicate", seed=3)
    assert plan != peer_torture.plan(tasks=240, kills=20, provider="replicate", seed=4)
    assert len(plan) == 20
    assert min(kill.nth for kill in plan) >= 1


def test_a_peer_that_repeats_nothing_is_not_done_before_its_last_kill() -> None:
    """The lives before it take fewer requests together than the work needs; here of fifty seeds, on average."""
    needed = 240 * peer_torture.PROVIDERS["replicate"]
    plans = [peer_torture.plan(tasks=240, kills=20, provider="replicate", seed=seed) for seed in range(50)]
    taken = sum(kill.nth for plan in plans for kill in plan) / len(plans)
    assert 0.6 * needed < taken < 0.9 * needed


def test_a_peer_that_is_not_installed_is_told_with_the_command_that_installs_it(tmp_path: Path) -> None:
    bare = tmp_path / "python"  # has no package at all
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    done = torture("--peer", "bydawn,dbos", "--python", str(bare))
    assert done.returncode == 2
    assert f"dbos needs {peer_torture.pinned('replicate')}, and {bare} has none" in done.stderr
    assert "pip install -r scripts/peers/requirements.txt" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--peer", "plain,celery"), "there is no peer named celery; there are plain, cookbook"),
        (("--peer", "bydawn", "--column", "Titel"), "has no column Titel"),
        (("--peer", "bydawn", "--kills", "-1"), "--kills 0 or more"),
        (("--peer", "bydawn", "--limit", "0"), "--limit takes 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(options: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(peer_torture.main([str(PARTI), *options]))
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert told in err
    assert out == ""


def test_a_folder_of_an_earlier_torture_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bydawn" / "images").mkdir(parents=True)
    assert peer_torture.main([str(PARTI), "--peer", "bydawn", "--keep", str(tmp_path)]) == 2
    assert "File exists" in capsys.readouterr().err


def test_the_versions_are_those_that_the_suite_is_run_with() -> None:
    """The official clients must be the same for peers and for the conformance tests."""
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    for provider in peer_torture.PROVIDERS:
        assert peer_torture.pinned(provider) in constraints


@pytest.mark.slow
def test_a_plain_script_pays_twice_where_bydawn_does_not(tmp_path: Path) -> None:
    """MON-2 beside something to compare with; and the table has its columns."""
    done = torture("--peer", "plain,bydawn", "--kills", "3", "--limit", "40", "--json", "--keep", str(tmp_path))
    assert done.returncode == 0, done.stderr
    plain, bydawn = (json.loads(line) for line in done.stdout.splitlines())
    assert (plain["kills"], plain["finding"]["missing"], plain["believes"]) == (3, 0, {"done": 40})
    assert plain["finding"]["again"] >= 1
    assert (bydawn["finding"]["again"], bydawn["finding"]["missing"], bydawn["finding"]["unpaid"]) == (0, 0, 0)
    assert len(list((tmp_path / "bydawn" / "images").rglob("*.jpg"))) == 40


def test_a_line_of_the_table_has_a_cell_for_each_column() -> None:
    finding = peer_torture.Finding(240, 26_730_000, 159, 10_650_000, 3, 2, 0)
    line = peer_torture.row(peer_torture.Result("huey", "replicate", 1, 20, 60.0, finding, {"done": 237}))
    assert line == "| `huey` | 1 | 20 | 240 | $26.73 | $10.65 (159) | 3 | 2 | 237 done |"
    assert {each.count("|") for each in (line, *peer_torture.HEAD.splitlines())} == {10}


def test_the_cookbook_script_leaves_out_what_its_file_has(tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text(json.dumps(["a", "b", "c"]))
    shop = Shop(tmp_path, "replicate")
    cookbook.append(shop, 0, "")
    cookbook.append(shop, 1, "no such model")
    assert cookbook.saved(shop) == [(0, ""), (1, "no such model")]
    assert cookbook.believe(shop) == {"done": 1, "failed": 1, "waiting": 1}
