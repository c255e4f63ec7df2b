"""A task that waits for the bus ends when it is cancelled, and when the bus goes away."""

import asyncio
from pathlib import Path

import pytest

from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import Credentials
from bus_schemas.transport.target import BusTarget


@pytest.fixture
def bus() -> Bus:
    """A connection that is never made."""
    target = BusTarget("tls://nowhere.invalid:1", Path("ca.pem"))
    return Bus(target, "test", lambda: Credentials("", ""))


async def test_a_cancellation_that_meets_the_result_is_heeded(bus: Bus) -> None:
    """`wait_for` of Python 3.11 forgets such a cancellation; we must not."""
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(bus.while_connected(asyncio.wait_for(answer, 5)))
    for _ in range(3):
        await asyncio.sleep(0)
    answer.set_result(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_result_without_cancellation_is_returned(bus: Bus) -> None:
    """Nothing else changes: results, errors and time limits come through."""

    async def failing() -> None:
        raise LookupError

    assert await bus.while_connected(asyncio.sleep(0, 7)) == 7
    with pytest.raises(LookupError):
        await bus.while_connected(failing())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await bus.while_connected(asyncio.sleep(5))
