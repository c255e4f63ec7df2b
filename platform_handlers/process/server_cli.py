"""`byok server`, with the command that takes two handlers: `revoke`.

Its lock is the config writer's, its turning away is provisioning's; neither knows the other.
"""

import asyncio

import click

from bus_schemas.errors import ByokError
from bus_schemas.orders import Addressee
from platform_handlers.config.orders.lock import lock_server
from platform_handlers.provisioning.cli import check_reason, end_server, server
from platform_handlers.provisioning.records import ServerState
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.settings import Settings

__all__ = ["server"]


@server.command()
@click.argument("server_id", metavar="SERVER")
@click.option("--reason", default="revoked_by_operator", show_default=True)
@click.option(
    "--wait",
    type=click.FloatRange(0, 60),
    default=3.0,
    show_default=True,
    help="Seconds for SERVER to say that it has locked itself.",
)
@click.pass_obj
def revoke(settings: Settings, server_id: str, reason: str, wait: float) -> None:
    """Turn SERVER away; what it holds stays known.

    First it is ordered to drop every key from its memory, and its answer is printed: a stolen
    machine may not give one. Then its tokens are made void and its connections ended, whatever it
    answered.

    Exit code 1: a nats-server has not confirmed it, or a connection is still open.
    """
    check_reason(reason)
    click.echo(asyncio.run(_lock(settings, server_id, wait)))
    end_server(settings, server_id, ServerState.REVOKED, reason)


async def _lock(settings: Settings, server_id: str, wait: float) -> str:
    """Return what came of the lock, in words: the revocation goes on without it."""
    installation = settings.installation()
    async with await Registry.open(installation.platform / FILE_NAME) as registry:
        record = await registry.require_server(server_id)
    if record.identity_key is None or not record.active:
        return f"{server_id} is {record.state}: there is nobody to lock"
    to = Addressee(record.owner_id, server_id, record.identity_key)
    try:
        receipt = await lock_server(installation, settings.target(), to, wait_seconds=wait)
    except (ByokError, OSError) as error:
        return f"{server_id} was not ordered to lock itself: {error}"
    except Exception as error:  # noqa: BLE001 (what it made us stumble over must not keep it in)
        return f"{server_id} was not ordered to lock itself: {type(error).__name__}, a bug of ours"
    return receipt.line()
