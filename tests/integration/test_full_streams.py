"""What happens on a real bus to one tenant's state when another fills a stream."""

from collections.abc import Iterable
from typing import Any

import pytest

from bus_schemas.events import ConfigDesired, RatchetAdvanced
from bus_schemas.flows import Role
from bus_schemas.streams import CONFIG, PARKED, RATCHET, Stream
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.fresh import fresh, new_id
from bus_schemas.transport.jetstream import StreamError, api, read_last, store, store_raw
from tests.conftest import Platform

SMALL = 16 * 1024


async def shrink(platform: Platform, stream: Stream) -> None:
    """Give *stream* room for a few messages only."""
    small: dict[str, Any] = stream.configuration() | {"max_bytes": SMALL}
    await api(await platform.bus(Role.SETUP), f"STREAM.UPDATE.{stream.name}", small)


async def flood(bus: Bus, subjects: Iterable[str]) -> None:
    """Store more on *subjects* than there is room for."""
    for subject in subjects:
        await store_raw(bus, subject, new_id(), bytes(512))


async def test_no_flood_pushes_out_another_servers_document(platform: Platform) -> None:
    """The writer is refused; what is there stays, and can still be replaced."""
    await shrink(platform, CONFIG)
    bus = await platform.bus(Role.CONFIG)

    def document(generation: int) -> ConfigDesired:
        return ConfigDesired(
            server_id="acme-1", owner_id="acme", generation=generation, slots=(), orders=()
        )

    await store(bus, fresh(document(1)))
    with pytest.raises(StreamError):
        await flood(bus, [f"byok.v1.sealed.evil-1.s-{slot}" for slot in range(60)])
    assert await read_last(bus, CONFIG.name, document(1).subject) is not None
    await store(bus, fresh(document(2)))


async def test_no_flood_pushes_out_a_ratchet(platform: Platform) -> None:
    """Without it an old copy of the disk would be served like a first start."""
    await shrink(platform, RATCHET)
    bus = await platform.bus(Role.EVALUATOR)
    first = RatchetAdvanced(
        server_id="acme-1", committed=1, committed_check=bytes(32), pending_check=None
    )
    await store(bus, fresh(first))
    with pytest.raises(StreamError):
        await flood(bus, [f"byok.v1.ratchet.evil-{server}" for server in range(60)])
    assert await read_last(bus, RATCHET.name, first.subject) is not None


async def test_no_flood_of_rubbish_holds_up_the_pointers_to_it(platform: Platform) -> None:
    """They share an outbox with facts that others wait for."""
    await shrink(platform, PARKED)
    bus = await platform.bus(Role.EVALUATOR)
    await flood(bus, [f"byok.v1.parked.{PARKED.token}"] * 60)
