"""`byok doctor`: one line for each thing that was looked at, and what to do about it."""

import asyncio

import click

from bus_schemas.exit_codes import ExitCode
from bus_schemas.finding import report, well
from platform_handlers.settings import Settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def doctor(settings: Settings, *, as_json: bool) -> None:
    """Check bus, roles, streams, keys, clocks, readers, certificates, servers; exit 1 if bad."""
    from platform_handlers.doctor.examine import examine  # noqa: PLC0415 (start-up)

    findings = asyncio.run(examine(settings.installation(), settings.target()))
    click.echo(report(findings, as_json=as_json))
    if not well(findings):
        raise SystemExit(ExitCode.NEGATIVE)
