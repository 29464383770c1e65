"""What buying again is said to cost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bydawn.controlling import Asked, price_of
from tests.bydawn.a_night import tell


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """A batch that is bought from Kie and Segmind, in which one task failed."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.chdir(tmp_path)
    tell(tmp_path / "bydawn.db", tmp_path)
    with Asked(tmp_path / "bydawn.db", "teapots", sandbox=False) as found:
        assert found.reader.batch(found.batch).settings.providers == ("kie", "segmind")
        yield found


def test_the_cheapest_of_the_batch_s_own_providers_counts(asked: Asked) -> None:
    """Others are cheaper, and are not asked."""
    assert price_of(asked, (), ("failed",)) == (1, 60_000)


def test_the_user_s_own_price_counts(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "bydawn.toml").write_text('[prices.segmind.nano-banana-2]\n"1K" = 0.03\n')
    assert price_of(asked, (), ("failed",)) == (1, 30_000)


def test_a_provider_of_the_batch_may_be_an_account(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "bydawn.toml").write_text('[accounts.kie]\nprovider = "apipass"\nkey_env = "A_KEY"\n')
    assert price_of(asked, (), ("failed",)) == (1, 45_500)


def test_only_the_named_tasks_count(asked: Asked) -> None:
    assert price_of(asked, (99,), ("failed",)) == (0, 0)
