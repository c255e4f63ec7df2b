"""Facts for tests: short words for what servers, owners and the platform put on the ledger."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from bus_schemas.envelope import wrap
from bus_schemas.event import Event
from bus_schemas.events import (
    ClockTicked,
    ConfigRequested,
    CredentialNeedsKey,
    CredentialStored,
    CredentialVerified,
    DismissalRequested,
    DismissalUndone,
    EpochClosed,
    FingerprintObserved,
    FingerprintRenewed,
    FingerprintRetired,
    PinsChanged,
    ServerDeprovisioned,
    ServerProvisioned,
    ServerReenrolled,
    ServerRevoked,
    ServerUnlocked,
    StatusChanged,
    UnlockAnswered,
    UnlockApproved,
    UnlockRefused,
)
from bus_schemas.events.config import DesiredSlot
from bus_schemas.events.fingerprint import HeldRevision
from bus_schemas.events.health import Transition
from bus_schemas.events.reported import RotationStep
from bus_schemas.fields import Basis, CredentialKind, Strength
from bus_schemas.ids import derived_id
from bus_schemas.transport.ledger import Fact
from platform_handlers.banner.lifecycle import Banner, Cause
from platform_handlers.fingerprint.projection import Projection
from platform_handlers.fingerprint.store import cause_of

NKEY = "U" + "A" * 55
ROTATION = "00000000-0000-7000-8000-000000000000"
BEGIN = datetime(2026, 11, 23, tzinfo=UTC)


def nkey(machine: int) -> str:
    """Return the public nkey of a server's first, second or later machine (2 to 7)."""
    return NKEY if machine == 1 else "U" + str(machine) * 55


def pin(name: str) -> str:
    """Return an owner key's fingerprint that shows its name, one or more of A to Z."""
    return (name * 20)[:20]


def tag(name: str) -> str:
    """Return a tag that shows its name."""
    return name.encode().hex().ljust(64, "0")


@dataclass
class Ledger:
    """Numbers what is told, like the stream and the servers themselves do."""

    facts: list[Fact] = field(default_factory=list)
    _told: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _minute: int = 0

    def add(self, event: Event) -> Fact:
        """Put *event* on the ledger."""
        sequence = len(self.facts) + 1
        at = BEGIN + timedelta(seconds=sequence)
        fact = Fact(sequence, at, wrap(event, id_=derived_id("fact", str(sequence)), at=at))
        self.facts.append(fact)
        return fact

    def provisioned(self, server_id: str, owner_id: str) -> Fact:
        """A server has enrolled."""
        return self.add(
            ServerProvisioned(
                server_id=server_id, owner_id=owner_id, nkey=NKEY, identity_key=bytes(32)
            )
        )

    def observed(
        self,
        server_id: str,
        name: str,
        *,
        slot: str = "main",
        revision: int = 1,
        basis: Basis = Basis.API_KEY,
        strength: Strength = Strength.SECRET,
        epoch: str = "e1",
    ) -> Fact:
        """A server holds the credential *name*."""
        return self.add(
            FingerprintObserved(
                server_id=server_id,
                incarnation=1,
                n=self._next(server_id),
                slot_id=slot,
                revision=revision,
                provider="anthropic",
                basis=basis,
                strength=strength,
                epoch=epoch,
                tag=tag(name),
            )
        )

    def retired(self, server_id: str, revision: int, *, slot: str = "main") -> Fact:
        """A revision is gone from a slot."""
        return self.add(
            FingerprintRetired(
                server_id=server_id,
                incarnation=1,
                n=self._next(server_id),
                slot_id=slot,
                revision=revision,
            )
        )

    def renewed(self, server_id: str, *held: tuple[str, int]) -> Fact:
        """A server lists the (slot, revision) pairs it still holds."""
        return self.add(
            FingerprintRenewed(
                server_id=server_id,
                incarnation=1,
                n=self._next(server_id),
                held=tuple(HeldRevision(slot_id=s, revision=r) for s, r in held),
            )
        )

    def revoked(self, server_id: str, owner_id: str) -> Fact:
        """A server may no longer connect."""
        return self.add(ServerRevoked(server_id=server_id, owner_id=owner_id, reason="stolen"))

    def deprovisioned(self, server_id: str, owner_id: str) -> Fact:
        """A server is gone."""
        return self.add(ServerDeprovisioned(server_id=server_id, owner_id=owner_id, reason="sold"))

    def reenrolled(self, server_id: str, owner_id: str, machine: int = 2) -> Fact:
        """Another machine has taken a server's place."""
        return self.add(
            ServerReenrolled(
                server_id=server_id,
                owner_id=owner_id,
                nkey=nkey(machine),
                identity_key=bytes(32),
            )
        )

    def pinned(self, server_id: str, names: Iterable[str], incarnation: int = 1) -> Fact:
        """A server tells which owner keys it obeys; of a text, each letter is one."""
        return self.add(
            PinsChanged(
                server_id=server_id,
                incarnation=incarnation,
                n=self._next(server_id),
                pinned=tuple(map(pin, names)),
            )
        )

    def refused(self, server_id: str, reason: str = "stale_generation") -> Fact:
        """The evaluator refused to unlock."""
        return self.add(UnlockRefused(server_id=server_id, reason=reason))

    def approved(self, server_id: str) -> Fact:
        """The owner let a copy of a server unlock."""
        return self.add(UnlockApproved(server_id=server_id, signer=bytes(32)))

    def answered(self, server_id: str, incarnation: int) -> Fact:
        """The evaluator gave its half for a start."""
        return self.add(UnlockAnswered(server_id=server_id, incarnation=incarnation))

    def unlocked(self, server_id: str, incarnation: int) -> Fact:
        """A server opened its vault."""
        return self.add(ServerUnlocked(server_id=server_id, incarnation=incarnation))

    def ticked(self, minutes: int = 1) -> Fact:
        """The clock moved on by so many *minutes*, in one fact."""
        self._minute += minutes
        return self.add(ClockTicked(minute=self._minute))

    def epoch_closed(self, epoch: str) -> Fact:
        """The overlap of an epoch is over."""
        return self.add(EpochClosed(epoch=epoch))

    def status(
        self, server_id: str, owner_id: str, transition: Transition, slot: str | None = None
    ) -> Fact:
        """The health handler saw a transition."""
        return self.add(
            StatusChanged(
                server_id=server_id, owner_id=owner_id, transition=transition, slot_id=slot
            )
        )

    def needs_key(self, server_id: str, *, slot: str = "main") -> Fact:
        """A slot has no usable credential."""
        return self.add(
            CredentialNeedsKey(
                server_id=server_id,
                incarnation=1,
                n=self._next(server_id),
                slot_id=slot,
                provider="anthropic",
                reason="never_delivered",
            )
        )

    def stored(self, server_id: str, *, slot: str = "main", revision: int = 1) -> Fact:
        """A credential was stored."""
        return self.add(
            CredentialStored(
                server_id=server_id,
                incarnation=1,
                n=self._next(server_id),
                slot_id=slot,
                revision=revision,
                rotation_id=ROTATION,
                observed_generation=1,
                provider="anthropic",
            )
        )

    def requested(
        self,
        server_id: str,
        owner_id: str,
        *,
        slot: str = "main",
        revision: int = 1,
        kind: CredentialKind = CredentialKind.API_KEY,
        min_revision: int = 0,
    ) -> Fact:
        """The platform took a sealed credential in, or an order to retire some."""
        desired = DesiredSlot(
            slot_id=slot,
            provider="anthropic",
            kind=kind,
            revision=revision,
            min_revision=min_revision,
            rotation_id=ROTATION,
        )
        return self.add(
            ConfigRequested(server_id=server_id, owner_id=owner_id, generation=1, slot=desired)
        )

    def step(
        self,
        kind: type[RotationStep],
        server_id: str,
        /,
        *,
        slot: str = "main",
        revision: int = 1,
        **more: object,
    ) -> Fact:
        """A server tells of a step of a rotation; *more* is what only this step has."""
        fields = {
            "server_id": server_id,
            "incarnation": 1,
            "n": self._next(server_id),
            "slot_id": slot,
            "revision": revision,
            "rotation_id": ROTATION,
            "observed_generation": 1,
        }
        return self.add(kind.model_validate(fields | more))

    def promoted(
        self, server_id: str, *, slot: str = "main", revision: int = 1, verdict: str = "valid"
    ) -> Fact:
        """A revision is used from here on."""
        return self.step(
            CredentialVerified,
            server_id,
            slot=slot,
            revision=revision,
            verdict=verdict,
            promoted=True,
        )

    def dismissed(self, owner_id: str, banner_id: str, revision: int) -> Fact:
        """An owner dismisses a banner as it stood at *revision*."""
        return self.add(
            DismissalRequested(
                owner_id=owner_id,
                banner_id=banner_id,
                banner_revision=revision,
                who="ann",
                why="on purpose",
            )
        )

    def undone(self, owner_id: str, banner_id: str) -> Fact:
        """An owner wants to see a banner again."""
        return self.add(DismissalUndone(owner_id=owner_id, banner_id=banner_id, who="ann"))

    def _next(self, server_id: str) -> int:
        self._told[server_id] += 1
        return self._told[server_id]


def fold(projection: Projection, *facts: Fact) -> list[tuple[Banner, Cause]]:
    """Fold *facts* and return what each of them moved."""
    return [
        (banner, cause)
        for fact in facts
        for cause in [cause_of(fact, projection.ticks)]
        for banner in projection.apply(fact.envelope.data, cause)
    ]
