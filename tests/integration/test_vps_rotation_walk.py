"""A long random story on a server's own disk, with kills between any two steps of it."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bus_schemas.events.health import Validity
from bus_schemas.events.reported import (
    CredentialAborted,
    CredentialDrained,
    CredentialRejected,
    CredentialRetired,
    CredentialStored,
    CredentialVerified,
    RotationStep,
)
from bus_schemas.orders import OrderKind
from tests.refreshing import SLOT
from tests.rotating import Rotating, rotating
from vps_runtime.facts.store import Facts, Telling
from vps_runtime.vault.credentials import CredentialStore, Held

ACTS = 60
_ABOUT = (OrderKind.VERIFY, OrderKind.PROMOTE, OrderKind.ABORT, OrderKind.RETIRE)


class Killed(BaseException):
    """Stands for the kill: nothing may catch it."""


@dataclass
class Kills:
    """Comes between two steps: before or after a transaction, or a removal from the vault."""

    chance: random.Random
    armed: int = 0
    """So many more places are passed before it strikes; 0 for never."""

    def pass_by(self) -> None:
        """Be at a place where a kill may come."""
        if self.armed:
            self.armed -= 1
            if not self.armed:
                raise Killed


@dataclass
class Story:
    """What the owner knows, and holds the server to."""

    chance: random.Random
    kills: Kills
    newest: int = 0
    floor: int = 0
    used: list[int] = field(default_factory=list)
    """The revisions that calls were made with, in order."""

    async def act(self, server: Rotating) -> None:
        """Let one thing happen."""
        revision = max(1, self.newest - self.chance.randrange(3))
        match self.chance.choice(("put", "put", "order", "call", "judge", "hand", "turn", "turn")):
            case "put":
                self.newest += 1
                await server.put(self.newest)
            case "order":
                await self.order(server, self.chance.choice(_ABOUT), revision)
            case "judge":
                about = self.newest + self.chance.randrange(2)
                server.judge.of[about] = self.chance.choice(list(Validity))
            case "hand":
                server.hand.revision = self.chance.choice((None, revision))
            case "call":
                self.call(server)
            case _:
                await server.turn()

    async def order(self, server: Rotating, kind: OrderKind, revision: int) -> None:
        """Give an order; a retirement counts once it is answered."""
        if await server.give(kind, revision) is None and kind is OrderKind.RETIRE:
            self.floor = max(self.floor, revision)

    def call(self, server: Rotating) -> None:
        """Make a call, if there is a key for it."""
        if server.current is not None:
            self.used.append(server.current)
            assert server.current > self.floor
            server.calls.began(SLOT, server.current)
            server.calls.answered(SLOT, server.current, self.chance.choice((200, 401, 500)))


@asynccontextmanager
async def deadly(kills: Kills) -> AsyncIterator[None]:
    """Let *kills* strike at the steps of what runs here."""
    decide, remove = Facts.decide, CredentialStore.remove

    async def decided(self: Facts, decision: Callable[[Mapping[str, str]], Telling]) -> None:
        kills.pass_by()
        await decide(self, decision)
        kills.pass_by()

    async def removed(self: CredentialStore, held: Held) -> None:
        kills.pass_by()
        await remove(self, held)
        kills.pass_by()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Facts, "decide", decided)
        patch.setattr(CredentialStore, "remove", removed)
        yield


def only_killed(error: BaseException) -> bool:
    """Whether nothing but the kill is in *error*."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(only_killed, error.exceptions))
    return isinstance(error, Killed)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_and_wherever_it_is_killed_the_promises_hold(
    tmp_path: Path, seed: int
) -> None:
    """No retired key is used, none below one that was; the story ends, and each step once."""
    chance = random.Random(seed)
    story = Story(chance, Kills(chance))
    given, acts = 0, 0
    while acts < ACTS:
        story.kills.armed = 0
        async with rotating(tmp_path / "server") as server:
            server.given = given
            await server.rotator.open()
            story.call(server)
            story.kills.armed = chance.randrange(1, 25)
            try:
                async with deadly(story.kills):
                    while acts < ACTS:
                        acts += 1
                        await story.act(server)
                        story.call(server)
            except BaseException as error:
                if not only_killed(error):
                    raise
            given = server.given
    async with rotating(tmp_path / "server") as server:
        for _ in range(3):
            await server.turn()
        story.call(server)
        rotation = server.server.rotation(SLOT)
        assert rotation.pending is None  # every provider said valid: it is used or was given up
        assert server.held == [one for one in (rotation.current,) if one]
        facts = [fact for fact in server.told() if isinstance(fact, RotationStep)]
    assert story.used == sorted(story.used)
    check(facts, story)


def check(facts: list[RotationStep], story: Story) -> None:
    """Hold what was told against what was used."""
    once = (CredentialStored, CredentialDrained, CredentialRetired, CredentialAborted)
    told = Counter((type(fact), fact.revision) for fact in facts if isinstance(fact, once))
    assert not told or max(told.values()) == 1
    promoted = [f.revision for f in facts if isinstance(f, CredentialVerified) and f.promoted]
    assert promoted == sorted(set(promoted))
    assert set(story.used) <= set(promoted)
    dropped = {f.revision for f in facts if isinstance(f, CredentialAborted | CredentialRejected)}
    assert not dropped & set(promoted)
