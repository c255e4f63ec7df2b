"""`byok evaluator`: the blind evaluator, a process (and better a uid) of its own."""

import asyncio
import time
from datetime import datetime, timedelta

import click

from bus_schemas.events import UnlockShredded
from bus_schemas.fields import at_utc
from bus_schemas.transport.private_process import forbid_dumps
from bus_schemas.transport.pulse import tell_ready
from platform_handlers.settings import Settings
from platform_handlers.until_stopped import until_stopped

_LONGEST_RECOVERY = timedelta(days=7)


@click.group()
def evaluator() -> None:
    """Run the blind evaluator, and the commands for its bad days."""


@evaluator.command()
@click.pass_obj
def run(settings: Settings) -> None:
    """Answer servers' unlocks and fingerprints until Ctrl-C or SIGTERM.

    Start it twice on one folder, and either goes on alone when the other dies.
    """
    forbid_dumps()
    asyncio.run(_run(settings))


@evaluator.command()
@click.option("--until", required=True, metavar="T", help="RFC 3339, such as 2030-01-31T18:00Z.")
@click.pass_obj
def recover(settings: Settings, until: str) -> None:
    """After a restore: believe each server one higher generation, until T.

    For a ratchet that was restored from a backup, and for servers that may have lost starts by
    it. In that time a copy of a disk that is newer than the backup is believed as well, if it asks
    before its server does: keep T short, and start the servers anew. No older disk is opened. Who
    came so is told in the ledger (byok.unlock.recovered.v1).

    A state that is gone or not the evaluator's own (`ratchet_forged`) is never believed: it goes
    on from the last one that it stored. A server whose key is not in unlock-keys.db
    (`unlock_key_missing`) is made a new one, with which only a recovery code opens its vault.
    """
    end = _instant(until)
    asyncio.run(_recover(settings, int(end.timestamp())))
    click.echo(f"until {end.isoformat()} each server that lost starts is believed one higher one")


@evaluator.command()
@click.argument("server_id", metavar="SERVER")
@click.option("--confirm", required=True, metavar="SERVER", help="The same id once more.")
@click.pass_obj
def shred(settings: Settings, server_id: str, confirm: str) -> None:
    """Destroy SERVER's unlock key for good: no copy of its disk opens any more.

    The running machine goes on until it ends. What this cannot undo: backups of unlock-keys.db,
    and a recovery code together with a disk. Nothing takes it back.
    """
    if confirm != server_id:
        raise click.BadParameter(f"{confirm} is not {server_id}", param_hint="--confirm")
    asyncio.run(_shred(settings, server_id))
    click.echo(f"the unlock key of {server_id} is destroyed")


async def _run(settings: Settings) -> None:
    from platform_handlers.evaluator.app import run_evaluator  # noqa: PLC0415 (start-up)

    def ready() -> None:
        click.echo("the evaluator answers")
        tell_ready("answering servers")

    await until_stopped(run_evaluator(settings.installation(), settings.target(), ready))


async def _recover(settings: Settings, until: int) -> None:
    from platform_handlers.evaluator.servers import (  # noqa: PLC0415 (start-up)
        FILE_NAME,
        ServerStore,
    )

    servers = await ServerStore.open(settings.installation().evaluator / FILE_NAME)
    try:
        await servers.open_recovery(until)
    finally:
        await servers.close()


async def _shred(settings: Settings, server_id: str) -> None:
    from platform_handlers.evaluator.keys import KeyStore  # noqa: PLC0415 (start-up)
    from platform_handlers.evaluator.servers import (  # noqa: PLC0415 (start-up)
        FILE_NAME,
        ServerStore,
        require_known,
    )

    folder = settings.installation().evaluator
    servers = await ServerStore.open(folder / FILE_NAME)
    try:
        server = require_known(server_id, await servers.server(server_id))
        keys = await KeyStore.open(folder)
        try:
            await keys.shred(server_id, server.enrolment)
        finally:
            await keys.close()
        # A running evaluator sends it; without one it waits for the next.
        await servers.tell(UnlockShredded(server_id=server_id))
    finally:
        await servers.close()


def _instant(text: str) -> datetime:
    """Return *text* as an instant in the next days."""
    try:
        end = datetime.fromisoformat(text)
    except ValueError:
        end = None
    if end is None or end.tzinfo is None:
        raise click.BadParameter(f"{text} is no RFC 3339 instant", param_hint="--until")
    now = at_utc(time.time())
    if not now < end <= now + _LONGEST_RECOVERY:
        raise click.BadParameter(
            f"{text} is not within the next {_LONGEST_RECOVERY.days} days", param_hint="--until"
        )
    return end
