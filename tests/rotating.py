"""A server whose keys rotate, without a bus: its owner's orders, a judge, and its own memory."""

import sqlite3
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from bus_schemas.codec import decode
from bus_schemas.credential import CredentialPayload
from bus_schemas.event import ServerFact
from bus_schemas.events import ConfigDesired, OrderAnswered
from bus_schemas.events.config import Order
from bus_schemas.events.reported import RotationStep
from bus_schemas.fields import at_utc
from bus_schemas.keys import owner_fingerprint
from bus_schemas.orders import Addressee, Instruction, OrderKind, Stamp, sign_order
from tests.judges import Says
from tests.refreshing import SERVER, SLOT, Running, opened
from vps_runtime.announcer import Announcer
from vps_runtime.enrolment.pins import Pins, write_pins
from vps_runtime.facts.told import TagKey
from vps_runtime.fingerprint.tags import Tags
from vps_runtime.keys.calls import Calls
from vps_runtime.keys.keyring import Keyring
from vps_runtime.keys.rotator import Rotator
from vps_runtime.orders.obey import Orders
from vps_runtime.unlocked import UnlockedServer
from vps_runtime.vault.credentials import Held

OWNER = Ed25519PrivateKey.generate()
EPOCH = "e1"


@dataclass
class Hand:
    """Somebody who has a key in the hand, until it is put down."""

    revision: int | None = None

    def uses_older(self, slot_id: str, revision: int) -> bool:
        """Whether it is an older one."""
        return slot_id == SLOT and self.revision is not None and self.revision < revision


@dataclass
class Tagger:
    """Stands for the evaluator: while it is there, every tag is told as soon as it is asked for."""

    server: UnlockedServer
    away: bool = False

    async def tell_missing(self) -> str:
        """Tell what is missing."""
        tags = [
            TagKey(held.slot_id, held.revision, EPOCH, basis).key
            for held in self.server.credentials.held.values()
            for basis in held.bases
        ]
        if not self.away:
            await self.server.facts.tell(remember=dict.fromkeys(tags, "1"))
        return EPOCH


@dataclass
class Rotating:
    """The parts of an unlocked server that have to do with rotations."""

    running: Running
    calls: Calls = field(default_factory=Calls)
    judge: Says = field(default_factory=Says)
    hand: Hand = field(default_factory=Hand)

    def __post_init__(self) -> None:
        self.server = self.running.server
        self.keyring: Keyring = self.running.keyring
        self.tagger = Tagger(self.server)
        self.rotator = Rotator(self.server, self.keyring, self.calls, self.judge, (self.hand,))
        self.announcer = Announcer(self.server, cast("Tags", self.tagger), self.rotator.changed)
        self.orders = Orders(self.server.state, self.server.facts, keys=self.rotator)
        self.given = 0

    @property
    def current(self) -> int | None:
        """The revision that a call would be made with."""
        key = self.keyring.current(SLOT)
        return key.revision if key else None

    @property
    def held(self) -> list[int]:
        """The revisions in the vault."""
        return sorted(self.server.credentials.of(SLOT))

    async def put(self, revision: int) -> Held:
        """Take a key in, as the reconciler does; nobody has been told yet."""
        payload = CredentialPayload(
            secret=SecretStr(f"sk-ant-api03-revision-{revision}"),
            base_url="http://127.0.0.1:9",
            header_style="x-api-key",
        )
        return await self.running.store(payload, revision)

    async def turn(self) -> None:
        """Let the announcer and the rotator each have a turn, and the announcer one more."""
        await self.announcer.catch_up()
        await self.rotator.catch_up()
        await self.announcer.catch_up()

    async def rotate(self, *revisions: int) -> None:
        """Bring one revision after the other into use."""
        for revision in revisions:
            await self.put(revision)
            await self.turn()
            assert self.current == revision

    def order(self, kind: OrderKind, revision: int) -> Order:
        """Return the owner's next order about a revision."""
        return self._signed(Instruction(kind, SLOT, str(revision)))

    def about_slot(self, kind: OrderKind) -> Order:
        """Return the owner's next order about the slot."""
        return self._signed(Instruction(kind, SLOT))

    def _signed(self, what: Instruction) -> Order:
        self.given += 1
        to = Addressee("acme", SERVER, self.server.identity.public_key)
        stamp = Stamp(str(uuid.uuid4()), self.given, at_utc(time.time() + 3600))
        return sign_order(OWNER, to, what, stamp)

    async def obey(self, *orders: Order) -> list[str | None]:
        """Obey them and return why each was refused, None for one that was not."""
        await self.orders.obey(
            ConfigDesired(
                server_id=SERVER,
                owner_id="acme",
                generation=self.orders.generation + 1,
                slots=(),
                orders=orders,
            )
        )
        answers = [fact for fact in self.told() if isinstance(fact, OrderAnswered)]
        return [answer.reason for answer in answers[-len(orders) :]]

    async def give(self, kind: OrderKind, revision: int) -> str | None:
        """Give an order and return why it was refused."""
        [reason] = await self.obey(self.order(kind, revision))
        return reason

    def told(self) -> list[ServerFact]:
        """Return every fact so far, in order."""
        with closing(sqlite3.connect(self.server.state.outbox)) as database:
            rows = database.execute("SELECT body, subject FROM outbox ORDER BY position").fetchall()
        events = [decode(body, subject, strict=True).data for body, subject in rows]
        return [event for event in events if isinstance(event, ServerFact)]

    def steps(self) -> list[str]:
        """Return the steps of rotations so far, such as `Verified 2 valid`."""
        return [_shown(fact) for fact in self.told() if isinstance(fact, RotationStep)]


def _shown(step: RotationStep) -> str:
    words = step.model_dump(include={"verdict", "reason", "provider_status"}).values()
    name = type(step).__name__.removeprefix("Credential")
    return " ".join([name, str(step.revision), *map(str, words)])


@asynccontextmanager
async def rotating(folder: Path) -> AsyncIterator[Rotating]:
    """Start the server in *folder*; leaving is like a kill: nothing is finished."""
    async with opened(folder) as running:
        write_pins(running.server.state.pins, Pins(pinned=(owner_pin(),)))
        yield Rotating(running)


def owner_pin() -> str:
    """Return the owner's fingerprint."""
    return owner_fingerprint(OWNER.public_key().public_bytes_raw())
