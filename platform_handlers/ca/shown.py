"""What the bus and the API show of themselves, against what their files say."""

import asyncio
from dataclasses import dataclass

from cryptography import x509

from bus_schemas.transport.presented import presented_certificate
from bus_schemas.transport.target import BusDenied, BusTarget, BusUnavailable
from platform_handlers.authority.installation import Installation, PairFiles
from platform_handlers.authority.rotation import read_certificate
from platform_handlers.provisioning.nats_servers import NatsServers
from platform_handlers.provisioning.service import system_bus

_LOOKS = 40
_PAUSE_SECONDS = 0.25
"""The API looks at its files every second or so."""


@dataclass(frozen=True)
class Face:
    """Somebody who shows a certificate, and where its files lie."""

    name: str
    url: str
    files: PairFiles


def faces(installation: Installation, target: BusTarget) -> list[Face]:
    """Return the bus, and the API once it has run here."""
    found = [Face("nats-server", target.url, installation.bus_pair)]
    if installation.api_url.exists():
        url = installation.api_url.read_text().strip()
        found.append(Face("the API", url, installation.api_pair))
    return found


@dataclass(frozen=True)
class Shown:
    """What came of a face's new certificate."""

    name: str
    current: bool | None
    """Whether it shows it; None: it is not running, and will from its start."""

    def __str__(self) -> str:
        words = {
            True: "shows it",
            False: "still shows the old one: restart it",
            None: "is not running, and shows it from its start",
        }
        return f"{self.name} {words[self.current]}."


async def _shown(face: Face, certificate: x509.Certificate) -> Shown:
    """Wait a little for *face* to show *certificate*."""
    for _ in range(_LOOKS):
        try:
            if await presented_certificate(face.url) == certificate:
                return Shown(face.name, current=True)
        except BusUnavailable:
            return Shown(face.name, current=None)
        await asyncio.sleep(_PAUSE_SECONDS)
    return Shown(face.name, current=False)


async def show_new_certificates(installation: Installation, target: BusTarget) -> list[Shown]:
    """Have the bus and the API show what lies in their files; return what came of it.

    Raises Refused(`not_reloaded`).
    """
    try:
        bus = await system_bus(installation, target).open()
    except (BusUnavailable, BusDenied):
        pass  # not running, or what it shows has expired: then `byok nats run` tells it
    else:
        try:
            await NatsServers(bus).reload()
        finally:
            await bus.close()
    return [
        await _shown(face, read_certificate(face.files)) for face in faces(installation, target)
    ]
