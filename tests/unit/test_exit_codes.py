"""Every way a command can fail has its exit code."""

import pytest

from bus_schemas.errors import ContractError, ReaderMustStop, Refused
from bus_schemas.exit_codes import root_cause
from bus_schemas.transport.database import StorageFull
from bus_schemas.transport.target import BusDenied, BusUnavailable
from platform_handlers.exit_codes import exit_code
from platform_handlers.provisioning.turn_away import NotYetVerified


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ContractError("malformed"), 65),
        (ReaderMustStop("unknown_major", 7, "install a newer version"), 65),
        (BusUnavailable(""), 69),
        (NotYetVerified(""), 1),
        (StorageFull(""), 75),
        (BusDenied(""), 77),
        (Refused("owner_exists"), 77),
        (PermissionError(), 77),
        (Refused("not_initialised"), 78),
        (KeyError(), 70),
    ],
)
def test_the_code_says_who_must_act(error: Exception, code: int) -> None:
    """Data, network, disk, permission, configuration, or a bug of ours."""
    assert exit_code(error) == code


def test_tasks_that_fail_together_are_told_by_the_first() -> None:
    """A group of groups ends as its first leaf would."""
    first = BusDenied("first")
    group = ExceptionGroup("a", [ExceptionGroup("b", [first]), KeyError()])
    assert root_cause(group) is first
    assert root_cause(first) is first
