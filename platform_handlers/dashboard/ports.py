"""What the dashboard asks of its neighbours, in its own words."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from bus_schemas.api import OrderList, ServerHealth, SlotHistory, SlotView
from bus_schemas.approval import Approval
from bus_schemas.event import Event
from bus_schemas.events import ConfigDesired
from bus_schemas.events.config import Order
from bus_schemas.keys import SignedSealingKey
from bus_schemas.orders import Addressee
from bus_schemas.sealed import SealedEnvelope


@dataclass(frozen=True)
class KnownServer:
    """One server of one owner."""

    server_id: str
    identity_key: bytes | None
    """Ed25519 public key; none before the server has enrolled."""
    active: bool
    """False once it was revoked."""


class Tokens(Protocol):
    """Who calls the API."""

    async def owner_of_token(self, token: str) -> str | None:
        """Return the owner whose token this is."""
        ...


class Sessions(Protocol):
    """Who looks at the page."""

    async def open_session(self, link_secret: str) -> str | None:
        """Use up a one-time link and return a new session's secret; None if it is no good."""
        ...

    async def owner_of_session(self, session: str) -> str | None:
        """Return the owner whose living session this is."""
        ...

    async def end_session(self, session: str) -> None:
        """Forget the session."""
        ...


class Fleet(Protocol):
    """Which servers an owner has."""

    async def servers_of(self, owner_id: str) -> Sequence[KnownServer]:
        """Return the servers of *owner_id*, by id."""
        ...

    async def server_of(self, owner_id: str, server_id: str) -> KnownServer | None:
        """Return one of them; None whether it is unknown or another owner's."""
        ...


class Inbox(Protocol):
    """Takes sealed credentials in."""

    async def accept(self, envelope: SealedEnvelope, base_revision: int) -> ConfigDesired:
        """Return the document that asks the server to take *envelope*.

        Raises Refused (`stale_base_revision` and others) and BusUnavailable.
        """
        ...


class Standing(Protocol):
    """How a server and its slots stand."""

    @property
    def slots(self) -> Sequence[SlotView]:
        """The slots, by id."""
        ...

    @property
    def locked(self) -> bool | None:
        """True while a signed order keeps the server locked, by its last report."""
        ...

    @property
    def reported_at(self) -> datetime | None:
        """When that report came; None for none within a day."""
        ...

    @property
    def health(self) -> ServerHealth | None:
        """What it says of the server as a whole."""
        ...


class Shelf(Protocol):
    """What servers have told of their slots."""

    async def sealing_key(self, server_id: str) -> SignedSealingKey | None:
        """Return the newest key the server has announced."""
        ...

    async def standing(self, server_id: str) -> Standing:
        """Return how the server and its slots stand. Raises BusUnavailable."""
        ...

    async def history(self, server_id: str, slot_id: str) -> SlotHistory:
        """Return the slot's newest rotations; none of a slot that nothing was told of."""
        ...


class Orders(Protocol):
    """Takes owners' signed orders in, and knows what became of them."""

    async def give(self, to: Addressee, order: Order) -> ConfigDesired:
        """Return the document that carries *order*.

        Raises Refused (`stale_n` and others) and BusUnavailable.
        """
        ...

    async def list_of(self, server_id: str) -> OrderList:
        """Return the server's orders. Raises BusUnavailable."""
        ...


class Approvals(Protocol):
    """Takes owners' approvals of restored machines in."""

    async def approve(self, approval: Approval) -> None:
        """Have the copy that *approval* names let in once. Raises Refused, BusUnavailable."""
        ...


class Facts(Protocol):
    """Where the owner's answers to banners go."""

    async def tell(self, fact: Event) -> None:
        """Store *fact* in the ledger. Raises BusUnavailable."""
        ...


@dataclass(frozen=True)
class Neighbours:
    """Everybody the dashboard asks."""

    tokens: Tokens
    sessions: Sessions
    fleet: Fleet
    inbox: Inbox
    shelf: Shelf
    orders: Orders
    approvals: Approvals
    facts: Facts
