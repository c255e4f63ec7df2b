"""What an owner is told of a slot: its rotations, and what the server's last report says of it."""

import time

from bus_schemas.api import ServerHealth, ServerView, SlotHistory, SlotStep, SlotView
from bus_schemas.events import CredentialInUse, CredentialStored, CredentialVerified, HealthReported
from bus_schemas.events.health import LinkHealth, Presence, Receipt, SlotHealth, Validity
from bus_schemas.fields import at_utc
from tests.integration.dashboard.conftest import Faces, as_json

SLOT = "/api/servers/acme-1/slots/anthropic"


async def test_a_slot_tells_its_rotations_and_the_last_receipt(faces: Faces) -> None:
    """From the ledger what happened to each revision, from the report what is in use now."""
    server = faces.servers["acme-1"]
    async with faces.client("acme") as client:
        for base in (0, 1):
            await client.post(SLOT, **as_json(server.sealed(faces.owner_key, base)))
            slot = await faces.slot("acme-1", "anthropic")
            await server.step(CredentialStored, slot, provider="anthropic")
            await server.step(CredentialVerified, slot, verdict="valid", promoted=True)
            await server.step(CredentialInUse, slot, provider_status=200)
            await faces.reach("acme-1", "anthropic", SlotStep.IN_USE)
        before = SlotView.model_validate_json((await client.get(SLOT)).content)
        history = SlotHistory.model_validate_json((await client.get(f"{SLOT}/history")).content)
        receipt = Receipt(revision=2, provider_status=200, at=at_utc(time.time()))
        await report(faces, receipt)
        after = SlotView.model_validate_json((await client.get(SLOT)).content)
        shown = ServerView.model_validate_json((await client.get("/api/servers/acme-1")).content)
        assert (await client.get(f"{SLOT}-2/history")).status_code == 404
    async with faces.client("globex") as stranger:
        assert (await stranger.get(f"{SLOT}/history")).status_code == 404
    assert [rotation.revision for rotation in history.rotations] == [1, 2]
    for rotation in history.rotations:
        steps = [(step.step, step.promoted) for step in rotation.steps]
        assert steps == [("sent", None), ("stored", None), ("verified", True), ("in-use", None)]
    assert (before.in_use, before.validity, before.receipt) == (None, None, None)
    assert (after.in_use, after.validity, after.receipt) == (2, Validity.VALID, receipt)
    assert shown.slots == (after,)
    assert shown.locked is None
    assert shown.reported_at is not None
    assert shown.health == ServerHealth(link=LinkHealth.STEADY, provider=Presence.DOWN)


async def report(faces: Faces, receipt: Receipt) -> None:
    """Have acme-1 report its one slot."""
    slot = SlotHealth(
        slot_id="anthropic",
        provider="anthropic",
        revision=2,
        validity=Validity.VALID,
        receipt=receipt,
        age_seconds=1,
    )
    await faces.servers["acme-1"].say(
        HealthReported,
        observed_generation=2,
        runtime_version="1",
        outbox_depth=0,
        slots=(slot,),
        link=LinkHealth.STEADY,
        provider=Presence.DOWN,
    )
