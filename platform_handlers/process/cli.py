"""`byok platform run`: every handler but the evaluator, the API and the page, in one process."""

import asyncio

import click

from bus_schemas.transport.private_files import PUBLIC, write_private
from bus_schemas.transport.private_process import forbid_dumps
from bus_schemas.transport.pulse import tell_ready
from platform_handlers.settings import Settings
from platform_handlers.until_stopped import until_stopped


@click.group()
def platform() -> None:
    """Run the platform's handlers, its API and its page."""


@platform.command()
@click.option(
    "--listen",
    default="127.0.0.1:8443",
    show_default=True,
    metavar="HOST:PORT",
    help="Where the API and the page are served; port 0 lets the system choose.",
)
@click.pass_obj
def run(settings: Settings, listen: str) -> None:
    """Run until Ctrl-C or SIGTERM."""
    forbid_dumps()
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise click.UsageError(f"--listen takes HOST:PORT, such as 127.0.0.1:8443, not {listen!r}")
    asyncio.run(_run(settings, host.strip("[]"), int(port)))


async def _run(settings: Settings, host: str, port: int) -> None:
    from platform_handlers.process.app import Listen, run_platform  # noqa: PLC0415 (start-up)

    installation = settings.installation()

    def ready(url: str) -> None:
        write_private(installation.api_url, url.encode(), PUBLIC)
        click.echo(f"the platform answers on {url}")
        tell_ready(f"answering on {url}")

    await until_stopped(run_platform(installation, settings.target(), Listen(host, port), ready))
