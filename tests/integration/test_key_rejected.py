"""From what a server's provider says to the banner its owner reads, over both handlers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import pytest

from bus_schemas.events import BannerEvent, CredentialVerified, HealthReported
from bus_schemas.events.banner import BannerCode, BannerState
from bus_schemas.events.health import SlotHealth, Validity
from platform_handlers.banner.words import words_for
from platform_handlers.health import rules
from tests.conftest import Platform
from tests.integration.test_health_handler import running
from tests.telling import Teller, banners_until, handling, provisioned

ID = "00000000-0000-7000-8000-000000000000"
RAISED, UPDATED, CLEARED = BannerState.RAISED, BannerState.UPDATED, BannerState.CLEARED
INVALID, VALID = Validity.INVALID, Validity.VALID


def report(
    n: int, validity: Validity, reason: str | None = None, revision: int = 1
) -> HealthReported:
    """What acme-1 reports of its one slot."""
    slot = SlotHealth(
        slot_id="main",
        provider="anthropic",
        revision=revision,
        validity=validity,
        reason=reason,
        age_seconds=1,
    )
    return HealthReported(
        server_id="acme-1",
        incarnation=1,
        n=n,
        observed_generation=1,
        runtime_version="0.1.0",
        outbox_depth=0,
        slots=(slot,),
    )


def promoted(n: int, revision: int) -> CredentialVerified:
    """Acme-1 tells that it uses another credential from now on."""
    return CredentialVerified(
        server_id="acme-1",
        incarnation=1,
        n=n,
        slot_id="main",
        revision=revision,
        rotation_id=ID,
        observed_generation=1,
        verdict="valid",
        promoted=True,
    )


@pytest.fixture
async def tell(platform: Platform, tmp_path: Path) -> AsyncIterator[Teller]:
    """Say something while both handlers run; acme-1 is there."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(handling(platform, tmp_path / "fingerprint"))
        await stack.enter_async_context(running(platform, tmp_path))
        told = Teller(platform)
        await told(provisioned("acme", "acme-1"))
        yield told


async def rejected(platform: Platform, *states: BannerState) -> list[BannerEvent]:
    """Return the events of the banner about the refused key, once these were its states."""

    def about(found: list[BannerEvent]) -> list[BannerEvent]:
        return [event for event in found if event.code is BannerCode.KEY_REJECTED]

    found = await banners_until(
        platform, lambda events: [event.state for event in about(events)] == list(states)
    )
    return about(found)


async def test_a_refused_key_is_a_banner_until_another_one_is_used(
    platform: Platform, tell: Teller
) -> None:
    """The new key clears it at once; if that is refused as well, it stands again."""
    await tell(report(1, INVALID))
    [raised] = await rejected(platform, RAISED)
    assert (raised.slot_id, raised.reason) == ("main", None)
    await tell(promoted(2, revision=2), report(3, VALID, revision=2))
    await rejected(platform, RAISED, CLEARED)
    again = asyncio.create_task(rejected(platform, RAISED, CLEARED, RAISED))
    for n in count(4):  # as a server does: one report may come before the other handler's reading
        await tell(report(n, INVALID, revision=2))
        done, _ = await asyncio.wait({again}, timeout=0.1)
        if done:
            break
    await again


async def test_a_sign_in_that_somebody_else_used_is_explained(
    platform: Platform, tell: Teller
) -> None:
    """Its reason reaches the owner's screen, also when it comes out after the first refusal."""
    await tell(report(1, INVALID))
    await rejected(platform, RAISED)
    await tell(report(2, INVALID, "invalid_grant"))
    *_, updated = await rejected(platform, RAISED, UPDATED)
    assert updated.reason == "invalid_grant"
    assert "somebody else used it" in words_for(updated).explanation
    await tell(report(3, INVALID, "invalid_grant"), promoted(4, revision=2))
    await rejected(platform, RAISED, UPDATED, CLEARED)


async def test_a_key_that_is_taken_again_clears_its_banner_after_a_while(
    platform: Platform, tell: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account that was unblocked needs no new key; one good word amid bad ones is none."""
    await tell(report(1, INVALID))
    await rejected(platform, RAISED)
    await tell(report(2, VALID), report(3, INVALID, "invalid_grant"))
    await rejected(platform, RAISED, UPDATED)  # so the good word before it was heard, too
    monkeypatch.setattr(rules, "REJECTED_AT_LEAST_SECONDS", 0)
    await tell(report(4, VALID))
    await rejected(platform, RAISED, UPDATED, CLEARED)
