"""`byok evaluator`: the blind evaluator, a process (and better a uid) of its own."""

import asyncio
import contextlib
import signal

import click

from platform_handlers.settings import Settings


@click.group()
def evaluator() -> None:
    """Run the blind evaluator."""


@evaluator.command()
@click.pass_obj
def run(settings: Settings) -> None:
    """Answer servers' unlocks and fingerprints until Ctrl-C or SIGTERM."""
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    from platform_handlers.evaluator.app import run_evaluator  # noqa: PLC0415 (start-up)

    ready = asyncio.Event()
    serving = asyncio.create_task(run_evaluator(settings.installation(), settings.target(), ready))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.cancel)
    serving.add_done_callback(lambda _: ready.set())
    await ready.wait()
    if not serving.done():
        click.echo("the evaluator answers")
    with contextlib.suppress(asyncio.CancelledError):
        await serving
