"""The practice ground is found, or it is said that nothing answers where it should be."""

from pathlib import Path

import pytest

from bydawn.errors import UserError
from bydawn.sandbox import find_or_start


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://127.0.0.1:8700}", "127.0.0.1:8700", "nonsense"])
def test_an_address_that_is_none_is_a_mistake_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """A copied brace behind the port was told as a fault of bydawn."""
    monkeypatch.setenv("BYDAWN_SANDBOX_URL", url)
    with pytest.raises(UserError, match="no sandbox answers") as caught:
        find_or_start(tmp_path / "n.db")
    assert caught.value.exit_code == 6
