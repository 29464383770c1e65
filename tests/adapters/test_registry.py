"""What packages add, and what happens to those that are broken."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters import registry
from adapters.base import Context, ImageRequest, Secret
from adapters.kie import KIE
from adapters.prices import DEFAULT_BOOK
from adapters.registry import PROVIDERS
from adapters.sandbox.house import House
from ledger.journal import Ledger
from tests.adapters.inprocess import sandbox
from tests.adapters.packages import install, module

# A provider that is Kie under another name, in as few lines as Python has.
GOOD = """
import msgspec
from adapters.kie import Kie
from adapters.prices import Price
from adapters.registry import Entry
from adapters.sandbox.kie import KieEmulator

class Acme(Kie):
    capabilities = msgspec.structs.replace(Kie.capabilities, provider="acme")

class Emulator(KieEmulator):
    name = "acme"

CODEC = Acme()
PRICES = {("acme", "nano-banana-2", "1K", False): Price(31_000, "its page", "2026-11-22", "confirmed")}
PROVIDER = Entry("acme:CODEC", "acme:Emulator", prices="acme:PRICES")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the path, as if packages were installed there; the registry looks anew before and after."""
    monkeypatch.syspath_prepend(tmp_path)
    registry.added.cache_clear()
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)
    registry.added.cache_clear()


def test_a_package_adds_a_provider_with_its_prices(folder: Path) -> None:
    module(folder, "acme", GOOD)
    install(folder, "acme-bydawn", "acme = acme:PROVIDER")
    assert list(registry.entries()) == [*PROVIDERS, "acme"]
    assert registry.codec("acme").capabilities.provider == "acme"
    price = registry.price_book().quote("acme", "nano-banana-2", "1K", references=False)
    assert price is not None
    assert price.microusd == 31_000
    assert registry.price_book().prices.items() >= DEFAULT_BOOK.prices.items()
    assert House(sandbox()).providers == (*PROVIDERS, "acme")
    assert not registry.added().left_out


def test_without_packages_there_are_our_own(folder: Path) -> None:
    assert registry.entries() == PROVIDERS
    assert registry.price_book() == DEFAULT_BOOK


def test_an_unknown_provider_is_named_with_those_there_are(folder: Path) -> None:
    module(folder, "acme", GOOD)
    install(folder, "acme-bydawn", "acme = acme:PROVIDER")
    with pytest.raises(ValueError, match=r"no provider 'dalle'; there are .*kie.*, acme$"):
        registry.codec("dalle")


def test_our_own_codecs_are_found_without_a_look_at_packages(folder: Path) -> None:
    module(folder, "acme", "raise AssertionError('looked at')")
    install(folder, "acme-bydawn", "acme = acme:PROVIDER")
    assert registry.codec("kie") is KIE
    assert "acme" not in sys.modules


BROKEN = {
    "raises": ("acme = acme:PROVIDER", "raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "missing module": ("acme = nowhere:PROVIDER", "", "ModuleNotFoundError"),
    "missing object": ("acme = acme:ENTRY", GOOD, "AttributeError"),
    "no entry": ("acme = acme:CODEC", GOOD, "no adapters.registry.Entry"),
    "ours": ("kie = acme:PROVIDER", GOOD, "bydawn has a provider of this name itself"),
    "bad name": ("Acme_1 = acme:PROVIDER", GOOD, "a provider's name is"),
    "taken name": ("files = acme:PROVIDER", GOOD, "a provider's name is"),
    "another name": ("acme2 = acme:PROVIDER", GOOD, "its capability record speaks of 'acme'"),
    "no codec": ("acme = acme:PROVIDER", GOOD.replace("CODEC = Acme()", "CODEC = 7"), "it has no problem, lane"),
    "no record": (
        "acme = acme:PROVIDER",
        GOOD.replace("CODEC = Acme()", "CODEC = Acme()\nCODEC.capabilities = {}"),
        "no capability record",
    ),
    "no codec module": ("acme = acme:PROVIDER", GOOD.replace("acme:CODEC", "nowhere:CODEC"), "ModuleNotFoundError"),
    "no prices": ("acme = acme:PROVIDER", GOOD.replace("acme:PRICES", "acme:CODEC"), "no mapping"),
    "free": ("acme = acme:PROVIDER", GOOD.replace("31_000", "0"), "above zero"),
    "prices of others": ("acme = acme:PROVIDER", GOOD.replace('("acme", ', '("kie", '), "it sets prices of kie"),
}


@pytest.mark.parametrize(("point", "source", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_package_is_left_out_and_the_others_stay(folder: Path, point: str, source: str, reason: str) -> None:
    module(folder, "acme", source)
    module(folder, "fine", GOOD.replace("acme", "fine"))
    install(folder, "acme-bydawn", point)
    install(folder, "fine-bydawn", "fine = fine:PROVIDER")
    assert list(registry.entries()) == [*PROVIDERS, "fine"]
    assert registry.price_book().prices.keys() == DEFAULT_BOOK.prices.keys() | {("fine", "nano-banana-2", "1K", False)}
    ((named, told),) = registry.added().left_out.items()
    assert named == point
    assert reason in told


def test_a_name_that_two_packages_claim_belongs_to_neither(folder: Path) -> None:
    module(folder, "acme", GOOD)
    module(folder, "other", GOOD)
    install(folder, "acme-bydawn", "acme = acme:PROVIDER")
    install(folder, "other-bydawn", "acme = other:PROVIDER")
    assert registry.entries() == PROVIDERS
    assert list(registry.added().left_out) == ["acme = acme:PROVIDER", "acme = other:PROVIDER"]


def test_a_broken_emulator_is_not_played_and_the_others_are(folder: Path) -> None:
    module(folder, "acme", GOOD.replace('"acme:Emulator"', '"acme:Nothing"'))
    install(folder, "acme-bydawn", "acme = acme:PROVIDER")
    house = House(sandbox())
    assert house.providers == tuple(PROVIDERS)
    assert list(house.left_out) == ["acme"]
    with pytest.raises(ValueError, match="emulator of acme cannot be used"):
        House(sandbox(), ["acme"])
    with pytest.raises(ValueError, match="no provider 'dalle'"):
        House(sandbox(), ["dalle"])


def test_a_provider_of_a_package_is_bought_from_like_ours(folder: Path) -> None:
    module(folder, "acme", GOOD)
    install(folder, "acme-bydawn", "acme = acme:PROVIDER")
    ctx = Context(key=Secret("sandbox-key"), base_url="http://127.0.0.1:8700/acme")
    call = registry.codec("acme").build_submit(ImageRequest("a red kettle"), ctx)
    assert call.url.startswith("http://127.0.0.1:8700/acme/")


def test_help_and_status_do_not_look_for_packages(tmp_path: Path) -> None:
    with Ledger.create_or_open(tmp_path / "bydawn.db", create=True):
        pass
    look = (
        "import sys; from bydawn.cli.main import main; main(sys.argv[1:]);sys.exit('importlib.metadata' in sys.modules)"
    )
    for args in (["--help"], ["status", "--ledger", str(tmp_path / "bydawn.db")]):
        done = subprocess.run([sys.executable, "-c", look, *args], capture_output=True, check=False)
        assert done.returncode == 0, args
