"""Slots of the model: how many calls run at once, which requests wait, and how long.

A thread that decodes an image cannot be stopped. A process for each call could be, but it would hold the model's memory again and
load for seconds after every kill. Two things bound a call instead. `limits.check_images` bounds what a file can cost before it
gets a slot. A call that takes longer all the same is given up after `limits.REQUEST_SECONDS`: its slot is free and its thread
runs out. While `limits.MAX_ABANDONED` such threads run beside the slots, new requests are refused.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request

from keras_skin.serving import limits
from keras_skin.serving.limits import Refused

T = TypeVar("T")


class Slots:
    """The slots of one model."""

    def __init__(self) -> None:
        self._all = anyio.CapacityLimiter(limits.CONCURRENT_CALLS)
        self._heavy = anyio.CapacityLimiter(limits.CONCURRENT_CALLS - 1)
        self._checks = anyio.CapacityLimiter(limits.CONCURRENT_CHECKS)
        self._threads = anyio.CapacityLimiter(math.inf)  # the slots are taken before
        self._lock = threading.Lock()
        self._running = 0
        self._clients: Counter[str] = Counter()

    async def check(self, function: Callable[..., T], *arguments: Any) -> T:
        """Parses or checks a body in a thread, without the model."""
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._checks)

    async def call(self, request: Request, cost: int, function: Callable[..., T], *arguments: Any) -> T:
        """Calls the model in a thread as soon as there is a slot.

        Args:
            request: the request, whose body has been read.
            cost: from `limits.check_images`; from `limits.HEAVY` on, one slot stays free for other requests.
            function: what calls the model.
            arguments: of the function.

        Raises:
            Refused: 429 if the client has too many requests, 503 if there is no answer in time.
            ClientDisconnect: if the client has gone while it waited.
        """
        client = request.client.host if request.client else ""
        if self._clients[client] >= limits.CALLS_OF_CLIENT:
            raise Refused(
                429, f"This client already has {limits.CALLS_OF_CLIENT} requests here. Wait for an answer, then ask again."
            )
        self._clients[client] += 1
        try:
            with anyio.fail_after(limits.REQUEST_SECONDS):
                async with self._heavy if cost >= limits.HEAVY else nullcontext(), self._all:
                    if await request.is_disconnected():
                        raise ClientDisconnect
                    return await self._in_thread(function, *arguments)
        except TimeoutError:
            seconds = f"{limits.REQUEST_SECONDS:.0f} seconds"
            raise Refused(503, f"There was no answer within {seconds}. Ask again later, or send a smaller image.") from None
        finally:
            self._clients[client] -= 1
            self._clients += Counter()  # drops clients without requests

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        if self._running >= limits.CONCURRENT_CALLS + limits.MAX_ABANDONED:
            raise Refused(503, "The server is still busy with requests that took too long. Ask again later.")

        def counted() -> T:
            try:
                return function(*arguments)
            finally:
                with self._lock:
                    self._running -= 1

        with self._lock:
            self._running += 1
        return await anyio.to_thread.run_sync(counted, limiter=self._threads, abandon_on_cancel=True)
