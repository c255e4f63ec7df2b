"""Kill -9 of the running agent at each step of a rotation, while calls go through it."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import aiohttp
import pytest

from bus_schemas.event import Event
from bus_schemas.events.reported import (
    CredentialAborted,
    CredentialDrained,
    CredentialInUse,
    CredentialRejected,
    CredentialRetired,
    CredentialVerified,
    RotationStep,
)
from bus_schemas.orders import OrderKind
from tests.integration.vps.conftest import Agent, Fleet, api_key, of
from tests.integration.vps.starts import eventually
from tests.integration.vps.test_vps_orders import SERVER, Desk
from tests.provider.behaviour import Behaviour
from vps_runtime.gateway.problem import PROBLEM_HEADER
from vps_runtime.status import read_status

_S = TypeVar("_S", bound=RotationStep)


def has(cls: type[RotationStep], revision: int) -> Callable[[Sequence[Event]], object]:
    """Return whether a step of a revision is told."""
    return lambda events: steps(events, cls, revision)


def steps(events: Sequence[Event], cls: type[_S], revision: int) -> list[_S]:
    """Return the steps of one class of a revision."""
    return [event for event in of(events, cls) if event.revision == revision]


@dataclass
class Owner:
    """Rotates one key again and again, and revokes the older ones as soon as it is told to."""

    desk: Desk
    revisions: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    current: int = 0
    answers: Counter[int | str] = field(default_factory=Counter)
    """What the agent's own calls got: the provider's status, or the gateway's own word."""

    @property
    def fleet(self) -> Fleet:
        """The platform's side."""
        return self.desk.fleet

    async def seal(self, behaviour: Behaviour | None = None) -> int:
        """Seal a new key, which the provider answers as *behaviour* says."""
        revision = next(self.revisions)
        self.fleet.provider.accept(secret(revision), behaviour)
        payload = api_key(secret(revision), at=self.fleet.provider.origin)
        await self.desk.take(await self.fleet.seal(SERVER, revision=revision, payload=payload))
        return revision

    async def finish(self, revision: int) -> None:
        """Wait until *revision* is in use and the older ones may be revoked; revoke them."""
        for cls in (CredentialVerified, CredentialInUse, CredentialDrained):
            await self.fleet.until(SERVER, has(cls, revision))
        for older in range(1, revision):
            self.fleet.provider.kill(secret(older))
        self.current = revision

    async def retired_before(self, revision: int) -> None:
        """Rotate to *revision*, to the very end."""
        older = self.current
        await self.finish(revision)
        if older:
            await self.fleet.until(SERVER, has(CredentialRetired, older))

    async def give_up(self, revision: int) -> None:
        """Abort, once it is plain that nobody can judge the key."""
        await self.fleet.until(SERVER, has(CredentialVerified, revision))
        order = self.desk.signed(OrderKind.ABORT, slot_id="anthropic", argument=str(revision))
        await self.desk.write(order)

    async def call_for_ever(self) -> None:
        """Call the provider through the gateway, again and again, as an agent does."""
        state = self.desk.state
        async with aiohttp.ClientSession() as agent:
            while True:
                try:
                    url = f"{state.gateway_url.read_text().strip()}/anthropic/v1/messages"
                    token = {"x-api-key": state.agent_token.read_text().strip()}
                    async with agent.post(url, headers=token, json={"model": "m"}) as answer:
                        own = answer.headers.get(PROBLEM_HEADER)
                        self.answers[own or answer.status] += 1
                        await answer.read()
                except (aiohttp.ClientError, OSError):
                    self.answers["dead"] += 1
                await asyncio.sleep(0.02)  # the pace of an agent


STEPS = tuple(f"Credential{step}" for step in ("Stored", "Verified", "InUse", "Drained", "Retired"))


def secret(revision: int) -> str:
    """Return the key of a revision."""
    return f"sk-ant-api03-revision-{revision}"


@asynccontextmanager
async def calling(owner: Owner) -> AsyncIterator[None]:
    """Let the agent work meanwhile."""
    task = asyncio.create_task(owner.call_for_ever())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_at_any_step_a_rotation_ends_and_no_call_uses_a_retired_key(
    fleet: Fleet, when: str
) -> None:
    """Whatever was begun is finished at the next start; no call of the agent is refused."""
    state = await fleet.enrol(SERVER)
    owner = Owner(Desk(fleet, state))

    async def killed_at(*names: str) -> Agent:
        return await fleet.start(state, module=("tests.dying_agent", ",".join(names), when))

    first = await fleet.start(state)
    async with calling(owner):
        await owner.retired_before(await owner.seal())
        await first.kill()
        good, left = await owner.seal(), STEPS
        while left:  # one rotation, killed five times
            step = await killed(await killed_at(*left))
            left = tuple(name for name in left if name != step)
        agent = await killed_at("CredentialRejected")
        await owner.retired_before(good)
        await check(owner, agent)
        bad = await owner.seal(Behaviour(status=401))
        await killed(agent)
        agent = await killed_at("CredentialAborted")
        await fleet.until(SERVER, has(CredentialRejected, bad))
        await check(owner, agent)
        unclear = await owner.seal(Behaviour(status=503))
        await owner.give_up(unclear)
        await killed(agent)
        agent = await fleet.start(state)
        await fleet.until(SERVER, has(CredentialAborted, unclear))
        await check(owner, agent)
    refused = {call.key for call in fleet.provider.calls if call.status == 401}
    assert refused == {secret(bad)}  # each older one was revoked as soon as it was drained
    # Dead: killed. No usable key: before the first one, and while it unlocks.
    assert set(owner.answers) == {200, "dead", "no_usable_key"}
    told = Counter((type(e), e.revision) for e in of(await fleet.told(SERVER), RotationStep))
    assert max(told.values()) == 1, told  # each step of each revision once


async def killed(agent: Agent) -> str:
    """Wait until it has been killed; return at which step."""
    assert await asyncio.wait_for(agent.process.wait(), 20) == -9, agent.log.read_text()
    return str(agent.lines()[-1]["step"])


async def check(owner: Owner, agent: Agent) -> None:
    """What the server itself says is right, and the key it says is the one that is used."""
    calls = owner.fleet.provider.calls

    async def as_it_is() -> bool:
        [slot] = (await read_status(owner.desk.state)).slots
        assert agent.process.returncode is None
        return (slot.current, slot.pending, slot.previous) == (owner.current, None, ())

    await eventually(as_it_is)
    made = len(calls)
    await owner.fleet.provider.until(lambda: len(calls) > made + 2)
    assert {call.key for call in calls[made + 1 :]} == {secret(owner.current)}
