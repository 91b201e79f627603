"""uvicorn with time limits for each part of a request, and with room for new clients when others only keep connections open."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any, Literal

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from keras_skin.serving import limits

Wait = Literal["", "head", "body", "answer"]


def configuration(app: Any) -> uvicorn.Config:
    """Returns uvicorn's configuration for the application."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,  # requests are not logged
        server_header=False,
        limit_concurrency=limits.CONNECTIONS + 1,  # `Connection` closes a waiting one first
        timeout_graceful_shutdown=5,
    )


class Connection(H11Protocol):
    """A connection whose client must send a request's head, send its body and take the answer in limited time.

    uvicorn limits only the time between requests, and answers 503 to everybody once enough clients keep unfinished requests. Here
    a new connection closes another one that waits for its client: of the client with the most such connections, the one without
    an answered request that has waited longest.
    """

    _wait: Wait = ""
    _timer: asyncio.TimerHandle | None = None
    _since = 0.0
    _has_answered = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch("head")
        if len(self.connections) > limits.CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._watch("")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch(self._expected())

    def on_response_complete(self) -> None:
        self._has_answered = True
        super().on_response_complete()
        self._watch(self._expected())

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch("answer")

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch(self._expected())

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for its client, with or without a part of a request."""
        return not self.transport.is_closing() and self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _expected(self) -> Wait:
        """The part of a request that the client has started and not finished."""
        if self.transport.is_closing():
            return self._wait
        if self.flow.write_paused:
            return "answer"
        if self.conn.their_state is h11.SEND_BODY:
            return "body"
        return "head" if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0] else ""

    def _watch(self, wait: Wait) -> None:
        """Starts the time limit of `wait`, if the connection was not waiting for it already."""
        if wait == self._wait and wait:
            return
        if self._timer is not None:
            self._timer.cancel()
        seconds = {"head": limits.HEAD_SECONDS, "body": limits.BODY_SECONDS, "answer": limits.ANSWER_SECONDS}.get(wait)
        self._timer = self.loop.call_later(seconds, self._close_late, seconds) if seconds else None
        self._wait, self._since = wait, self.loop.time()

    def _close_late(self, seconds: float) -> None:
        self._give_up(f"The request did not arrive within {seconds:.0f} seconds.")

    def _make_room(self) -> None:
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        waiting = [other for other in others if other.is_waiting]
        if waiting:
            clients = Counter(other.client_host for other in waiting)
            oldest = min(waiting, key=lambda other: (-clients[other.client_host], other._has_answered, other._since))
            oldest._give_up("The server has too many connections. Send the request again, at once.")

    @property
    def client_host(self) -> str:
        """The address of the client, or of the proxy before it."""
        return self.client[0] if self.client else ""

    def _give_up(self, problem: str) -> None:
        """Closes the connection, with an answer if the client waits for one."""
        if self._wait in ("head", "body") and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            if self.cycle is not None or self.conn.trailing_data[0]:
                content = json.dumps({"error": problem}).encode()
                headers = [("content-type", "application/json"), ("content-length", str(len(content))), ("connection", "close")]
                answer = h11.Response(status_code=408, headers=headers, reason=b"Request Timeout")
                for event in (answer, h11.Data(data=content), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()
        else:
            self.transport.abort()
