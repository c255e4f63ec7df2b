"""An evaluator that is killed (SIGKILL, by itself) at one exact line: a program for the tests.

python -m tests.integration.vps.doomed_evaluator FOLDER URL STEP NUMBER
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from bus_schemas.transport import outbox
from bus_schemas.transport.target import BusTarget
from platform_handlers.authority.installation import Installation
from platform_handlers.evaluator import ratchet
from platform_handlers.evaluator.app import run_evaluator
from platform_handlers.evaluator.servers import ServerStore

PLACES: Final = {
    "store": (ratchet, "store"),
    "tell": (ServerStore, "tell_unlocked"),
    "send": (outbox, "store_raw"),
}
"""What is killed before or after: storing the ratchet, noting the fact, sending the fact."""


def doom(step: str, number: int) -> None:
    """Be killed at *step* (`before-store` and so on), when it comes for the *number*th time."""
    when, _, what = step.partition("-")
    owner, name = PLACES[what]
    real: Callable[..., Awaitable[object]] = getattr(owner, name)
    calls = 0

    async def dying(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = await real(*arguments, **options)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


if __name__ == "__main__":
    folder, url, at, nth = sys.argv[1:]
    installation = Installation(Path(folder))
    doom(at, int(nth))
    target = BusTarget(url, installation.ca)
    asyncio.run(run_evaluator(installation, target, lambda: print("ready", flush=True)))  # noqa: T201
