"""What stands between a client and the application: who may ask, the security headers, and errors without a traceback."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Collection
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("keras_skin")

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
FAILED = "The server failed on this request and keeps running."
_ADVICE = "If a proxy serves it under that name, start it with --allow-host NAME."


class Guard:
    """ASGI middleware.

    A page of another site can send requests to this computer through the user's browser. If it lets its own name point here (DNS
    rebinding), `Host` is that name. If it posts a form, `Origin` is the other site. Both are refused with 403.

    Args:
        app: the application.
        hosts: the names in `Host` that may ask, without ports; None accepts every name.
        allowed: names whose pages may ask as well, because a proxy serves this server under them.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None = None, allowed: Collection[str] = ()) -> None:
        self._app, self._hosts, self._allowed = app, hosts, frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def send_guarded(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        problem = self._problem(Headers(scope=scope))
        if problem:
            await JSONResponse({"error": problem}, 403)(scope, receive, send_guarded)
            return
        try:
            await self._app(scope, receive, send_guarded)
        except ClientDisconnect:
            log.warning("A client closed its connection before it had an answer.")
        except Exception as error:  # the places in the code, without values from the request
            log.error(
                "%s while answering a request:\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
            )
            if not has_started:
                await JSONResponse({"error": FAILED}, 500)(scope, receive, send_guarded)

    def _problem(self, headers: Headers) -> str:
        """Why a request may not ask; "" if it may."""
        host, origin = headers.get("host", ""), headers.get("origin")
        hosts = None if self._hosts is None else self._allowed.union(self._hosts)
        if hosts is not None and _parts(f"//{host}")[0] not in hosts:
            return f"This server is not asked as '{host[:100]}'; expected {', '.join(sorted(hosts))}. {_ADVICE}"
        if origin is not None:
            name, place = _parts(origin)
            if not name or (name not in self._allowed and place != host.lower()):
                return f"A page of '{origin[:100]}' may not ask this server; expected a page of its own. {_ADVICE}"
        return ""


def _parts(address: str) -> tuple[str, str]:
    """The name of an address, and the name with its port, in small letters; "" if there is none."""
    try:
        parts = urlsplit(address)
        return parts.hostname or "", parts.netloc.lower()
    except ValueError:
        return "", ""
