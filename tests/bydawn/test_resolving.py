"""``bydawn resolve`` without any provider to ask: what is listed, chosen, refused and told."""

import json
from pathlib import Path

import pytest

from bydawn.cli.main import main
from ledger.events import AccountOpened, AttemptAccepted, AttemptAmbiguous, AttemptUnknown
from ledger.reader import Reader
from ledger.streams import account_stream, task_stream
from runtime.inbox import Hint, inbox_of, leave_hint
from tests.bydawn.a_night import START_US, Night, tell

IDS = ("red", "blue", "wet", "next")
ESCAPED = "wet\x1b[2J"


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One task held at Kie, in a folder without keys."""
    for name in ("KIE_API_KEY", "WAVESPEED_API_KEY", "TOGETHER_API_KEY", "BYDAWN_LEDGER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.chdir(tmp_path)
    tell(tmp_path / "bydawn.db", tmp_path)
    return tmp_path


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, night: Path) -> Path:
    """A batch of its own with a task held at Kie, one at WaveSpeed and one at Together; a fourth has its job."""
    path = tmp_path / "three" / "bydawn.db"
    path.parent.mkdir()
    monkeypatch.chdir(path.parent)
    told = Night(path, path.parent)
    told.open_batch(1, "pots", IDS)
    for n, provider in enumerate(("kie", "wavespeed", "together"), 1):
        told.write(account_stream(n), 0, AccountOpened(name=provider, provider=provider, fingerprint="f"))
        told.write(task_stream(1, n), 1, told.intend(1, provider))
        told.write(task_stream(1, n), 2, AttemptAmbiguous(attempt=1, reason="crash"))
        told.write(task_stream(1, n), 3, AttemptUnknown(attempt=1, reason="no_evidence"))
    told.write(task_stream(1, 4), 1, told.intend(1))
    told.write(task_stream(1, 4), 2, AttemptAccepted(attempt=1, job="job-next"))
    told.ledger.close()
    return path


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def resolve(capsys: pytest.CaptureFixture[str]) -> "Resolve":
    return Resolve(capsys)


class Resolve:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *args: str) -> Said:
        code = main(["resolve", *args])
        said = self._capsys.readouterr()
        return Said(code, said.out, said.err)


def phases(path: Path) -> list[str]:
    with Reader(path) as reader:
        return [row.phase for row in reader.tasks(1)]


def test_a_provider_that_cannot_be_asked_says_so_and_where_to_look(night: Path, resolve: Resolve) -> None:
    said = resolve("teapots")
    assert said.code == 0
    assert "1 held, $0.075 may have been paid" in said.out
    assert "no_evidence (kie): Kie cannot be asked, or not about so old a purchase" in said.out
    assert "Kie cannot be asked which jobs there are; look at https://kie.ai/logs" in said.out
    assert "bydawn resolve teapots --adopt" in said.out
    assert "\x1b" not in said.out


def test_only_a_job_that_can_be_collected_is_asked_for(three: Path, resolve: Resolve) -> None:
    """Together answers with the image itself: there is no job that a person could name."""
    assert "--adopt red=JOB" in resolve("pots").out
    alone = resolve("pots", "--provider", "together").out
    assert "--adopt" not in alone
    assert "--give-up" in alone


def test_scripts_get_objects(night: Path, resolve: Resolve) -> None:
    asked, held = resolve("teapots", "--json").lines
    assert asked == {
        "type": "asked",
        "account": "kie",
        "provider": "kie",
        "how": "nothing",
        "trouble": "",
        "key_changed": False,
        "page": "https://kie.ai/logs",
    }
    assert (held["id"], held["account"], held["attempt"], held["sent_at_us"]) == (
        ESCAPED,
        "kie",
        1,
        START_US + 24_000_000,
    )
    assert (held["at_risk_microusd"], held["candidates"], held["more_candidates"]) == (75_000, [], 0)


def test_without_keys_the_tasks_are_listed_all_the_same(three: Path, resolve: Resolve) -> None:
    """One provider has a list and no key here, one nothing to ask, one not even jobs."""
    said = resolve("pots")
    assert said.code == 0
    assert "3 held, $0.225 may have been paid" in said.out
    assert "WaveSpeed could not be asked for its jobs: no key is set for wavespeed (WAVESPEED_API_KEY)" in said.out
    by_id = {line["id"]: line for line in resolve("pots", "--json").lines if line["type"] == "held"}
    assert list(by_id) == ["red", "blue", "wet"]


def test_a_job_that_a_callback_named_needs_a_key_to_be_read(night: Path, resolve: Resolve) -> None:
    """REC-7: the call alone is shown to nobody as a candidate."""
    leave_hint(inbox_of(night / "bydawn.db"), Hint("kie", 1, 4, 1, "job-9"))
    asked, held = resolve("teapots", "--json").lines
    assert asked["trouble"] == "no key is set for kie (KIE_API_KEY)"
    assert held["candidates"] == []


def test_a_provider_that_does_not_answer_is_told(
    three: Path, resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REC-9: with a key that is not the one of then, and nobody at the address."""
    monkeypatch.setenv("WAVESPEED_API_KEY", "some-key")
    monkeypatch.setenv("BYDAWN_WAVESPEED_BASE_URL", "http://127.0.0.1:9")
    asked = {line["account"]: line for line in resolve("pots", "--json").lines if line["type"] == "asked"}
    assert asked["wavespeed"]["trouble"]
    assert asked["wavespeed"]["key_changed"] is True
    assert (asked["kie"]["trouble"], asked["together"]["how"]) == ("", "nothing")


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--provider", "wavespeed"], ["blue"]),
        (["--task", "red", "--task", "wet"], ["red", "wet"]),
        (["--task", "red", "--provider", "together"], []),
        (["--older", "1h"], ["red", "blue", "wet"]),
        (["--older", "100000h"], []),
    ],
)
def test_the_list_and_the_decision_are_about_the_chosen_ones(
    three: Path, resolve: Resolve, options: list[str], ids: list[str]
) -> None:
    """Singly and in bulk: what is listed is what is decided, and no other."""
    listed = [line["id"] for line in resolve("pots", *options, "--json").lines if line["type"] == "held"]
    assert listed == ids
    (decided,) = resolve("pots", *options, "--give-up", "--json").lines
    assert (decided["changed"], decided["skipped"]) == (len(ids), 0)
    assert phases(three) == ["failed" if task in ids else "held" for task in IDS[:3]] + ["accepted"]


def test_buying_again_tells_the_cost_of_the_chosen_ones_first(three: Path, resolve: Resolve) -> None:
    """Off a terminal it needs leave; the worst is what of them may be paid twice."""
    said = resolve("pots", "--provider", "kie", "--buy-again")
    assert said.code == 2
    assert "Buy 1 image again for about $0.06? At most $0.075 would then be paid twice." in said.err
    assert phases(three) == ["held", "held", "held", "accepted"]
    assert resolve("pots", "--all", "--buy-again", "--yes").code == 0
    assert phases(three) == ["queued", "queued", "queued", "accepted"]


def test_nothing_chosen_is_nothing_decided(three: Path, resolve: Resolve) -> None:
    said = resolve("pots", "--provider", "segmind", "--buy-again", "--yes")
    assert (said.code, said.out) == (0, "no such task is held\n")


@pytest.mark.parametrize(
    ("adopt", "code", "why"),
    [
        (["red"], 2, "'red' is not TASK=JOB"),
        (["next=j"], 2, "next is not held"),
        (["red=j", "blue=j"], 2, "j is named more than once"),
        (["red=j", "red=k"], 2, "a task is named more than once"),
        (["red=job-next"], 2, "job-next is the job of another purchase already"),
        (["wet=j"], 2, "Together has no jobs that could be collected"),
        (["red=../../v1/credits?x"], 2, "no job has such an id"),
        (["red=j"], 6, "kie: no key is set for kie (KIE_API_KEY)"),
        (["blue=j"], 6, "wavespeed: no key is set for wavespeed (WAVESPEED_API_KEY)"),
    ],
)
def test_a_wrong_adoption_is_refused_before_anything_is_recorded(
    three: Path, resolve: Resolve, adopt: list[str], code: int, why: str
) -> None:
    """REC-5, REC-9."""
    with Reader(three) as reader:
        before = reader.head()
    said = resolve("pots", *(part for each in adopt for part in ("--adopt", each)))
    assert said.code == code
    assert why in said.err
    with Reader(three) as reader:
        assert reader.head() == before
    assert phases(three)[:3] == ["held"] * 3


def test_one_decision_at_a_time(three: Path, resolve: Resolve) -> None:
    assert resolve("pots", "--all", "--buy-again", "--give-up").code == 2
    assert resolve("pots", "--adopt", "red=j", "--all").code == 2
    assert resolve("pots", "--buy-again").code == 2
