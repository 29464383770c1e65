"""Nights between which the key of an account is replaced: by another key of it, and by another account's (REC-9)."""

from pathlib import Path

import pytest

from ledger.events import AccountKeyChanged, AttemptAbsent, AttemptAdopted
from ledger.reader import Reader
from tests.simulation.checker import problems
from tests.simulation.life import Life
from tests.simulation.weather import Weather
from tests.simulation.world import KEY, OTHER_KEY, World

LOSSY = Weather(lost_reply=0.1, lost_request=0.05)


def replace_keys(world: World, suffix: str, fingerprint: str) -> None:
    """Put other keys in; those with a ``+`` are of the same accounts."""
    world.keys = {name: key.partition("+")[0] + suffix for name, key in world.keys.items()}
    world.fingerprint = fingerprint * 32


def changes(world: World) -> list[AccountKeyChanged]:
    with Reader(world.path) as reader:
        return [row.event for row in reader.events(limit=100_000) if isinstance(row.event, AccountKeyChanged)]


@pytest.mark.parametrize("provider", ["replicate", "toapis"])
@pytest.mark.parametrize("seed", range(3))
def test_a_key_that_was_replaced_inside_the_account_is_recognised(tmp_path: Path, provider: str, seed: int) -> None:
    """REC-9: what is in doubt then is found, or proven absent and bought, as if the key had never changed."""
    world = World(tmp_path, seed, tasks=10, providers=(provider,), weather=LOSSY)
    world.live(Life(crash_at=60))
    replace_keys(world, "+2", "r")
    world.live(Life(crash_at=30))
    replace_keys(world, "+3", "s")
    assert world.live() == ""
    assert problems(world) == []
    told = changes(world)
    assert [event.fingerprint[0] for event in told if not event.confirmed_by] == ["r", "s"]
    assert any(event.confirmed_by.startswith("job ") for event in told)
    with Reader(world.path) as reader:
        assert {row.state for row in reader.counts(1)} == {"succeeded"}
        assert any(isinstance(row.event, AttemptAbsent | AttemptAdopted) for row in reader.events(limit=100_000))


def test_after_another_accounts_key_each_purchase_is_still_judged_by_its_own_account(tmp_path: Path) -> None:
    """REC-9: the first account comes back with a new key, and what the stranger bought stays out of its reach."""
    world = World(tmp_path, seed=2, tasks=12, providers=("replicate",), weather=LOSSY)
    world.live(Life(crash_at=60))
    world.live(Life(crash_at=40, new_keys=True))
    stranger = world.keys["replicate"]
    world.keys, world.fingerprint, world.key_epoch = {"replicate": f"{KEY}+2"}, "r" * 32, 0
    world.live()
    with Reader(world.path) as reader:
        held = reader.held(1)
        open_now = {each.epoch for each in reader.live()}
    theirs = {each.epoch for each in held if each.state.attempts[-1].reason == "account_changed"} | open_now
    assert theirs <= {world.last_night - 1, world.last_night - 2}
    assert stranger == OTHER_KEY
    assert [text for text in problems(world, complete=False) if "MON" in text] == []
