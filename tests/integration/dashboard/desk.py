"""An owner's machine with the real commands on it, and servers that do what a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from click.testing import CliRunner, Result

from bus_schemas.api import OrderState, OrderView, SlotStep
from bus_schemas.events import (
    CredentialDrained,
    CredentialInUse,
    CredentialRejected,
    CredentialStored,
    CredentialVerified,
    OrderAnswered,
)
from bus_schemas.events.reported import RotationStep
from platform_handlers.owner.cli import banners, owner
from platform_handlers.owner.home import Home
from platform_handlers.owner.keys.commands import key
from platform_handlers.provisioning.cli import server
from tests.integration.dashboard.conftest import Faces, until

KEY = "sk-ant-api03-" + "CANARY" * 15

Told = tuple[type[RotationStep], dict[str, object]]

STORED: Told = (CredentialStored, {"provider": "anthropic"})
GOOD: Told = (CredentialVerified, {"verdict": "valid", "promoted": True})
UNCLEAR: Told = (CredentialVerified, {"verdict": "unknown"})
BAD: Told = (CredentialVerified, {"verdict": "invalid"})
REFUSED: Told = (CredentialRejected, {"reason": "refused_by_provider"})
IN_USE: Told = (CredentialInUse, {"provider_status": 200})
DRAINED: Told = (CredentialDrained, {})


@dataclass
class Machine:
    """One owner's machine."""

    faces: Faces
    home: Home

    async def byok(self, *arguments: str, stdin: str = "") -> Result:
        """Run one command in a thread of its own; the platform runs in this one."""
        groups = {"owner": owner, "key": key, "server": server, "banners": banners}
        words = [*arguments[1:], "--home", str(self.home.folder)]
        run = CliRunner().invoke
        return await asyncio.to_thread(run, groups[arguments[0]], words, input=stdin)

    async def connect(self, tenant: str = "acme") -> Result:
        """Run `byok owner connect`."""
        ca, token = str(self.faces.installation.ca), self.faces.tokens[tenant] + "\n"
        return await self.byok("owner", "connect", self.faces.url, "--ca", ca, stdin=token)

    async def begin(self) -> None:
        """Make the owner key and connect as acme."""
        assert (await self.byok("owner", "keygen")).exit_code == 0
        assert (await self.connect()).exit_code == 0


class Desk(Machine):
    """The same, with servers that do what a test says."""

    async def sit_down(self) -> None:
        """Begin, with both servers compared with their consoles."""
        await self.begin()
        for name in ("acme-1", "acme-2"):
            self.home.pin(name, self.faces.servers[name].fingerprint)

    async def set_key(self, *more: str) -> Result:
        """Run `byok key set acme-1 anthropic`."""
        words = ("acme-1", "anthropic", "--provider", "anthropic", *more)
        return await self.byok("key", "set", *words, stdin=KEY + "\n")

    async def tell(self, *told: Told, server_id: str = "acme-1", revision: int = 1) -> None:
        """Let the server tell these steps once it was sent *revision*."""

        async def sent() -> bool:
            slots = await self.faces.config.view.slots_of(server_id)
            return any(slot.revision >= revision for slot in slots)

        await until(sent)
        slot = await self.faces.slot(server_id, "anthropic")
        for kind, words in told:
            await self.faces.servers[server_id].step(
                kind, slot.model_copy(update={"revision": revision}), **words
            )

    async def set_and_told(self, *told: Told, revision: int = 1) -> Result:
        """Set the key while the server tells these steps."""
        answer, _ = await asyncio.gather(
            self.set_key("--wait", "5"), self.tell(*told, revision=revision)
        )
        return answer

    async def heard(self, step: SlotStep) -> None:
        """Wait until the platform has heard of *step* of the newest revision."""
        await self.faces.reach("acme-1", "anthropic", step)

    @contextlib.asynccontextmanager
    async def answering(self, *told: Told, refused: str | None = None) -> AsyncIterator[None]:
        """Have acme-1 answer the next order, and then tell these steps of the revision it names."""
        task = asyncio.create_task(self._answer(told, refused))
        yield
        await task

    async def _answer(self, told: tuple[Told, ...], refused: str | None) -> None:
        acme_1 = self.faces.servers["acme-1"]
        await until(self._waiting)
        [view] = await self._waiting()
        await acme_1.say(
            OrderAnswered,
            order_id=view.order_id,
            order_n=view.n,
            kind=view.kind,
            slot_id=view.slot_id,
            outcome="refused" if refused else "applied",
            reason=refused,
            last_n=view.n,
        )

        async def heard() -> bool:
            return not await self._waiting()

        await until(heard)  # or whoever answers next takes this order for theirs
        slot = await self.faces.slot("acme-1", "anthropic")
        for kind, words in told:
            await acme_1.step(kind, slot, **words)

    async def _waiting(self) -> list[OrderView]:
        found = (await self.faces.config.orders.list_of("acme-1")).orders
        return [view for view in found if view.state is OrderState.WAITING]
