"""Who gets a slot of the model, and when it is free again."""

import threading
from collections.abc import Callable

import anyio
import pytest
from starlette.requests import ClientDisconnect, Request

from keras_skin.serving import limits
from keras_skin.serving.limits import HEAVY, Refused
from keras_skin.serving.slots import Slots


def request_of(client="10.0.0.1", is_connected: Callable[[], bool] = lambda: True):
    async def receive():
        if is_connected():
            await anyio.sleep_forever()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "method": "POST", "headers": [], "client": (client, 1)}, receive)


def test_heavy_requests_leave_a_slot_to_others():
    async def main():
        slots, release = Slots(), threading.Event()
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(slots.call, request_of(), HEAVY, release.wait)
            await anyio.sleep(0.05)
            with anyio.fail_after(2):
                assert await slots.call(request_of(), HEAVY - 1, lambda: "answer") == "answer"
            release.set()

    anyio.run(main)


def test_a_call_that_takes_too_long_frees_its_slot_but_not_for_ever_more(monkeypatch):
    monkeypatch.setattr(limits, "REQUEST_SECONDS", 0.1)

    async def main():
        slots, release = Slots(), threading.Event()
        for _ in range(limits.CONCURRENT_CALLS + limits.MAX_ABANDONED):
            with pytest.raises(Refused, match="no answer within 0 seconds") as refusal:
                await slots.call(request_of(), 0, release.wait)
            assert refusal.value.status == 503
        with pytest.raises(Refused, match="still busy with requests that took too long"):
            await slots.call(request_of(), 0, str)
        release.set()
        with anyio.fail_after(5):
            while slots._running:
                await anyio.sleep(0.01)
        assert await slots.call(request_of(), 0, lambda: "answer") == "answer"

    anyio.run(main)


def test_one_client_cannot_take_every_place(monkeypatch):
    monkeypatch.setattr(limits, "CALLS_OF_CLIENT", 3)

    async def main():
        slots, release = Slots(), threading.Event()
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(slots.call, request_of(), HEAVY, release.wait)
            await anyio.sleep(0.05)
            with pytest.raises(Refused, match="already has 3 requests here") as refusal:
                await slots.call(request_of(), 0, str)
            assert refusal.value.status == 429
            assert await slots.call(request_of("10.0.0.2"), 0, lambda: "answer") == "answer"
            release.set()
        assert not slots._clients
        assert await slots.call(request_of(), 0, lambda: "answer") == "answer"

    anyio.run(main)


def test_a_client_that_left_while_it_waited_costs_nothing():
    calls, is_connected = [], True

    async def main():
        nonlocal is_connected
        slots, release = Slots(), threading.Event()

        async def leave():
            with pytest.raises(ClientDisconnect):
                await slots.call(request_of(is_connected=lambda: is_connected), 0, calls.append, 1)

        async with anyio.create_task_group() as group:
            for _ in range(limits.CONCURRENT_CALLS):
                group.start_soon(slots.call, request_of(), 0, release.wait)
            await anyio.sleep(0.05)
            group.start_soon(leave)
            await anyio.sleep(0.05)
            is_connected = False
            release.set()

    anyio.run(main)
    assert calls == []
