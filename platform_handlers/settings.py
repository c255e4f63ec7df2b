"""What every command of `byok` is told before its own name: the state folder and the bus."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bus_schemas.errors import Refused
from bus_schemas.transport.target import BusTarget

if TYPE_CHECKING:  # an owner's machine has no installation, and its commands start sooner without
    from platform_handlers.authority.installation import Installation


@dataclass(frozen=True)
class Settings:
    """The global options of the command line."""

    state: Path
    """The installation's folder (`--state`, `BYOK_STATE`)."""
    bus: str | None = None
    """Address of the bus (`--bus`, `BYOK_BUS`); None: where `byok nats run` said it listens."""

    def installation(self) -> "Installation":
        """Return the installation. Raises Refused(`not_initialised`)."""
        from platform_handlers.authority.installation import (  # noqa: PLC0415 (start-up)
            Installation,
        )

        return Installation(self.state.resolve()).require()

    def target(self) -> BusTarget:
        """Return where the bus is. Raises Refused(`bus_unknown`)."""
        installation = self.installation()
        if self.bus is not None:
            return BusTarget(self.bus, installation.ca)
        try:
            url = installation.bus_url.read_text("ascii").strip()
        except FileNotFoundError:
            detail = f"{installation.bus_url} is not there; start `byok nats run` or give --bus"
            raise Refused("bus_unknown", detail) from None
        return BusTarget(url, installation.ca)
