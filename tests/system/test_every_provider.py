"""Every provider buys whole batches in the sandbox: right pictures and books, killed, in storms, dearer than told."""

import hashlib
import json
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from adapters.base import Callbacks
from adapters.registry import PROVIDERS, codec
from ledger.folds import TaskState
from tests.ports import free_port
from tests.system.shop import Settled, Shop, kill, prompts, sandbox, wait

SYNCHRONOUS = tuple(name for name in PROVIDERS if codec(name).capabilities.shape.value == "sync")
ASPECTS = ("1:1", "9:16", "16:9")
PARTI = Path(__file__).parents[2] / "examples" / "parti-prompts.tsv"
TASKS = 40
RISK = ("--max-at-risk", "100")  # held attempts, and the submits of synchronous providers, fill the default


def model_of(provider: str) -> str:
    """What the provider serves: the usual model where it has it."""
    record = codec(provider).capabilities
    return "nano-banana-2" if record.model("nano-banana-2") else record.models.value[0].name


def row(provider: str, name: str, prompt: str, **more: object) -> str:
    record = codec(provider).capabilities.model(model_of(provider))
    assert record is not None
    resolution = "1K" if "1K" in record.resolutions else record.resolutions[0]
    fields = {"id": name, "prompt": prompt, "provider": provider, "model": record.name, "resolution": resolution}
    return json.dumps({**fields, **more})


def table(shop: Shop, name: str, rows: list[str]) -> str:
    (shop.folder / name).write_text("".join(line + "\n" for line in rows), "utf-8")
    return name


def batch_of(shop: Shop, provider: str, what: str, count: int = TASKS) -> str:
    rows = [
        row(provider, f"t{n}", prompt, aspect_ratio=ASPECTS[n % len(ASPECTS)])
        for n, prompt in enumerate(prompts(f"{what} at {provider}", count), 1)
    ]
    return table(shop, "pots.jsonl", rows)


def check_pictures(shop: Shop) -> None:
    """Each image is its task's own, of the aspect that was asked for."""
    assert shop.strangers("pots") == []
    wanted = {line["id"]: line for line in map(json.loads, (shop.folder / "pots.jsonl").read_text().splitlines())}
    for settled in done(shop):
        if "blank" in settled.flags:
            continue
        assert settled.flags == (), settled
        width, height = (int(part) for part in str(wanted[settled.id]["aspect_ratio"]).split(":"))
        assert settled.width is not None
        assert settled.height is not None
        assert abs(Fraction(settled.width, settled.height) / Fraction(width, height) - 1) < Fraction(6, 100), settled


def done(shop: Shop) -> list[Settled]:
    return [settled for settled in shop.manifest("pots") if settled.status == "succeeded"]


def check_books(shop: Shop) -> None:
    """MON-7, MON-10: what the bill charges for a request is what the ledger captured, to the micro-dollar; only where a
    doubt is on record may there be more, and no more than was reserved."""
    digests = {task.id: task.digest for task in shop.wanted("pots")}
    charged: dict[str, int] = defaultdict(int)
    for job in shop.bill():
        assert job["digest"] in digests.values(), job
        charged[job["digest"]] += job["charged_microusd"]
    for state in shop.tasks("pots"):
        assert state.queued is not None
        captured = sum(attempt.cost_microusd or 0 for attempt in state.attempts if attempt.phase != "unknown")
        reserved = sum(attempt.ceiling_microusd for attempt in state.attempts if attempt.phase == "unknown")
        bill = charged[digests[state.queued.id]]
        assert captured <= bill <= captured + reserved, state


def doubtful(states: list[TaskState]) -> int:
    return sum(attempt.phase in ("intended", "ambiguous") for state in states for attempt in state.attempts)


def test_one_run_over_all_of_them(tmp_path: Path) -> None:
    with sandbox(tmp_path / "sandbox") as url, Shop(tmp_path, url) as shop:
        rows = [
            row(provider, f"{provider}-{n}", prompt, aspect_ratio=ASPECTS[n % len(ASPECTS)])
            for provider in PROVIDERS
            for n, prompt in enumerate(prompts(f"all of them: {provider}", 6))
        ]
        name = table(shop, "pots.jsonl", rows)
        ended = shop.run("run", name, "--provider", ",".join(PROVIDERS), *RISK, "--sandbox")
        assert ended.code == 0, ended.err
        assert {settled.provider for settled in done(shop)} == set(PROVIDERS)
        assert len(done(shop)) == 6 * len(PROVIDERS)
        check_pictures(shop)
        check_books(shop)
        assert shop.run("verify", "--sandbox").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("provider", PROVIDERS)
def test_220_of_the_parti_prompts(shop: Shop, provider: str) -> None:
    command = ("run", str(PARTI), "--map", "prompt=Prompt", "--limit", "220", "--provider", provider, *RISK)
    ended = shop.run(*command, "--sandbox", timeout=600)
    assert ended.code == 0, ended.err
    rows = [settled for settled in shop.manifest("parti-prompts") if settled.status == "succeeded"]
    assert len(rows) == 220
    assert all(settled.flags == () for settled in rows)
    assert shop.strangers("parti-prompts") == []
    verdict = shop.verdict("parti-prompts")
    assert verdict.agrees, verdict
    assert len(verdict.once) == 220


@pytest.mark.slow
@pytest.mark.parametrize("provider", PROVIDERS)
def test_with_one_reference_and_with_the_most_it_takes(shop: Shop, provider: str) -> None:
    record = codec(provider).capabilities
    model = record.model(model_of(provider))
    assert model is not None
    rows = []
    for n, count in enumerate((1, 1, model.max_references, model.max_references)):
        images = [reference(shop, f"{n}-{k}", urls=record.references.value.urls) for k in range(count)]
        fields = {"images": images, "aspect_ratio": "1:1"}
        rows.append(row(provider, f"t{n}", f"with {count} references at {provider}: {n}", **fields))
    name = table(shop, "pots.jsonl", rows)
    ended = shop.run("run", name, "--provider", provider, *RISK, "--sandbox")
    assert ended.code == 0, ended.err
    assert len(done(shop)) == 4
    check_pictures(shop)  # by prompt and references
    check_books(shop)


def reference(shop: Shop, name: str, *, urls: bool) -> str:
    """A picture of its own: an address where the provider takes one, else a file."""
    if urls:
        return f"https://refs.example/{name}.png"
    path = shop.folder / f"{name}.png"
    colour = tuple(hashlib.sha256(name.encode()).digest()[:3])
    Image.new("RGB", (32, 32), colour).save(path)
    return path.name


@pytest.mark.slow
@pytest.mark.parametrize("provider", [name for name in PROVIDERS if isinstance(codec(name), Callbacks)])
def test_with_callbacks(shop: Shop, provider: str) -> None:
    """REC-7: what the provider calls back about is read with our key; nothing is lost and nothing bought twice."""
    name = batch_of(shop, provider, "called back")
    url = f"http://127.0.0.1:{free_port()}"
    ended = shop.run("run", name, "--provider", provider, "--webhook-url", url, *RISK, "--sandbox")
    assert ended.code == 0, ended.err
    assert f"callbacks: {provider}" in ended.err
    assert all(attempt.callback for state in shop.tasks("pots") for attempt in state.attempts)
    assert len(done(shop)) == TASKS
    check_pictures(shop)
    check_books(shop)


@pytest.mark.slow
@pytest.mark.parametrize("provider", PROVIDERS)
def test_killed_while_at_least_five_attempts_are_open(shop: Shop, provider: str) -> None:
    """MON-2, REC-4, REC-5, LIVE-1, LIVE-2, W2 to W14."""
    name = batch_of(shop, provider, "killed")
    command = ("run", name, "--provider", provider, *RISK, "--sandbox")
    process = shop.start(*command)
    shop.wait_phases(process, "pots", "succeeded", least=1)
    shop.wait_phases(process, "pots", "intended", "accepted", "ambiguous", "ready", least=5)
    kill(process)
    wait(process)
    in_doubt = doubtful(shop.tasks("pots"))
    ended = shop.run(*command)
    held = {settled.id for settled in shop.manifest("pots") if settled.status == "held"}
    assert ended.code == (3 if held else 0), ended.err
    assert len(held) <= in_doubt
    if codec(provider).capabilities.recovery in ("lookup", "listing"):
        assert provider == "wavespeed" or held == set()  # whose listing shows no input: it proves absence only
    verdict = shop.verdict("pots")
    assert verdict.agrees, verdict
    if held:
        assert shop.run("resolve", "pots", "--all", "--buy-again", "--sandbox").code == 0
        again = shop.run(*command)
        assert again.code == 0, again.err
        assert {each.id for each in shop.verdict("pots").twice} <= held
    assert len(done(shop)) == TASKS
    check_pictures(shop)
    assert shop.run("verify", "--sandbox").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("provider", PROVIDERS)
def test_in_a_storm_every_task_ends_and_the_books_agree(tmp_path: Path, provider: str) -> None:
    """LIVE-1, MON-7, MON-10."""
    with sandbox(tmp_path / "sandbox", chaos="storm") as url, Shop(tmp_path, url) as shop:
        name = batch_of(shop, provider, "storm")
        ended = shop.run("run", name, "--provider", provider, *RISK, "--sandbox", timeout=300)
        assert ended.code in (0, 3), ended.err
        rows = shop.manifest("pots")
        assert {settled.status for settled in rows} <= {"succeeded", "failed", "held"}
        assert all(settled.error for settled in rows if settled.status != "succeeded")
        check_pictures(shop)
        check_books(shop)
        assert shop.run("verify", "--sandbox").code == 0


@pytest.mark.parametrize("provider", ["kie", "segmind"])
def test_a_price_that_rose_overnight_is_recorded_and_parks_the_account(tmp_path: Path, provider: str) -> None:
    """MON-8: the provider says what it charged, and that is above the ceiling."""
    with sandbox(tmp_path / "sandbox", price_factor=2.0) as url, Shop(tmp_path, url) as shop:
        name = batch_of(shop, provider, "dearer", 5 * TASKS)
        ended = shop.run("run", name, "--provider", provider, "--sandbox")
        assert ended.code == 6, ended.err
        assert f"account {provider} was parked: overcharge" in ended.err
        check_books_of_what_came(shop)
        assert len(done(shop)) < 5 * TASKS
        assert f"overcharge: {provider} charged $" in shop.run("status", "--sandbox").out
        assert "overcharge of $" in shop.run("show", f"pots/{done(shop)[0].id}", "--sandbox").out


def test_a_price_that_is_quoted_beforehand_is_the_price_of_the_run(tmp_path: Path) -> None:
    """MON-8: ceilings follow what WaveSpeed says it costs today, so what is charged is no surprise."""
    with sandbox(tmp_path / "sandbox", price_factor=1.5) as url, Shop(tmp_path, url) as shop:
        name = batch_of(shop, "wavespeed", "quoted")
        command = (name, "--provider", "wavespeed", "--sandbox")
        told = shop.run("plan", *command)
        assert "a run asks for today's prices first: wavespeed" in told.out
        assert "expected $2.80" in told.out
        told = shop.run("plan", *command, "--quotes")
        assert "wavespeed quotes $0.105 an image for nano-banana-2 1K: 50% above the price book's $0.07" in told.out
        assert "expected $4.20" in told.out
        ended = shop.run("run", *command)
        assert ended.code == 0, ended.err
        assert "50% above the price book's $0.07" in ended.err
        check_books(shop)
        assert {settled.cost_microusd for settled in done(shop)} == {105_000}
        assert "overcharge" not in shop.run("status", "--sandbox").out


@pytest.mark.slow
def test_a_quote_above_what_was_agreed_needs_consent_again(tmp_path: Path) -> None:
    """Agreed at the price book's figures, and nothing was bought; the next night the provider wants twice as much."""
    with sandbox(tmp_path / "usual") as url, Shop(tmp_path, url) as shop:
        name = batch_of(shop, "wavespeed", "agreed", 5)
        shop.leave_practice(wavespeed="sandbox-locked")
        command = ("run", name, "--ledger", "bydawn.db", "--provider", "wavespeed")
        assert shop.run("plan", *command[1:], "--save", "plan.json").code == 0
        assert shop.run(*command, "--yes").code == 6
        with sandbox(tmp_path / "dear", price_factor=2.0) as shop.url:
            shop.leave_practice(wavespeed="sandbox-good")
            refused = shop.run(*command)
            assert refused.code == 2, refused.err
            assert "BD-072" in refused.err
            assert "about $0.70" in refused.err
            refused = shop.run(*command, "--approved", "plan.json")
            assert refused.code == 2
            assert "is quoted at $0.14, not $0.07" in refused.err
            assert "--quotes" in refused.err
        shop.url = url
        shop.leave_practice(wavespeed="sandbox-good")
        ended = shop.run(*command)
        assert ended.code == 0, ended.err
        assert len(done(shop)) == 5


def check_books_of_what_came(shop: Shop) -> None:
    """What was charged is on record truly, above the price list."""
    assert sum(job["charged_microusd"] for job in shop.bill()) == sum(each.cost_microusd for each in done(shop))
