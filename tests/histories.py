"""Random histories of a few servers of a few owners, for tests that compare two tellings of one."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from bus_schemas.events import (
    BannerEvent,
    CredentialAborted,
    CredentialInUse,
    CredentialRejected,
    CredentialRetired,
    CredentialStored,
    CredentialVerified,
)
from bus_schemas.events.health import Transition
from bus_schemas.events.reported import RotationStep
from bus_schemas.fields import Basis, CredentialKind, Strength
from platform_handlers.banner.lifecycle import Banner, BannerKey, Cause, announcement
from platform_handlers.fingerprint.projection import Projection
from tests.facts import Ledger, fold

OWNER_OF = {
    **{f"acme-{i}": "acme" for i in range(5)},
    **{f"globex-{i}": "globex" for i in range(2)},
    "hooli-0": "hooli",
    "initech-0": "initech",
}
SERVERS = sorted(OWNER_OF)
REFUSALS = ["stale_generation"] * 3 + ["too_many_unlocks"]
TAGS = {
    "k1": (Basis.API_KEY, Strength.SECRET),
    "k2": (Basis.API_KEY, Strength.SECRET),
    "r1": (Basis.OAUTH_GRANT, Strength.SECRET),
    "r2": (Basis.OAUTH_GRANT, Strength.SECRET),
    "a1": (Basis.OAUTH_ACCOUNT, Strength.OPAQUE),
    "a2": (Basis.OAUTH_ACCOUNT, Strength.GUESSABLE),
}


@dataclass
class World:
    """A ledger, the projection that folds it, and everything that was announced."""

    ledger: Ledger = field(default_factory=Ledger)
    state: Projection = field(default_factory=Projection)
    told: dict[BannerKey, list[BannerEvent]] = field(default_factory=lambda: defaultdict(list))
    said: list[tuple[Banner, Cause]] = field(default_factory=list)
    """The same in the order of the ledger."""

    def __post_init__(self) -> None:
        for server_id in SERVERS:
            self.ledger.provisioned(server_id, OWNER_OF[server_id])
        self.catch_up()

    def catch_up(self) -> list[tuple[BannerEvent, BannerEvent | None]]:
        """Fold what is new; return each event with the one before it on its banner."""
        said = []
        for fact in self.ledger.facts[self._folded :]:
            for banner, cause in fold(self.state, fact):
                event = announcement(banner, cause).data
                assert isinstance(event, BannerEvent)
                earlier = self.told[banner.key]
                said.append((event, earlier[-1] if earlier else None))
                earlier.append(event)
                self.said.append((banner, cause))
        self._folded = len(self.ledger.facts)
        return said

    _folded: int = 0


Happening = Callable[[World, Random], None]


def observe(world: World, dice: Random) -> None:
    """Somebody tells of a credential; now and then with a lie about its kind."""
    name = dice.choice(sorted(TAGS))
    basis, strength = TAGS[name]
    if dice.random() < 0.1:
        strength = dice.choice(list(Strength))
    if dice.random() < 0.05:
        basis = dice.choice(list(Basis))
    world.ledger.observed(
        dice.choice(SERVERS),
        name,
        slot=dice.choice(["one", "two"]),
        revision=dice.choice([1, 1, 1, 2]),
        basis=basis,
        strength=strength,
        epoch=dice.choice(["e1", "e1", "e2"]),
    )


def retire(world: World, dice: Random) -> None:
    """A revision goes."""
    slot = dice.choice(["one", "two"])
    world.ledger.retired(dice.choice(SERVERS), dice.choice([1, 1, 2]), slot=slot)


def renew(world: World, dice: Random) -> None:
    """A server lists some of what it may hold."""
    all_of_it = [(slot, revision) for slot in ("one", "two") for revision in (1, 2)]
    world.ledger.renewed(dice.choice(SERVERS), *dice.sample(all_of_it, dice.choice([2, 4, 4])))


def tick(world: World, dice: Random) -> None:
    """A minute passes, or one is told again."""
    world.ledger.ticked(dice.choice([0, 1, 1, 1]))


def end(world: World, dice: Random) -> None:
    """A server is revoked or goes for good, or an epoch is closed."""
    server_id = dice.choice(SERVERS)
    what: Callable[[], object] = dice.choice(
        [
            lambda: world.ledger.revoked(server_id, OWNER_OF[server_id]),
            lambda: world.ledger.deprovisioned(server_id, OWNER_OF[server_id]),
            lambda: world.ledger.provisioned(server_id, OWNER_OF[server_id]),
            lambda: world.ledger.epoch_closed(dice.choice(["e1", "e2"])),
        ]
    )
    what()


def condition(world: World, dice: Random) -> None:
    """Something that concerns one server only."""
    server_id = dice.choice(SERVERS)
    owner_id = OWNER_OF[server_id]
    what: Callable[[], object] = dice.choice(
        [
            lambda: world.ledger.status(server_id, owner_id, Transition.REJECTED, "one"),
            lambda: world.ledger.status(server_id, owner_id, Transition.ACCEPTED, "one"),
            lambda: world.ledger.status(server_id, owner_id, Transition.SILENT),
            lambda: world.ledger.status(server_id, owner_id, Transition.RETURNED),
            lambda: world.ledger.needs_key(server_id, slot="one"),
            lambda: world.ledger.stored(server_id, slot="one"),
        ]
    )
    what()


def trust(world: World, dice: Random) -> None:
    """Somebody changes whom a server obeys, or another copy of it is noticed, or it is replaced."""
    server_id = dice.choice(SERVERS)
    owner_id = OWNER_OF[server_id]
    what: Callable[[], object] = dice.choice(
        [
            lambda: world.ledger.pinned(server_id, dice.choice(["A", "A", "B", "AB", "AC", ""])),
            lambda: world.ledger.pinned(server_id, dice.choice(["A", "A", "B", "AB", "AC", ""])),
            lambda: world.ledger.refused(server_id, dice.choice(REFUSALS)),
            lambda: world.ledger.status(server_id, owner_id, Transition.CLONED),
            lambda: world.ledger.approved(server_id),
            lambda: world.ledger.reenrolled(server_id, owner_id, dice.choice([2, 3])),
        ]
    )
    what()


def rotate(world: World, dice: Random) -> None:
    """A rotation is asked for, goes on or ends, in any order; slot two holds a sign-in.

    On few servers, so that the steps of one rotation meet.
    """
    server_id = dice.choice(SERVERS[:3])
    owner_id = OWNER_OF[server_id] if dice.random() < 0.9 else "hooli"
    slot = dice.choice(["one", "one", "one", "two"])
    revision = dice.choice([1, 1, 2, 2, 3])
    kind = CredentialKind.API_KEY if slot == "one" else CredentialKind.OAUTH
    tell = world.ledger

    def ask() -> object:
        return tell.requested(server_id, owner_id, kind=kind, slot=slot, revision=revision)

    def step(what: type[RotationStep], **more: object) -> Callable[[], object]:
        return lambda: tell.step(what, server_id, slot=slot, revision=revision, **more)

    told: Callable[[], object] = dice.choice(
        [
            *[ask] * 3,
            *[step(CredentialStored, provider="anthropic")] * 2,
            *[step(CredentialVerified, verdict="valid", promoted=True)] * 3,
            step(CredentialVerified, verdict="unknown"),
            step(CredentialInUse, provider_status=200),
            step(CredentialRejected, reason="refused_by_provider"),
            step(CredentialAborted, reason="superseded"),
            step(CredentialRetired),
            lambda: tell.needs_key(server_id, slot=slot),
        ]
    )
    told()


def dismiss(world: World, dice: Random) -> None:
    """Somebody dismisses a banner, perhaps as it was, perhaps not theirs."""
    if world.told:
        event = dice.choice(world.told[dice.choice(sorted(world.told, key=str))])
        owner_id = event.owner_id if dice.random() < 0.95 else "globex"
        world.ledger.dismissed(owner_id, event.banner_id, event.revision)


def undo(world: World, dice: Random) -> None:
    """Somebody wants to see a banner again."""
    if world.told:
        key = dice.choice(sorted(world.told, key=str))
        world.ledger.undone(OWNER_OF[key.server_id], key.banner_id)


def repeat(world: World, dice: Random) -> None:
    """A fact comes a second time."""
    world.ledger.add(dice.choice(world.ledger.facts).envelope.data)


def refresh(world: World, dice: Random) -> None:
    """A login that was copied to many servers is refreshed on one of them."""
    world.ledger.observed(
        dice.choice(SERVERS), dice.choice(["r1", "r2", "r3"]), basis=Basis.OAUTH_GRANT
    )


HAPPENINGS = (
    [observe] * 12
    + [retire] * 2
    + [renew, tick, end, condition, undo, repeat]
    + [dismiss] * 3
    + [trust] * 2
    + [rotate] * 4
)
ABOUT_ROTATIONS = (
    [rotate] * 9 + [tick] * 5 + [renew] * 3 + [dismiss] * 2 + [end, trust, repeat, undo]
)
ABOUT_MACHINES = [trust] * 8 + [dismiss] * 4 + [undo, end, condition, repeat, observe]
