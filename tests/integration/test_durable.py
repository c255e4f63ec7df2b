"""A subscriber's durable on a real bus: everything comes, in order, and soon."""

import asyncio
from contextlib import aclosing

from bus_schemas.flows import Role
from bus_schemas.streams import BANNERS
from bus_schemas.transport.durable import deliveries
from bus_schemas.transport.jetstream import store_raw
from platform_handlers.subscriber.durable import Subscriber, add_subscriber
from tests.conftest import Platform

MESSAGES = 250
"""More than two pulls hold."""


async def test_messages_that_come_one_by_one_all_come_at_once(platform: Platform) -> None:
    """None falls between two pulls: it would come again, out of order, after the ack wait."""
    setup = await platform.bus(Role.SETUP)
    await add_subscriber(setup, platform.installation, Subscriber("pager", "acme"))
    writer = await platform.bus(Role.FINGERPRINT)
    reader = await platform.bus(Role.SUBSCRIBER, "pager", tags=("owner:acme",))

    async def write() -> None:
        for number in range(MESSAGES):
            subject = f"byok.v1.banner.acme.acme-1_slot-{number}_api-key-reuse"
            await store_raw(writer, subject, f"id-{number}", str(number).encode())

    writing = asyncio.create_task(write())
    seen = []
    async with aclosing(deliveries(reader, BANNERS.name, "pager")) as messages:
        async for message in messages:
            seen.append(int(message.data))
            await message.ack()
            if len(seen) == MESSAGES:
                break
    await writing
    assert seen == list(range(MESSAGES))
