"""`byok`: the commands of the platform, of owners and of operators.

Each command is imported when it is called, so that start-up stays fast. Whatever goes wrong is
one sentence on stderr and an exit code; `--debug` shows where.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Final, NoReturn

import click

from bus_schemas.exit_codes import ExitCode, root_cause
from platform_handlers.settings import Settings

_COMMANDS: Final = {
    "init": "platform_handlers.provisioning.cli:init",
    "owner": "platform_handlers.provisioning.cli:owner",
    "server": "platform_handlers.process.server_cli:server",
    "nats": "platform_handlers.authority.cli:nats",
    "ca": "platform_handlers.ca.cli:ca",
    "doctor": "platform_handlers.doctor.cli:doctor",
    "evaluator": "platform_handlers.evaluator.cli:evaluator",
    "platform": "platform_handlers.process.cli:platform",
    "subscriber": "platform_handlers.subscriber.cli:subscriber",
    "events": "platform_handlers.replay.cli:events",
    "replay": "platform_handlers.replay.cli:replay",
    "demo": "platform_handlers.demo.cli:demo",
    "key": "platform_handlers.owner.cli:key",
    "banners": "platform_handlers.owner.cli:banners",
    "providers": "platform_handlers.owner.providers:providers",
}
"""Name of a command and where it is defined."""
_WITHOUT_A_LOG: Final = frozenset({"key", "banners", "providers"})
"""They speak to the API alone, or to nobody, and log nothing; so they start sooner."""


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command, imported now."""
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--state",
    envvar="BYOK_STATE",
    default="./byok-state",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of the installation (BYOK_STATE).",
)
@click.option(
    "--bus",
    envvar="BYOK_BUS",
    metavar="URL",
    help="Address of the bus, tls://host:port (BYOK_BUS); without it the installation's own.",
)
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
@click.version_option(package_name="byok-bus")
@click.pass_context
def root(ctx: click.Context, state: Path, bus: str | None, *, debug: bool) -> None:
    """Bring your own key: customers' AI credentials that live on their own servers only."""
    del debug  # `main` looks at it
    ctx.obj = Settings(state, bus)
    if ctx.invoked_subcommand not in _WITHOUT_A_LOG:
        from bus_schemas.transport.logs import log_to_stderr  # noqa: PLC0415 (start-up)

        log_to_stderr()  # standard output belongs to what the command prints


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with a code that says who must act."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = root.main(args=arguments, prog_name="byok", standalone_mode=False)
    except click.Abort:
        sys.exit(ExitCode.INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:  # the last line of defence
        if "--debug" in arguments:
            raise
        _end(error)
    # Outside standalone mode click returns the code of `ctx.exit` instead of raising it.
    sys.exit(code if isinstance(code, int) else 0)


def _end(error: Exception) -> NoReturn:
    from platform_handlers.exit_codes import exit_code  # noqa: PLC0415 (start-up)

    cause = root_cause(error)
    sentence = str(cause)
    click.echo(f"byok: {sentence or type(cause).__name__}", err=True)
    sys.exit(exit_code(cause))
