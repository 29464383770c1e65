"""One fast sandbox per module, and a folder of its own for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.shop import Shop, sandbox


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the module's sandbox."""
    with sandbox(tmp_path_factory.mktemp("sandbox")) as url:
        yield url


@pytest.fixture
def shop(tmp_path: Path, market: str) -> Iterator[Shop]:
    with Shop(tmp_path, market) as shop:
        yield shop
