"""How every command that stays in the foreground ends: by Ctrl-C, SIGTERM or its own error."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any

from bus_schemas.transport.pulse import Pulse
from bus_schemas.transport.service_manager import from_environment


async def until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Run *work* until it ends or a signal asks it to; a signal is no error. Raises what it raises.

    *work* is cancelled, so that it can put its things in order. Its `watched` tasks ping systemd.
    """
    manager = from_environment()
    with Pulse(manager).watching():
        running = asyncio.create_task(work)

    def stop() -> None:
        manager.stopping()
        running.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await running
