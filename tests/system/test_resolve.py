"""Held tasks after a kill, as a person decides about them: with the jobs that could be theirs, or with none to see."""

import json

import pytest

from bydawn.opening import opened_for_writing
from ledger.decisions import Append, Decision
from ledger.events import AttemptAmbiguous, AttemptUnknown
from ledger.streams import task_stream
from tests.system.shop import Done, Shop, prompts
from tests.system.withheld import killed_in_the_air

FEW = 12


def killed(shop: Shop, provider: str) -> None:
    """Kill a batch of a provider when two tasks are done, and at least two others were bought without an answer."""
    assert shop.run(*command(shop, provider), "--limit", "2").code == 0
    killed_in_the_air(shop, *command(shop, provider), least=2)


def command(shop: Shop, provider: str) -> tuple[str, ...]:
    table = shop.table("pots.jsonl", prompts(f"resolved at {provider}", FEW))
    return ("run", table, "--provider", provider, "--max-at-risk", "50", "--sandbox")


def held_jobs(shop: Shop) -> dict[str, str]:
    """The job of each held task that had reached the provider."""
    held = {
        str(line["id"]) for line in lines(shop.run("tasks", "pots", "--state", "held", "--json", "--sandbox"), "task")
    }
    arrived = jobs(shop, held)
    assert arrived
    return arrived


def jobs(shop: Shop, tasks: set[str]) -> dict[str, str]:
    """By the bill, which the program never sees: the jobs of tasks."""
    made = {f"t{job['prompt'].rpartition(' ')[2]}": job["job"] for job in shop.bill()}
    return {task: made[task] for task in sorted(tasks & made.keys())}


def lines(done: Done, kind: str) -> list[dict[str, object]]:
    assert done.code == 0, done.err
    return [line for line in done.json() if line["type"] == kind]


def candidates(line: dict[str, object]) -> list[dict[str, object]]:
    found = line["candidates"]
    assert isinstance(found, list)
    return found


def refused(shop: Shop, why: str, *adopt: str) -> None:
    """The command must say why, and change nothing."""
    before = shop.phases("pots")
    done = shop.run("resolve", "pots", *(part for each in adopt for part in ("--adopt", each)), "--sandbox")
    assert done.code == 2, done.err
    assert "BD-120" in done.err
    assert why in done.err
    assert shop.phases("pots") == before


def adopt_all(shop: Shop, provider: str, arrived: dict[str, str]) -> None:
    """Adopt them with one command, and go on: nothing is paid twice, and each image is its task's own."""
    options = [part for task, job in arrived.items() for part in ("--adopt", f"{task}={job}")]
    (resolved,) = lines(shop.run("resolve", "pots", *options, "--json", "--sandbox"), "resolved")
    assert (resolved["changed"], resolved["skipped"]) == (len(arrived), 0)
    done = shop.run("run", "pots", "--provider", provider, "--json", "-q", "--sandbox")
    assert done.code in (0, 3), done.err
    summary = done.json()[-1]
    assert summary["adopted"] == len(arrived)
    assert summary["succeeded"] == FEW - int(str(summary["held"]))
    assert shop.verdict("pots").twice == []
    assert shop.strangers("pots") == []
    for task in arrived:
        told = shop.run("show", f"pots/{task}", "--sandbox").out
        assert "adopted: a person named job" in told
    assert shop.run("verify", "--sandbox").code == 0


def test_at_kie_nothing_can_be_asked_and_a_job_is_looked_at_before_it_is_adopted(shop: Shop) -> None:
    """REC-5, REC-9."""
    killed(shop, "kie")
    assert shop.run(*command(shop, "kie")).code == 3
    arrived = held_jobs(shop)
    done = shop.run("resolve", "pots", "--json", "--sandbox")
    (asked,) = lines(done, "asked")
    assert (asked["how"], asked["trouble"], asked["page"]) == ("nothing", "", "https://kie.ai/logs")
    assert {line["id"] for line in lines(done, "held")} >= arrived.keys()
    (task, *_) = arrived
    everybody = jobs(shop, {f"t{n}" for n in range(1, FEW + 1)})
    owned = next(job for job in everybody.values() if job not in arrived.values())
    refused(shop, "is the job of another purchase already", f"{task}={owned}")
    refused(shop, "Kie shows no such job to this key", f"{task}=task_of_somebody_else")
    adopt_all(shop, "kie", arrived)


@pytest.mark.slow
def test_at_wavespeed_the_unknown_jobs_of_that_time_are_candidates(shop: Shop) -> None:
    """REC-5: its list does not show what a job was for, so a person must say which it is."""
    killed(shop, "wavespeed")
    assert shop.run(*command(shop, "wavespeed")).code == 3
    arrived = held_jobs(shop)
    done = shop.run("resolve", "pots", "--json", "--sandbox")
    held = lines(done, "held")
    for line in held:
        found = candidates(line)
        assert {each["job"] for each in found} == set(arrived.values())
        assert {each["fits"] for each in found} == {"time"}
        assert {each["model"] for each in found} == {"google/nano-banana-2/text-to-image"}
        assert all(each["created_at_us"] for each in found)
    assert "http" not in json.dumps(held), "an address of a result is as good as the image (SEC-1)"
    told = shop.run("resolve", "pots", "--sandbox").out
    assert "made at that time; its input is not shown" in told
    assert "about $0.07" in told
    (task, *_) = arrived
    refused(shop, "WaveSpeed shows no such job to this key", f"{task}=0123456789abcdef0123456789abcdef")
    adopt_all(shop, "wavespeed", arrived)


def list_was_unreadable(shop: Shop) -> None:
    """Record what a run does whose every look at the list failed."""
    with opened_for_writing(shop.ledger, create=False) as opened, opened.ledger.reader() as reader:
        for live in reader.live():
            if live.phase == "intended":
                stream = task_stream(live.batch, live.n)
                facts = (
                    AttemptAmbiguous(attempt=live.attempt, reason="crash"),
                    AttemptUnknown(attempt=live.attempt, reason="listing_failed"),
                )
                opened.ledger.commit([Decision((Append(stream, live.state.version, facts),), live.intended_at_us)])


def test_where_inputs_are_shown_a_job_is_adopted_for_its_own_task_only(shop: Shop) -> None:
    """REC-5: the list says what each job was for."""
    killed(shop, "replicate")
    list_was_unreadable(shop)
    arrived = held_jobs(shop)
    done = shop.run("resolve", "pots", "--json", "--sandbox")
    (asked,) = lines(done, "asked")
    assert (asked["how"], asked["trouble"], asked["key_changed"]) == ("listing", "", False)
    held = lines(done, "held")
    for line in held:
        mine = [arrived[str(line["id"])]] if line["id"] in arrived else []
        assert [(each["job"], each["fits"]) for each in candidates(line)] == [(job, "input") for job in mine]
    task, job = next(iter(arrived.items()))
    other = next(str(line["id"]) for line in held if line["id"] != task)
    refused(shop, "Replicate lists it with another input, or as made at another time", f"{other}={job}")
    refused(shop, "is named more than once", f"{task}={job}", f"{other}={job}")
    adopt_all(shop, "replicate", arrived)


@pytest.mark.slow
def test_at_together_there_is_no_job_and_buying_again_is_told_in_dollars(shop: Shop) -> None:
    """MON-2, MON-10, W14."""
    killed(shop, "together")
    done = shop.run(*command(shop, "together"), "--json", "-q")
    assert done.code == 3, done.err
    summary = done.json()[-1]
    held = lines(shop.run("resolve", "pots", "--json", "--sandbox"), "held")
    assert summary["held"] == len(held) > 0
    worst = sum(int(str(line["at_risk_microusd"])) for line in held)
    assert summary["held_microusd"] == summary["at_risk_microusd"] == worst
    assert all(candidates(line) == [] for line in held)
    refused(shop, "Together has no jobs that could be collected", f"{held[0]['id']}=job")
    (none,) = lines(shop.run("resolve", "pots", "--provider", "kie", "--buy-again", "--json", "--sandbox"), "resolved")
    assert none["changed"] == 0
    (resolved,) = lines(shop.run("resolve", "pots", "--all", "--buy-again", "--json", "--sandbox"), "resolved")
    assert resolved["changed"] == len(held)
    again = shop.run(*command(shop, "together"), "--json", "-q")
    assert again.code == 0, again.err
    after = again.json()[-1]
    assert (after["held"], after["decided"], after["decided_microusd"]) == (0, len(held), worst)
    assert after["duplicates_paid"] == len(held)
    assert int(str(after["duplicates_microusd"])) <= worst
    assert shop.run("verify", "--sandbox").code == 0
