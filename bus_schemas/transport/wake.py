"""Waiting to be woken, but never for ever: a wake is a hint, and looking costs little."""

import asyncio
import contextlib


async def woken(wake: asyncio.Event, within: float) -> None:
    """Return once *wake* is set, after *within* seconds at the latest. Whoever waits clears it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            await wake.wait()
