"""The routes of the dashboard: a page, the same as JSON, metrics, and the two files that the page needs."""

import time
from functools import partial
from importlib.resources import files
from pathlib import Path

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from bydawn.cli.status import as_data
from bydawn.dashboard.board import Board, board
from bydawn.dashboard.metrics import MEDIA_TYPE, metrics
from bydawn.dashboard.page import page
from ledger.errors import LedgerError

_FRESH_S = 0.5  # many open tabs read the ledger no more often than this


class Dashboard:
    """Shows one ledger.  Every answer is made of one :class:`Board`, which is at most half a second old."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._turn = trio.Lock()
        self._board: Board | None = None
        self._read_at = 0.0

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self._page),
                Route("/status.json", self._status),
                Route("/metrics", self._metrics),
                Route("/dashboard.css", partial(_file, "dashboard.css", "text/css")),
                Route("/dashboard.js", partial(_file, "dashboard.js", "text/javascript")),
            ],
            exception_handlers={LedgerError: _unreadable},
        )

    async def _page(self, request: Request) -> Response:
        return Response(page(await self._now()), media_type="text/html")

    async def _status(self, request: Request) -> Response:
        """What ``bydawn status --json`` says, as one list."""
        now = await self._now()
        return JSONResponse([{"type": "status", **as_data(view, now.path, now.run)} for view in now.batches])

    async def _metrics(self, request: Request) -> Response:
        return Response(metrics(await self._now()), media_type=MEDIA_TYPE)

    async def _now(self) -> Board:
        async with self._turn:
            if self._board is None or trio.current_time() - self._read_at > _FRESH_S:
                self._board = await trio.to_thread.run_sync(lambda: board(self._ledger, now_us=time.time_ns() // 1000))
                self._read_at = trio.current_time()
            return self._board


async def _file(name: str, media_type: str, request: Request) -> Response:
    return Response(files(__package__).joinpath(name).read_bytes(), media_type=media_type)


async def _unreadable(request: Request, exc: Exception) -> Response:
    """Say so for now: the next request reads again."""
    return PlainTextResponse(f"The ledger cannot be read: {exc}\n", 503)
