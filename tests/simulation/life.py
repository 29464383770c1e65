"""One process of a simulated night, and how it ends."""

import msgspec

from runtime.simulated import Fault


class Life(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happens to a process, beside the weather.

    ``crash_at``: it dies at that many fault points from now, or (``point``) at that many passages of this one point.
    ``cut_at``: it dies in place of the disk's effect of that number from now, or in the middle of it (``torn``).
    ``power``: whether the power goes with it and takes what was not synced; None draws.  ``disk`` and ``ledger``: the
    effect, or the commit, of that number from now fails so, and the process ends with an error.  ``drain_at_s``,
    ``hard_at_s``: SIGTERM.  ``cancel_at_s``: somebody leaves a message that cancels its batch.  ``new_keys``: from now
    on the keys are those of another account; ``rotated``: they are other keys of the same one.
    """

    crash_at: int | None = None
    point: str = ""
    cut_at: int | None = None
    torn: bool = False
    power: bool | None = None
    disk: tuple[int, Fault] | None = None
    ledger: tuple[int, Fault] | None = None
    new_keys: bool = False
    rotated: bool = False
    drain_at_s: float | None = None
    hard_at_s: float | None = None
    cancel_at_s: float | None = None
    deadline_s: float | None = None
    batch: int = 1
