"""Uploads: free calls, one after the other as the codec asks for them, with a few tries, since they may be repeated."""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Literal

from adapters.base import HttpCall, HttpReply, MalformedReply, Uploaded, UploadRefused, UploadSteps
from runtime.ports import Clock, WireError

TRIES = 3
_PAUSE_S = 1.0  # before the second try; twice that before the third


class UploadFailed(Exception):
    """Why there is no upload: ``account`` concerns every file of the account, ``refused`` this file for good, ``later``
    nobody knows."""

    def __init__(self, reason: Literal["account", "refused", "later"], detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


async def upload(
    steps: Callable[[], UploadSteps],
    query: Callable[[HttpCall], Awaitable[HttpReply]],
    *,
    clock: Clock,
    random: Random,
) -> Uploaded:
    """Upload, beginning anew with fresh ``steps`` after each try that broke.  Raises UploadFailed."""
    why = ""
    for tries in range(TRIES):
        if tries:
            pause_s = _PAUSE_S * 2 ** (tries - 1) * random.uniform(0.5, 1.5)
            await clock.sleep_until(clock.monotonic() + pause_s)
        try:
            return await _drive(steps(), query)
        except UploadRefused as exc:
            if exc.account:
                raise UploadFailed("account", str(exc)) from exc
            if not exc.retryable:
                raise UploadFailed("refused", str(exc)) from exc
            why = str(exc)
        except (WireError, MalformedReply) as exc:
            why = str(exc)
    raise UploadFailed("later", why)


async def _drive(steps: UploadSteps, query: Callable[[HttpCall], Awaitable[HttpReply]]) -> Uploaded:
    """Give each call's reply back to the codec until it says where the file is."""
    reply: HttpReply | None = None
    while True:
        try:
            call = next(steps) if reply is None else steps.send(reply)
        except StopIteration as done:
            uploaded: Uploaded = done.value
            return uploaded
        reply = await query(call)
