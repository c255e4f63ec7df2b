"""What a running server reports of its keys, its agent and their provider, turn by turn."""

from collections.abc import Callable

import aiohttp
import pytest

from bus_schemas.events import FingerprintObserved, HealthReported
from bus_schemas.events.health import LinkHealth, Presence, SlotHealth, Validity
from bus_schemas.flows import Role
from bus_schemas.streams import HEALTH
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.jetstream import StoredMessage
from tests.conftest import Platform
from tests.following import events_of, messages_once
from tests.integration.vps.conftest import Fleet, api_key, of
from vps_runtime.state import StateFolder

SERVER, SLOT = "acme-1", "anthropic"
OLD, NEW = "made-up-old-0123456789", "made-up-new-0123456789"


@pytest.fixture
async def watcher(platform: Platform) -> Bus:
    """A reader of health reports."""
    return await platform.bus(Role.HEALTH)


async def reported(
    watcher: Bus, fact: Callable[[HealthReported, SlotHealth], bool]
) -> tuple[HealthReported, SlotHealth]:
    """Return the newest report, and the one slot in it, once *fact* holds of them."""
    found: list[tuple[HealthReported, SlotHealth]] = []

    def enough(messages: list[StoredMessage]) -> bool:
        for event in events_of(messages[-1:]):
            if isinstance(event, HealthReported) and event.slots:
                found[:] = [(event, event.slots[0])]
        return bool(found) and fact(*found[0])

    await messages_once(watcher, HEALTH, enough, seconds=20)
    return found[0]


async def call(state: StateFolder) -> int:
    """Make a call as the server's agent does; return the status it gets."""
    url = state.gateway_url.read_text().strip()
    headers = {"x-api-key": state.agent_token.read_text().strip()}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{url}/{SLOT}/v1/models") as response,
    ):
        return response.status


async def test_a_report_follows_a_key_through_its_life(fleet: Fleet, watcher: Bus) -> None:
    """Waiting, in use, used, replaced, refused: each is told as what it is, and by which tag."""
    provider = fleet.provider
    gate = provider.hold_heads(OLD)
    state = await fleet.enrol(SERVER)
    agent = await fleet.start(state)
    await agent.ready()
    at = provider.origin
    await fleet.send(await fleet.seal(SERVER, payload=api_key(OLD, at=at)))

    report, slot = await reported(watcher, lambda _, slot: slot.pending == 1)
    assert (slot.revision, slot.validity, slot.receipt) == (1, Validity.UNKNOWN, None)
    assert (report.link, report.agent) == (LinkHealth.STEADY, None)

    gate.open()
    _, slot = await reported(watcher, lambda _, slot: slot.validity is Validity.VALID)
    assert (slot.revision, slot.pending, slot.receipt) == (1, None, None)

    assert await call(state) == 200
    report, slot = await reported(watcher, lambda _, slot: bool(slot.receipt))
    assert (report.agent, report.provider) == (Presence.UP, Presence.UP)
    assert slot.receipt is not None
    assert (slot.receipt.revision, slot.receipt.provider_status) == (1, 200)
    told = await fleet.until(SERVER, lambda events: of(events, FingerprintObserved))
    [first] = of(told, FingerprintObserved)
    assert slot.receipt.short_tag == first.tag[:8]

    await fleet.send(await fleet.seal(SERVER, revision=2, payload=api_key(NEW, at=at)))
    await reported(watcher, lambda _, slot: slot.revision == 2)
    assert await call(state) == 200
    _, slot = await reported(
        watcher, lambda _, slot: bool(slot.receipt and slot.receipt.revision == 2)
    )
    used = slot.receipt
    assert used is not None
    assert used.short_tag not in {None, first.tag[:8]}

    provider.kill(NEW)
    assert await call(state) == 401
    _, slot = await reported(watcher, lambda _, slot: slot.receipt != used)
    assert slot.receipt is not None
    assert (slot.receipt.revision, slot.receipt.provider_status) == (2, 401)
    await agent.stop()
    await fleet.start(state)  # whose first question is whether its keys are still good
    _, slot = await reported(watcher, lambda _, slot: slot.validity is Validity.INVALID)
    assert (slot.revision, slot.receipt, slot.reason) == (2, None, None)
