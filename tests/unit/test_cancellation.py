"""A cancelled task ends, also when its answer arrives in the very same moment."""

import asyncio

import pytest

from bus_schemas.transport.connection import heeding_cancellation


async def test_a_cancellation_that_meets_the_result_is_heeded() -> None:
    """`wait_for` of Python 3.11 forgets such a cancellation; our wrapper must not."""
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(heeding_cancellation(asyncio.wait_for(answer, 5)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    answer.set_result(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_result_without_cancellation_is_returned() -> None:
    """Nothing else changes."""
    assert await heeding_cancellation(asyncio.sleep(0, 7)) == 7
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await heeding_cancellation(asyncio.sleep(5))
