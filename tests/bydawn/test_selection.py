"""Which ledger is meant, and what is said where there is none."""

from pathlib import Path

import pytest

from bydawn.errors import UserError
from bydawn.selection import ledger_path, readable_ledgers


@pytest.mark.parametrize(
    ("practised", "named", "words"),
    [
        (False, False, ("no run has been started here", "bydawn run INPUT starts one")),
        (True, False, ("no run has been started here", "--sandbox means that")),
        (True, True, ("the file named by --ledger does not exist", "bydawn run INPUT starts one")),
    ],
)
def test_a_ledger_that_nobody_named_is_not_said_to_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, practised: bool, named: bool, words: tuple[str, str]
) -> None:
    """Commands that write look for the real ledger alone; what is there may be one of practice."""
    monkeypatch.chdir(tmp_path)
    if practised:
        (tmp_path / "bydawn-sandbox.db").touch()
    meant = tmp_path / "elsewhere.db" if named else ledger_path(None, sandbox=False)
    with pytest.raises(UserError) as caught:
        readable_ledgers(meant, sandbox=False)
    assert caught.value.exit_code == 10
    assert words[0] in str(caught.value.why)
    assert words[1] in str(caught.value.fix)
