"""How a run ended, as an exit code."""

import pytest

from bydawn.buying import Ended, exit_code
from runtime.router import StopReason


@pytest.mark.parametrize(
    ("stopped_by", "parked", "code"),
    [
        ("", "", 0),
        ("", "unauthorized: 401", 0),  # others bought everything
        ("no_provider", "no_credit", 6),
        ("no_provider", "unauthorized: 401", 4),
        ("budget", "unauthorized: 401", 5),  # another key alone would not go on
        ("at_risk", "", 5),
        ("deadline", "no_credit", 5),
        ("takeover", "", 5),
        ("disk_full", "", 7),
        ("cancelled", "", 0),
        ("interrupted", "unauthorized: 401", 130),
    ],
)
def test_the_exit_code_says_what_has_to_change_before_the_run_can_go_on(
    stopped_by: StopReason, parked: str, code: int
) -> None:
    ended = Ended(stopped_by, 1.0, 0, {"kie": parked} if parked else {})
    assert exit_code(ended, failed=0, held=0) == code
    assert exit_code(ended, failed=1, held=0) == (code or 3)
    assert exit_code(ended, failed=0, held=1) == (code or 3)
