"""Builds what uses the held credentials: keyring, rotation, and everything that sends a key."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from bus_schemas.transport.pulse import Work
from vps_runtime.gateway.forward import Forwarder
from vps_runtime.gateway.server import Gateway
from vps_runtime.gateway.upstream import open_client
from vps_runtime.health.signs import Signs
from vps_runtime.keys.calls import Calls
from vps_runtime.keys.keyring import Keyring
from vps_runtime.keys.rotator import Rotator
from vps_runtime.oauth.endpoint import HttpTokenEndpoint
from vps_runtime.oauth.refresher import Refresher
from vps_runtime.openclaw.service import KeysByExec, OpenClawOptions, Use
from vps_runtime.outgoing import open_session
from vps_runtime.resolver.delivery import Delivery
from vps_runtime.rotation.rules import rotations
from vps_runtime.unlocked import UnlockedServer
from vps_runtime.verification.judge import Judge

_STUCK_SECONDS = 300.0


@dataclass(frozen=True)
class InUse:
    """The credentials of one unlocked server at work."""

    keyring: Keyring
    calls: Calls
    rotator: Rotator
    signs: Signs
    refresher: Refresher
    by_exec: KeysByExec

    def works(self) -> tuple[Work, ...]:
        """Return the tasks, each to be started once; none needs the bus."""
        return (
            Work("rotator", self.rotator.run(), _STUCK_SECONDS),
            Work("refresher", self.refresher.run(), _STUCK_SECONDS),
            *self.by_exec.works(),
        )


@contextlib.asynccontextmanager
async def in_use(
    server: UnlockedServer,
    gateway: Gateway,
    online: Callable[[], bool] = lambda: True,
    openclaw_options: OpenClawOptions | None = None,
) -> AsyncIterator[InUse]:
    """Put the credentials of *server* to use; at the end nothing of it is left open.

    *online* says whether this server itself reaches anything.
    """
    at_openclaw = openclaw_options or OpenClawOptions()
    keyring, calls, signs = Keyring(server), Calls(), Signs(online=online)
    delivery = Delivery(server.facts, at_openclaw.grace)
    calls.on_began(lambda: signs.agent(up=True))
    calls.on_reach(signs.provider)
    async with open_session() as session, open_client() as client:
        refresher = Refresher(server, keyring, HttpTokenEndpoint(session))
        judge = Judge(
            server.credentials,
            session,
            calls=calls,
            refreshed=refresher.refreshed,
            ended=refresher.ended,
        )
        rotator = Rotator(server, keyring, calls, judge, (delivery,))
        delivery.on_settled(rotator.wake)
        refresher.on_ended(rotator.doubt)
        await rotator.open()
        door = at_openclaw.door(server.state, gateway.options.user)
        asked = Use(delivery, keyring.current, lambda: rotations(server.facts.told), calls)
        by_exec = KeysByExec(at_openclaw, door, asked, session)
        by_exec.on_presence(lambda up: signs.agent(up=up))
        keyring.on_changed(by_exec.wake)
        await by_exec.begin()
        with gateway.using(Forwarder(keyring, calls, client)):
            yield InUse(keyring, calls, rotator, signs, refresher, by_exec)
