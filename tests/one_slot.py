"""What is told of one slot of one server, for tests that fold it."""

from collections.abc import Callable

from bus_schemas.events import ConfigRequested
from bus_schemas.events.config import DesiredSlot
from bus_schemas.events.reported import RotationStep
from bus_schemas.fields import CredentialKind, at_utc

AT = at_utc(1_800_000_000)
ROTATION = "01890000-0000-7000-8000-000000000001"


def slot(revision: int) -> DesiredSlot:
    """Return a slot of a document."""
    return DesiredSlot(
        slot_id="anthropic",
        provider="anthropic",
        kind=CredentialKind.API_KEY,
        revision=revision,
        min_revision=0,
        rotation_id=ROTATION,
    )


def requested(revision: int) -> ConfigRequested:
    """Return the platform's word that a credential was sent."""
    return ConfigRequested(
        server_id="acme-1", owner_id="acme", generation=revision, slot=slot(revision)
    )


def step(kind: Callable[..., RotationStep], revision: int, n: int, **more: object) -> RotationStep:
    """Return a server's word about a revision."""
    return kind(
        server_id="acme-1",
        incarnation=1,
        n=n,
        slot_id="anthropic",
        revision=revision,
        rotation_id=ROTATION,
        observed_generation=1,
        **more,
    )
