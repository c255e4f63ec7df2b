"""`python -m tests.provider --port N [--accepts-all]`: says `ready URL`, then serves."""

import argparse
import asyncio
import signal

from tests.provider.control import add_control
from tests.provider.server import FakeProvider


async def _serve(port: int, *, accepts_all: bool) -> None:
    provider = FakeProvider(accepts_all=accepts_all)
    add_control(provider)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with provider.serving(port):
        print(f"ready {provider.origin}", flush=True)  # noqa: T201 (its one word)
        await stopped.wait()


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="python -m tests.provider")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--accepts-all", action="store_true")
    chosen = parser.parse_args()
    asyncio.run(_serve(chosen.port, accepts_all=chosen.accepts_all))


if __name__ == "__main__":
    main()
