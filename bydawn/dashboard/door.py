"""Who may ask the dashboard: a guard in front of the application, which answers everything else by itself (SEC-6).

The port is on loopback, and that alone keeps few out: any page in the user's browser can send requests there, a name
that its owner resolves to 127.0.0.1 makes such a page "the same site" (DNS rebinding), and other users of the machine
can connect.  So each request must

* be a GET or HEAD: nothing here changes anything;
* carry exactly one Host, spelt as one of the two names of this very address;
* not be sent by another site's page, where the browser says who sent it (Fetch Metadata);
* bring the token: in the address, as ``bydawn serve`` prints it, or in the cookie that this address is exchanged for.

The token is drawn at each start and compared in constant time.  A cookie does not know ports, so the cookie's name
holds ours; a server that another user runs on this machine can still be sent it, when somebody opens that one in the
same browser.  What it could read then are counts, names and dollars, until ``bydawn serve`` ends.
"""

import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl

from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = frozenset({"/metrics"})
"""What may be opened to whoever can connect, when that is asked for."""

_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_OWN_SITES = frozenset({"", "same-origin", "none"})  # "none": typed, or a bookmark
_SHUT = "This needs the address that `bydawn serve` printed when it started, with its token.\n"


class Door:
    """ASGI middleware.  ``open_metrics``: let ``/metrics`` pass without the token."""

    def __init__(self, app: ASGIApp, *, port: int, token: str, open_metrics: bool = False) -> None:
        self._app = app
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._token = token
        self._cookie = f"bydawn-{port}"
        self._open = OPEN_PATHS if open_metrics else frozenset[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                fixed = [(name.encode(), text.encode()) for name, text in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *fixed]}
            await send(message)

        answer = self._judged(scope)
        await (self._app if answer is None else answer)(scope, receive, guarded)

    def _judged(self, scope: Scope) -> Response | None:
        """The answer to who may not pass; None for who may."""
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("This only shows.\n", 405, {"allow": "GET, HEAD"})
        if not self._named_exactly(scope) or _header(scope, b"sec-fetch-site") not in _OWN_SITES:
            return PlainTextResponse("Not here.\n", 403)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if len(given) == 1 and self._is_token(given[0]):
            return self._exchanged() if scope["path"] == "/" else None
        if scope["path"] in self._open or self._is_token(self._in_cookie(scope)):
            return None
        return PlainTextResponse(_SHUT, 403)

    def _named_exactly(self, scope: Scope) -> bool:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        return len(hosts) == 1 and hosts[0].decode("latin-1") in self._hosts

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), self._token.encode())

    def _in_cookie(self, scope: Scope) -> str:
        try:
            found = SimpleCookie(_header(scope, b"cookie")).get(self._cookie)
        except CookieError:
            return ""
        return "" if found is None else found.value

    def _exchanged(self) -> Response:
        """Give the cookie, and lead to the same page without the token: it must not stay in the browser's history."""
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie, self._token, path="/", httponly=True, samesite="strict")
        return answer


def _header(scope: Scope, wanted: bytes) -> str:
    """The header as it came; several are joined, and then equal nothing that is allowed."""
    return ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == wanted)
