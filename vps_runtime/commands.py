"""The commands of `byok-vps`. Secrets come from a prompt, a file or a pipe, never from argv."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TextIO

import click
import structlog

from bus_schemas.exit_codes import ExitCode, root_cause
from bus_schemas.fields import at_utc
from bus_schemas.finding import report, well
from bus_schemas.join_token import MAX_LENGTH, JoinToken
from bus_schemas.keys import fingerprint_typed, in_fours
from bus_schemas.transport.logs import log_to_stderr
from bus_schemas.transport.private_process import forbid_dumps
from vps_runtime.agent import AgentOptions, Ending, run_until_stopped
from vps_runtime.doctor import examine, held_words
from vps_runtime.enrolment.join import join as enrol
from vps_runtime.enrolment.pins import change_pins, read_pins
from vps_runtime.exit_codes import exit_code, sentence
from vps_runtime.gateway.cli import gateway_options
from vps_runtime.gateway.server import GatewayOptions
from vps_runtime.openclaw.cli import (
    openclaw_config_command,
    openclaw_options,
    resolve_command,
    target_of,
    token_option,
    url_option,
)
from vps_runtime.openclaw.service import OpenClawOptions
from vps_runtime.options import state_option as _state_option
from vps_runtime.recovery.cli import recover, recovery_code
from vps_runtime.state import StateFolder
from vps_runtime.status import read_status

_log = structlog.get_logger(__name__)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="byok-bus")
def cli() -> None:
    """Keep this server's AI credentials: received sealed, stored encrypted, seen by nobody else."""
    log_to_stderr()


@cli.command(context_settings={"allow_extra_args": True})
@_state_option
@click.option(
    "--owner",
    required=True,
    metavar="FINGERPRINT",
    help="The owner key to obey: the 20 characters that `byok owner keygen` printed.",
)
@click.option(
    "--token-file",
    type=click.File("r"),
    help="Read the join token from this file (`-`: standard input) instead of asking for it.",
)
def join(folder: Path, owner: str, token_file: TextIO | None) -> None:
    """Make this machine a server of its owner, with a join token from `byok server add`."""
    if click.get_current_context().args:  # click would repeat it; it is most likely the token
        raise click.UsageError(
            "the join token is no argument: others could read it; it is asked for"
        )
    forbid_dumps()
    fingerprint = fingerprint_typed(owner)
    token = JoinToken.decode(_read_token(token_file))
    identity = asyncio.run(enrol(StateFolder(folder.absolute()), token, fingerprint))
    click.echo(f"{identity.server_id} belongs to {token.owner_id} and obeys {fingerprint}.")
    click.echo(f"Its fingerprint, for the owner to compare: {identity.fingerprint}")
    click.echo("Next: `byok-vps run`.")


def _read_token(file: TextIO | None) -> str:
    """Return the pasted token: an argument would stay in the shell's history and in `ps`."""
    if file is not None:
        return str(file.read(MAX_LENGTH + 1))
    if not sys.stdin.isatty():
        return sys.stdin.read(MAX_LENGTH + 1)
    return str(click.prompt("Join token", hide_input=True))


class _AddByDefault(click.Group):
    """A group whose `add` may be left out: `trust FINGERPRINT`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Take what is no command as an argument of `add`."""
        first = [] if args[0] in self.commands else ["add"]
        return super().resolve_command(ctx, [*first, *args])


@cli.group(cls=_AddByDefault)
def trust() -> None:
    """Choose whose sealed credentials this server takes: FINGERPRINT, `list`, `rm FINGERPRINT`."""


@trust.command("add")
@_state_option
@click.argument("fingerprint")
def trust_add(folder: Path, fingerprint: str) -> None:
    """Obey the owner key with this 20-character fingerprint."""
    state = StateFolder(folder)
    state.read_settings()
    parsed = fingerprint_typed(fingerprint)
    change_pins(state.pins, lambda pins: pins.with_key(parsed))
    click.echo(f"{parsed} is obeyed from now on.")


@trust.command("list")
@_state_option
def trust_list(folder: Path) -> None:
    """Show the owner keys this server obeys."""
    state = StateFolder(folder)
    state.read_settings()
    for pinned in read_pins(state.pins).pinned:
        click.echo(in_fours(pinned))


@trust.command("rm")
@_state_option
@click.argument("fingerprint")
def trust_rm(folder: Path, fingerprint: str) -> None:
    """Obey this owner key no longer. Credentials it sealed before stay in use."""
    state = StateFolder(folder)
    state.read_settings()
    parsed = fingerprint_typed(fingerprint)
    pins = change_pins(state.pins, lambda pins: pins.without_key(parsed))
    click.echo(f"{parsed} is no longer obeyed; {len(pins.pinned)} left.")


@cli.command()
@_state_option
@click.option(
    "--health-seconds",
    envvar="BYOK_VPS_HEALTH_SECONDS",
    type=click.FloatRange(0.1, 3600),
    default=AgentOptions.health_seconds,
    show_default=True,
    show_envvar=True,
    help="Seconds between two health reports.",
)
@gateway_options
@openclaw_options
def run(
    folder: Path, health_seconds: float, gateway: GatewayOptions, openclaw: OpenClawOptions
) -> None:
    """Unlock, take credentials in, let the agent use them, tell what is held; SIGTERM ends it."""
    forbid_dumps()
    options = AgentOptions(health_seconds, gateway, openclaw)
    ending = asyncio.run(run_until_stopped(StateFolder(folder), options))
    if ending is Ending.LOCKED:
        _start_over()


def _start_over() -> NoReturn:
    """Put a new process in place of this one: the kernel drops all pages, whatever was in them.

    CPython cannot wipe what it copied, so nothing less would take every key out of the memory.
    The process keeps its id; to whoever supervises it, it has not ended.
    """
    sys.stderr.flush()
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 (our own command line, once more)


@cli.command()
@_state_option
def fingerprint(folder: Path) -> None:
    """Print this server's id and fingerprint, which its owner compares before sealing."""
    identity = StateFolder(folder).read_identity()
    click.echo(f"{identity.server_id} {identity.fingerprint}")


@cli.command()
@_state_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(folder: Path, *, as_json: bool) -> None:
    """Show what is held: slot, provider, kind, the revision in use, others. Never a secret."""
    found = asyncio.run(read_status(StateFolder(folder)))
    if as_json:
        click.echo(json.dumps(found.as_json()))
        return
    click.echo(f"{found.server_id} (owner {found.owner_id}), {found.waiting} facts waiting")
    if found.held is not None:
        click.echo(held_words(found.waiting, found.held))
    if found.refusal:
        click.echo(f"refused as a copy ({found.refusal.reason}): {found.refusal.remedy}")
    if found.turned_away:
        since = at_utc(found.turned_away.since).isoformat()
        click.echo(f"turned away by the platform since {since}: {found.turned_away.why}")
    if found.locked:
        click.echo("locked by a signed order: nothing is open, and no credential can be used")
    for slot in found.slots:
        mark = "  stopped" if slot.slot_id in found.stopped else ""
        click.echo(f"{slot.words}{mark}")
    if not found.slots:
        click.echo("no credential is held")


@cli.command()
@_state_option
@url_option
@token_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(
    folder: Path, openclaw_url: str | None, openclaw_token_file: Path | None, *, as_json: bool
) -> None:
    """Check the link, certificates, unlock state, pins, clock and slots; exit 1 if one is bad.

    And OpenClaw, if told where it is.
    """
    state, openclaw = StateFolder(folder), target_of(openclaw_url, openclaw_token_file)
    findings = asyncio.run(examine(state, openclaw=openclaw))
    click.echo(report(findings, as_json=as_json))
    if not well(findings):
        raise SystemExit(ExitCode.NEGATIVE)


cli.add_command(openclaw_config_command)
cli.add_command(resolve_command)
cli.add_command(recovery_code)
cli.add_command(recover)


def run_command(arguments: Sequence[str]) -> int:
    """Run `byok-vps` with *arguments* and return its exit code; errors become one sentence."""
    try:
        cli.main(list(arguments), prog_name="byok-vps", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except SystemExit as error:
        return int(error.code or 0)
    except Exception as error:  # noqa: BLE001 (the last place where one can be told)
        return _told(root_cause(error))
    return ExitCode.OK


def _told(error: BaseException) -> int:
    code = exit_code(error)
    click.echo(f"byok-vps: {sentence(error)}", err=True)
    if code is ExitCode.BUG:
        _log.error("bug", exc_info=error)
    return code
