"""`byok evaluator`: the blind evaluator, a process (and better a uid) of its own."""

import asyncio

import click

from bus_schemas.transport.private_process import forbid_dumps
from platform_handlers.settings import Settings
from platform_handlers.until_stopped import until_stopped


@click.group()
def evaluator() -> None:
    """Run the blind evaluator."""


@evaluator.command()
@click.pass_obj
def run(settings: Settings) -> None:
    """Answer servers' unlocks and fingerprints until Ctrl-C or SIGTERM."""
    forbid_dumps()
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    from platform_handlers.evaluator.app import run_evaluator  # noqa: PLC0415 (start-up)

    def ready() -> None:
        click.echo("the evaluator answers")

    await until_stopped(run_evaluator(settings.installation(), settings.target(), ready))
