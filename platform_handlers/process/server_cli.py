"""`byok server`, with the command that takes two handlers: `revoke`.

Its lock is the config writer's, its turning away is provisioning's; neither knows the other.
"""

import asyncio
import time

import click

from bus_schemas.errors import ByokError
from bus_schemas.orders import Addressee
from platform_handlers.config.orders.lock import lock_server
from platform_handlers.provisioning.cli import check_reason, end_server, server
from platform_handlers.provisioning.records import ServerState
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.settings import Settings

__all__ = ["server"]

_LONGEST_WAIT_SECONDS = 0.4
"""A thief who keeps silent must be out within a second: that, and what the push itself takes."""
_LAST_LOOK_SECONDS = 0.5
"""So much longer the ledger is read: the answer may have been given in the last moment."""
_LAST_WORD_SECONDS = 2.0
"""So much longer an order that the bus is slow to take is waited for; the push is long out."""


@server.command()
@click.argument("server_id", metavar="SERVER")
@click.option("--reason", default="revoked_by_operator", show_default=True)
@click.option(
    "--wait",
    type=click.FloatRange(0, _LONGEST_WAIT_SECONDS),
    default=0.3,
    show_default=True,
    help="Seconds for SERVER to say that it has locked itself, before it is turned away.",
)
@click.pass_obj
def revoke(settings: Settings, server_id: str, reason: str, wait: float) -> None:
    """Turn SERVER away; what it holds stays known.

    First it is ordered to drop every key from its memory. A moment later (--wait), whatever it
    answered, its tokens are made void and its connections ended: a stolen machine may never answer,
    and one that is turned away cannot. What is not known to be locked is printed as not locked.

    Exit code 1: a nats-server has not confirmed it, or a connection is still open.
    """
    check_reason(reason)
    asyncio.run(_revoke(settings, server_id, reason, wait))


async def _revoke(settings: Settings, server_id: str, reason: str, wait: float) -> None:
    """Order the lock, turn the server away after *wait* seconds at the latest, say what came."""
    begun = time.monotonic()
    locking = asyncio.create_task(_lock(settings, server_id, wait + _LAST_LOOK_SECONDS))
    try:
        await asyncio.wait({locking}, timeout=wait)
        if answered := locking.done():
            click.echo(locking.result())
        try:
            await asyncio.to_thread(end_server, settings, server_id, ServerState.REVOKED, reason)
        finally:
            if not answered:  # its answer may have come until it was out
                rest = begun + wait + _LAST_WORD_SECONDS - time.monotonic()
                await asyncio.wait({locking}, timeout=max(rest, 0.0))
                unknown = f"{server_id} was not known to be ordered to lock itself; take it as"
                click.echo(locking.result() if locking.done() else f"{unknown} not locked")
    finally:
        locking.cancel()
        await asyncio.wait({locking})


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
