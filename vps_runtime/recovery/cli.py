"""`byok-vps recovery-code` and `byok-vps recover`: the way in without the evaluator's old key."""

import asyncio
import sys
from pathlib import Path

import click

from bus_schemas.transport.private_process import forbid_dumps
from vps_runtime.options import state_option
from vps_runtime.recovery.code import forget_recovery_code, make_recovery_code
from vps_runtime.recovery.code import recover as come_back
from vps_runtime.state import StateFolder
from vps_runtime.vault.recovery import MAX_TYPED, code_typed


@click.command("recovery-code")
@state_option
@click.option("--forget", is_flag=True, help="Remove from this disk what the code opens.")
def recovery_code(folder: Path, *, forget: bool) -> None:
    """Show a code, this once, that opens this server's vault without the evaluator.

    Stop `byok-vps run` first. Whoever has the code and this disk needs nobody's leave: keep it on
    paper and away from the machine. A new code takes the place of the one before.

    Neither that nor --forget reaches copies of this disk, nor what the file system keeps of a
    file that is gone: an older code still opens those. Destroy its paper.
    """
    forbid_dumps()
    state = StateFolder(folder)
    if forget:
        had = forget_recovery_code(state)
        gone = "The code opens nothing here any more, but copies of this disk: destroy its paper."
        click.echo(gone if had else "There was no code.")
        return
    code = asyncio.run(make_recovery_code(state))
    click.echo("Recovery code; it is not shown again:", err=True)
    click.echo(code)


@click.command()
@state_option
def recover(folder: Path) -> None:
    """Open this server's vault with the recovery code, and bind it to the evaluator anew.

    Stop `byok-vps run` first. Asks for the code, or reads it from standard input.
    """
    forbid_dumps()
    state = StateFolder(folder)
    state.read_settings()
    incarnation = asyncio.run(come_back(state, code_typed(_asked())))
    click.echo(f"The vault is open again (start {incarnation}). Next: `byok-vps run`.")


def _asked() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.read(MAX_TYPED)
    return str(click.prompt("Recovery code (hidden)", hide_input=True))
