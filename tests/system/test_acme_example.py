"""The example of a package that adds a provider: installed beside bydawn it is listed, bought from, and explained."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.adapters.packages import install
from tests.system.shop import ROOT, Shop, sandbox

EXAMPLE = ROOT / "examples" / "acme_provider"
PAGE = ROOT / "docs" / "how-to" / "add-a-provider.md"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that every process of the test sees; the example is installed in it."""
    folder = tmp_path / "site"
    points = tomllib.loads((EXAMPLE / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    install(folder, "acme_bydawn", *(f"{name} = {value}" for name, value in points["bydawn.providers"].items()))
    shutil.copytree(EXAMPLE / "acme_bydawn", folder / "acme_bydawn")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def told(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "bydawn.cli.main", *arguments]
    environ = {**os.environ, "XDG_CONFIG_HOME": str(folder), "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{ROOT}"}
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder, env=environ).stdout


def test_it_is_listed_with_its_prices_and_named_by_doctor(site: Path, tmp_path: Path) -> None:
    shown = told(tmp_path, "providers", "list", "acme")
    assert "https://docs.acme.example/images" in shown
    assert "1K $0.03, 2K $0.045" in shown
    listed = [json.loads(line)["provider"] for line in told(tmp_path, "providers", "--json").splitlines()]
    assert {"acme", "kie"} <= set(listed)
    assert "and from packages: acme" in told(tmp_path, "doctor")


def test_a_batch_is_bought_from_it(site: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with sandbox(tmp_path / "sandbox") as url, Shop(work, url) as shop:
        table = shop.table("kettles.jsonl", [f"kettle number {n}" for n in range(10)])
        done = shop.run("run", table, "--provider", "acme", "--sandbox", "--resolution", "2K", "--aspect", "16:9")
        assert done.code == 0, done.err
        assert [row.provider for row in shop.manifest("kettles")] == ["acme"] * 10
        assert shop.strangers("kettles") == []
        verdict = shop.verdict("kettles")
    assert (verdict.agrees, len(verdict.once), verdict.charged_microusd) == (True, 10, 450_000)


def test_after_a_kill_nothing_is_bought_twice(site: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with sandbox(tmp_path / "sandbox") as url, Shop(work, url) as shop:
        table = shop.table("kettles.jsonl", [f"kettle number {n}" for n in range(10)])
        assert shop.run("run", table, "--provider", "acme", "--sandbox", fault="reply_read:5").code != 0
        done = shop.run("run", table, "--provider", "acme", "--sandbox")
        assert done.code == 0, done.err
        assert shop.verdict("kettles").agrees


def test_the_page_shows_the_files_as_they_are() -> None:
    page = PAGE.read_text("utf-8")
    blocks = re.findall(r"^```\w+ (\S+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert {name for name, _ in blocks} == {
        str(path.relative_to(EXAMPLE)) for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".toml")
    }
    assert page.count("```") == 2 * len(blocks)
    for name, block in blocks:
        assert block in (EXAMPLE / name).read_text("utf-8"), f"{name} does not hold:\n{block}"
