"""Sends the free calls of an upload, one after the other, as the codec asks for them."""

from collections.abc import Awaitable, Callable

from adapters.base import HttpCall, HttpReply, Uploaded, UploadSteps


async def run_upload(steps: UploadSteps, query: Callable[[HttpCall], Awaitable[HttpReply]]) -> Uploaded:
    """Give each call's reply back to the codec until it says where the file is.

    Raises UploadRefused, MalformedReply (the codec), WireError (the wire).
    """
    reply: HttpReply | None = None
    while True:
        try:
            call = next(steps) if reply is None else steps.send(reply)
        except StopIteration as done:
            uploaded: Uploaded = done.value
            return uploaded
        reply = await query(call)
