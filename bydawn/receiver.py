"""The receiver of callbacks: an address that strangers can reach, so it says nothing and believes nothing.

A callback whose path carries our token (and whose signature holds, where a secret is set) is left in the inbox as a
hint, durable before the 2xx; everything else gets the same empty 404.  No other process needs to run: what arrives
now is used by the next one.  One process listens per address.  Another one of the same ledger waits until that
address is free, so that ``bydawn serve`` and ``bydawn run`` stand in for each other.
"""

import logging
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path

import trio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from adapters.base import Codec, Secret
from adapters.registry import codec, entries
from bydawn.errors import UserError
from bydawn.listening import bound, serve_bounded
from bydawn.webhooks import Place
from ledger.errors import LedgerError
from ledger.reader import Reader
from runtime.callbacks import MAX_BODY, Gate, Keyed
from runtime.inbox import MOST_FILES, InboxFull, inbox_of, leave_hint

_log = logging.getLogger(__name__)

_AT_ONCE = 32  # bodies in memory: 16 MiB
_READ_S = 10.0
_STRANGERS = 3
_METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
_PROOF = "x-bydawn-receiver"
# Loopback is never reached through a proxy, whatever HTTP_PROXY says.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Receiver:
    """Takes callbacks for one ledger.  ``taken`` and ``refused`` count those whose address was ours."""

    def __init__(
        self, ledger: Path, *, keyed: Keyed, secrets: Mapping[str, Sequence[Secret]], most: int = MOST_FILES
    ) -> None:
        """``most`` bounds the hints that wait."""
        self._most = most
        self._ledger = ledger
        self._inbox = inbox_of(ledger)
        self._keyed = keyed
        self._codecs: dict[str, Codec] = {}
        self._gate = Gate(keyed=keyed, codec_of=self._codec_of, secrets=secrets)
        self._turns = trio.CapacityLimiter(_AT_ONCE)
        self._threads = trio.CapacityLimiter(4)
        self.taken = 0
        self.refused = 0

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/healthz", self._health, methods=["GET"]),
                Route("/{rest:path}", self._callback, methods=_METHODS),
            ],
            exception_handlers={404: _nothing, 405: _nothing},
        )

    def proof(self, challenge: str) -> str:
        """What only a process with this ledger's secret can answer."""
        return self._keyed(f"receiver/{challenge}")

    async def _health(self, request: Request) -> Response:
        challenge = request.query_params.get("challenge", "")
        proven = len(challenge) == 32 and challenge.isalnum()
        return PlainTextResponse("ok\n", headers={_PROOF: self.proof(challenge)} if proven else {})

    async def _callback(self, request: Request) -> Response:
        named = self._gate.named(request.scope["raw_path"].decode("latin-1")) if request.method == "POST" else None
        if named is None:
            return Response(status_code=404)
        async with self._turns:
            body = await _bounded_body(request)
            if isinstance(body, Response):
                self.refused += 1
                _log.warning("a callback for %s was too large or did not end: status %d", named.text, body.status_code)
                return body
            hint = self._gate.hint(named, dict(request.headers), body, now_s=time.time())
            if isinstance(hint, str):
                self.refused += 1
                _log.warning("a callback for %s was refused: %s", named.text, hint)
                return Response(status_code=404)
            try:
                await trio.to_thread.run_sync(
                    partial(leave_hint, self._inbox, hint, most=self._most), limiter=self._threads
                )
            except (InboxFull, OSError) as exc:
                self.refused += 1
                _log.error("a callback for %s cannot be kept: %s", named.text, exc)
                return Response(status_code=503)
        self.taken += 1
        _log.info("a callback for %s was taken", named.text)
        return Response(status_code=200)

    def _codec_of(self, account: str) -> Codec | None:
        """The codec of an account that anything was ever bought from."""
        if account not in self._codecs:
            try:
                with Reader(self._ledger) as reader:
                    known = {row.name: row.provider for row in reader.accounts()}
            except LedgerError as exc:
                _log.error("the ledger cannot be read: %s", exc)
                return None
            self._codecs |= {name: codec(provider) for name, provider in known.items() if provider in entries()}
        return self._codecs.get(account)


async def _nothing(request: Request, exc: Exception) -> Response:
    """The answer to all that is not ours, also to what no route takes."""
    return Response(status_code=404)


async def _bounded_body(request: Request) -> bytes | Response:
    """Read the body, or say with which status it is given up."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_BODY:
        return Response(status_code=413)
    body = bytearray()
    with trio.move_on_after(_READ_S):
        try:
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > MAX_BODY:
                        return Response(status_code=413)
        except ClientDisconnect:
            return Response(status_code=400)
        return bytes(body)
    return Response(status_code=408)


# --- listening --------------------------------------------------------------------------------------------------


async def receive(
    receiver: Receiver,
    place: Place,
    say: Callable[[str], None],
    *,
    look_again_s: float = 1.0,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen until cancelled.  Started means: this process listens, or another one of this ledger does.

    Raises:
        UserError: the address is somebody else's, or cannot be had.
    """
    waited, strangers = False, 0
    while (listener := bound(place, where="--webhook-listen")) is None:
        if not waited:
            if await trio.to_thread.run_sync(_is_ours, place, receiver):
                waited = True
                say(f"another process of this ledger takes the callbacks at {place.text}, this one when that has ended")
                task_status.started()
            else:  # perhaps one of ours that is about to end
                strangers += 1
                if strangers == _STRANGERS:
                    raise _taken(place)
        await trio.sleep(look_again_s)
    say(f"listening for callbacks at {place.text}")
    if waited:
        await serve_bounded(receiver.application(), listener)
    else:
        await serve_bounded(receiver.application(), listener, task_status=task_status)


def _is_ours(place: Place, receiver: Receiver) -> bool:
    """Whether who listens there is another process of the same ledger."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(place.host, place.host)  # noqa: S104 (compared, not bound)
    challenge = secrets.token_hex(16)
    url = f"http://{Place(host, place.port).text}/healthz?challenge={challenge}"
    try:
        with _DIRECT.open(url, timeout=5) as reply:
            told: str = reply.headers.get(_PROOF, "")
            return secrets.compare_digest(told.encode(), receiver.proof(challenge).encode())
    except (OSError, urllib.error.URLError, ValueError):
        return False


def _taken(place: Place) -> UserError:
    return UserError(
        "BD-112",
        f"bydawn cannot listen at {place.text}",
        where="--webhook-listen",
        why="another program has this address",
        fix="--webhook-listen HOST:PORT with another port, and let the webhook URL lead there",
    )
