"""What an operator may say about the gateway."""

import os

import click
import pytest
from click.testing import CliRunner

from vps_runtime.gateway.cli import gateway_options
from vps_runtime.gateway.server import GatewayOptions


@click.command
@gateway_options
def told(gateway: GatewayOptions) -> None:
    """Say whom the socket would answer."""
    click.echo(gateway.user)


@pytest.mark.parametrize(
    ("words", "user"),
    [([], os.geteuid()), (["--agent-user", "0"], 0), (["--agent-user", "root"], 0)],
)
def test_the_agents_user_is_a_name_or_a_number(words: list[str], user: int) -> None:
    """Whoever runs this, if nobody says otherwise."""
    assert CliRunner().invoke(told, words).output == f"{user}\n"


@pytest.mark.parametrize(
    ("name", "why"), [("no-such-user", "has no user"), ("²", "has no user"), ("65534", "anybody")]
)
def test_a_user_that_is_none_is_refused(name: str, why: str) -> None:
    """65534 is what the kernel says of everybody whom a unit's name space of users hides."""
    result = CliRunner().invoke(told, ["--agent-user", name])
    assert result.exit_code == 2
    assert why in result.output
