"""Named points at the edge of every crash window.

``point(name)`` does nothing unless a test installed a hook: the simulator's hook freezes the world there, the
real-process harness kills itself there (``BYDAWN_FAULT=name:n``).  The names are listed in ``POINTS``, and in
``CANCEL_POINTS`` those that a night passes only when it is cancelled, so that a long run can prove that it hit each.
"""

import os
import signal
from collections.abc import Callable

POINTS = (
    "before_intent",  # W1: the task is chosen, nothing is recorded
    "intent_recorded",  # W2: durable intent, no byte written
    "request_sent",  # W3, W4: first byte written, no answer read
    "reply_read",  # W5: the answer is in memory, not durable
    "reply_spooled",  # W14: the image of a synchronous answer is durable, not recorded
    "acceptance_recorded",  # W6
    "result_seen",  # W7: the job is done, not recorded
    "ready_recorded",  # W8
    "download_started",  # W9
    "download_ended",  # W10: all bytes here, nothing renamed
    "blob_stored",  # W11: renamed and durable, not recorded
    "completion_recorded",  # W13: recorded, no manifest
)
CANCEL_POINTS = (  # only a run that is told to cancel gets here
    "cancel_recorded",  # W15: the wish is durable, the provider was not told
    "cancel_answered",  # W15: it was told, and what it said is only in memory
)

_hook: Callable[[str], None] | None = None


def point(name: str) -> None:
    """Mark a window edge; ``name`` is one of POINTS or CANCEL_POINTS."""
    if _hook is not None:
        _hook(name)


def install(hook: Callable[[str], None] | None) -> None:
    """Install the one hook of this process, or remove it with None."""
    global _hook
    _hook = hook


def kill_at(spec: str) -> Callable[[str], None]:
    """Return a hook that kills this process with SIGKILL the n-th time ``name`` is reached (``name:n``)."""
    name, _, count = spec.partition(":")
    points = (*POINTS, *CANCEL_POINTS)
    if name not in points or not (count or "1").isdigit():
        raise ValueError(f"no fault point {spec!r}; points: {', '.join(points)}")
    left = int(count or "1")

    def hook(reached: str) -> None:
        nonlocal left
        if reached == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook
