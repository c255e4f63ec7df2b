"""Signed orders from the owner's machine to the document, and the server's answer back."""

import asyncio
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.api import OrderList, OrderState
from bus_schemas.events import ConfigDesired, OrderAnswered, PinsChanged
from bus_schemas.events.config import Order
from bus_schemas.fields import at_utc
from bus_schemas.keys import owner_fingerprint
from bus_schemas.orders import Addressee, Instruction, OrderKind, Stamp, sign_order
from platform_handlers.owner.home import Home
from tests.integration.dashboard.conftest import Faces, as_json, until
from tests.integration.dashboard.desk import Machine

SECOND = owner_fingerprint(Ed25519PrivateKey.generate().public_key().public_bytes_raw())


class Desk(Machine):
    """An owner's machine, connected to the platform, and servers that answer when told to."""

    async def answered(
        self, command: tuple[str, ...], *servers: str, refused: str | None = None
    ) -> Result:
        """Run *command* while each of *servers* answers its next order."""
        running = asyncio.create_task(self.byok(*command))
        for server_id in servers:
            await self.answer(server_id, refused=refused)
        return await running

    async def answer(self, server_id: str, *, refused: str | None = None) -> None:
        """Let *server_id* answer the order that waits for it."""

        async def waits() -> bool:
            return OrderState.WAITING in {view.state for view in await self.orders(server_id)}

        async def heard() -> bool:
            return not await waits()

        await until(waits)
        for view in await self.orders(server_id):
            if view.state is OrderState.WAITING:
                await self.faces.servers[server_id].say(
                    OrderAnswered,
                    order_id=view.order_id,
                    order_n=view.n,
                    kind=view.kind,
                    slot_id=view.slot_id,
                    outcome="refused" if refused else "applied",
                    reason=refused,
                    last_n=view.n,
                )
        await until(heard)

    async def orders(self, server_id: str) -> Any:  # noqa: ANN401 (a tuple of views)
        """Return the server's orders."""
        return (await self.faces.config.orders.list_of(server_id)).orders

    async def document(self, server_id: str) -> ConfigDesired:
        """Return the server's document."""
        envelope = await self.faces.config.writer.document(server_id)
        assert envelope is not None
        assert isinstance(envelope.data, ConfigDesired)
        return envelope.data


@pytest.fixture
async def desk(faces: Faces, tmp_path: Path) -> Desk:
    """Acme's machine, with an owner key."""
    desk = Desk(faces, Home(tmp_path / "home"))
    await desk.begin()
    return desk


async def test_each_command_waits_for_the_servers_word_and_says_it(desk: Desk) -> None:
    """Applied is 0, refused is 1 with a sentence, no answer is 75; what is answered goes away."""
    done = await desk.answered(("server", "lock", "acme-1"), "acme-1")
    assert (done.exit_code, "have left its memory" in done.output) == (0, True)
    assert "locked: " in (await desk.byok("key", "status", "acme-1")).output
    silent = await desk.byok("server", "unlock", "acme-1", "--wait", "0")
    assert (silent.exit_code, "The order waits until" in silent.output) == (75, True)
    await desk.answer("acme-1")
    stop = ("key", "stop", "acme-1", "anthropic")
    refused = await desk.answered(stop, "acme-1", refused="unknown_slot")
    assert (refused.exit_code, "no such slot" in refused.output) == (1, True)
    resumed = await desk.answered(("key", "resume", "acme-1", "anthropic"), "acme-1")
    assert (resumed.exit_code, "may be used again" in resumed.output) == (0, True)

    async def withdrawn() -> bool:
        return not (await desk.document("acme-1")).orders

    await until(withdrawn)
    listed = (await desk.byok("server", "orders", "acme-1")).output
    rows = [line.split()[1:] for line in listed.splitlines() if line[:1].isdigit()]
    assert [row[0] for row in rows] == ["lock", "unlock", "stop-slot", "resume-slot"]
    assert [row[1:3] for row in rows][2] == ["anthropic", "refused."]
    assert "No order" in (await desk.byok("server", "orders", "acme-2")).output


async def test_one_command_trusts_a_key_on_many_servers(desk: Desk) -> None:
    """All of them or those that are named; the worst answer is the exit code."""
    both = await desk.answered(("owner", "trust", SECOND, "--all"), "acme-1", "acme-2")
    assert (both.exit_code, both.output.count("obeys that owner key, too")) == (0, 2)
    [order] = (await desk.orders("acme-2"))[-1:]
    assert (order.kind, order.state) == ("trust", "applied")
    command = ("owner", "distrust", SECOND, "--servers", "acme-1,acme-2", "--wait", "1")
    one = await desk.answered(command, "acme-1")
    assert (one.exit_code, "acme-2: no answer yet" in one.output) == (75, True)
    await desk.answer("acme-2", refused="last_pin")
    for more in ((), ("--all", "--servers", "acme-1")):
        neither = await desk.byok("owner", "trust", SECOND, *more)
        assert (neither.exit_code, "one of them" in neither.output) == (65, True)
    typo = await desk.byok("owner", "trust", SECOND[:-1], "--all")
    assert (typo.exit_code, "20 characters" in typo.output) == (65, True)


async def test_two_devices_at_once_get_a_number_each(desk: Desk) -> None:
    """The slower one signs again above the other; nobody has to."""
    commands = [desk.byok("server", "lock", "acme-1", "--wait", "0") for _ in range(3)]
    assert [result.exit_code for result in await asyncio.gather(*commands)] == [75, 75, 75]
    numbers = [order.n for order in (await desk.document("acme-1")).orders]
    assert len(numbers) == 3
    assert numbers == sorted(set(numbers))  # who was overtaken leaves a gap


async def test_nothing_is_ordered_that_could_be_meant_for_somebody_else(desk: Desk) -> None:
    """A server of another owner, one that is not the pinned one, one that has not joined."""
    foreign = await desk.byok("server", "lock", "globex-1")
    assert (foreign.exit_code, "no server called globex-1" in foreign.output) == (65, True)
    await desk.faces.registry.add_server("acme", "acme-3")
    absent = await desk.byok("server", "lock", "acme-3")
    assert (absent.exit_code, "has not joined" in absent.output) == (77, True)
    desk.home.pin("acme-1", SECOND)
    changed = await desk.byok("owner", "trust", SECOND, "--servers", "acme-2,acme-1")
    assert (changed.exit_code, "nothing was ordered" in changed.output) == (77, True)
    assert await desk.orders("acme-2") == ()


async def test_the_api_takes_only_orders_that_the_server_could_obey(faces: Faces) -> None:
    """Of another machine, forged, of an unknown key, over, or with a number that is gone."""
    mine = faces.servers["acme-1"]
    to = Addressee("acme", "acme-1", mine.identity.public_key().public_bytes_raw())

    def lock(n: int = 1, *, by: Ed25519PrivateKey = faces.owner_key, hours: int = 1) -> Order:
        ends = at_utc(time.time()) + timedelta(hours=hours)
        stamp = Stamp(str(uuid.uuid4()), n, ends)
        return sign_order(by, to, Instruction(OrderKind.LOCK), stamp)

    async with faces.client("acme") as client:

        async def post(order: Order, where: str = "acme-1") -> tuple[int, str]:
            answer = await client.post(f"/api/servers/{where}/orders", **as_json(order))
            kind = answer.json().get("type", "")
            return answer.status_code, kind.rpartition(":")[2]

        good = lock()
        assert await post(good) == (202, "")
        assert await post(good) == (202, "")
        assert await post(lock()) == (409, "stale-n")
        assert await post(lock(12)) == (422, "n-too-far")
        assert await post(lock(2, hours=-1)) == (422, "expired")
        assert await post(lock(2), "acme-2") == (422, "bad-signature")
        assert await post(lock(2), "globex-1") == (404, "not-found")
        forged = lock(2).model_copy(update={"n": 3})
        assert await post(forged) == (422, "bad-signature")
        mine_only = (owner_fingerprint(faces.owner_key.public_key().public_bytes_raw()),)
        await mine.say(PinsChanged, pinned=mine_only)
        await until(lambda: faces.config.view.pins("acme-1"))
        stranger = lock(2, by=Ed25519PrivateKey.generate())
        assert await post(stranger) == (403, "owner-key-not-pinned")
        unlock = sign_order(
            faces.installation.order_key(),
            to,
            Instruction(OrderKind.UNLOCK),
            Stamp(str(uuid.uuid4()), 2, at_utc(time.time()) + timedelta(hours=1)),
        )
        assert await post(unlock) == (403, "not-for-the-platform")
        await faces.registry.add_server("acme", "acme-3")
        assert await post(lock(2), "acme-3") == (422, "server-not-active")
        listed = OrderList.model_validate_json(
            (await client.get("/api/servers/acme-1/orders")).content
        )
        assert [(view.order_id, view.state) for view in listed.orders] == [
            (good.order_id, "waiting")
        ]
        assert (await client.get("/api/servers/globex-1/orders")).status_code == 404
