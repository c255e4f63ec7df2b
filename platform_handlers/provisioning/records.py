"""What the registry knows, as values, and the rules a server's record moves by. Pure."""

import base64
import hashlib
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from bus_schemas.errors import Refused
from bus_schemas.fields import ID_PATTERN

JOIN_SECONDS: Final = 3600
LINK_SECONDS: Final = 15 * 60
SESSION_SECONDS: Final = 12 * 3600
WORKING_SECONDS: Final = 3600
DOOR_SECONDS: Final = 90 * 24 * 3600

_ID = re.compile(ID_PATTERN)


class ServerState(StrEnum):
    """Where a server stands; it moves down this list, and up by a re-enrolment alone."""

    PENDING = "pending"
    """Its join token was issued; no machine, or no new one, has enrolled yet."""
    ACTIVE = "active"
    REVOKED = "revoked"
    """May neither connect nor unlock; its holdings stay known."""
    DEPROVISIONED = "deprovisioned"
    """Gone for good; its id is never issued again."""


@dataclass(frozen=True)
class JoinUse:
    """Whether a join token was used, and who tried last."""

    expires_at: int
    """Unix seconds."""
    used_at: int | None = None
    used_from: str | None = None
    """Address of the machine that enrolled with it."""
    tried_at: int | None = None
    tried_from: str | None = None
    """Address of the last machine that was turned away with it."""


@dataclass(frozen=True)
class JoinAttempt:
    """One use of a server's join token."""

    at: int
    """Unix seconds."""
    source: str
    """Address of the machine, as the bus saw it."""
    outcome: str
    """`enrolled`, `again` (the same machine, its answer got lost), or why it was refused."""


@dataclass(frozen=True)
class ServerRecord:
    """One server as the platform knows it. Holds public halves only."""

    server_id: str
    owner_id: str
    state: ServerState
    join: JoinUse
    nkey: str | None = None
    identity_key: bytes | None = None
    """Ed25519 public key, 32 bytes."""
    enrolled_at: int | None = None
    ended_at: int | None = None
    """Unix seconds of its revocation or deprovisioning, whichever came first."""
    reason: str | None = None

    @property
    def active(self) -> bool:
        """Whether it may connect, unlock and be configured."""
        return self.state is ServerState.ACTIVE


@dataclass(frozen=True)
class Session:
    """A signed-in browser."""

    owner_id: str
    secret: str = field(repr=False)
    """Goes into the HttpOnly cookie; the platform keeps its hash only."""
    expires_at: int
    """Unix seconds."""


def secret_hash(secret: str) -> bytes:
    """Return what is stored of a 256-bit random secret.

    Look-ups go by it, so no secret is ever compared byte by byte.
    """
    return hashlib.sha256(secret.encode()).digest()


def joiner_name(join_hash: bytes) -> str:
    """Return the NATS user's name of whoever holds the join token with that `secret_hash`.

    So a request's subject tells which server its token was issued for. Not the server's own name:
    a user may listen on the inboxes of its name, and whoever got hold of a used join token must
    not hear the server's answers.
    """
    return "join-" + base64.b32encode(join_hash).decode("ascii").rstrip("=").lower()


def check_id(kind: str, value: str) -> str:
    """Return *value* if it may become an id. Raises Refused(`bad_id`).

    A dot or a `*` in a name would become a second token or a wildcard in a NATS permission.
    """
    if not _ID.fullmatch(value):
        raise Refused("bad_id", f"{kind} ids are 1 to 63 of a-z, 0-9 and -")
    return value


def check_joinable(record: ServerRecord, nkey: str, identity_key: bytes, *, at: int) -> bool:
    """Say whether a server with the right secret enrols anew (False: it already has).

    A machine whose answer got lost asks again with the keys it made, and gets its tokens; other
    keys with a used token are somebody else. Raises Refused.
    """
    if record.state is ServerState.ACTIVE:
        if (record.nkey, record.identity_key) != (nkey, identity_key):
            who = f"was used from {record.join.used_from}"
            raise Refused("join_token_used", f"the join token of {record.server_id} {who}")
        if at > record.join.expires_at:
            raise Refused("join_token_expired", f"{record.server_id} has enrolled long ago")
        return False
    if record.state is not ServerState.PENDING:
        raise Refused(f"server_{record.state}", f"{record.server_id} is {record.state}")
    if at > record.join.expires_at:
        detail = f"the join token of {record.server_id} was good for an hour; issue a new one"
        raise Refused("join_token_expired", detail)
    return True


def check_replaceable(record: ServerRecord, *, had_keys: bool) -> None:
    """Raise Refused unless another machine may become *record*'s server.

    *had_keys*: a machine has been this server before. A revoked server may come back so; one
    that was deprovisioned may not, since what it held has been forgotten.
    """
    name = record.server_id
    if record.state is ServerState.DEPROVISIONED:
        raise Refused("server_deprovisioned", f"{name} is gone for good; add a server anew")
    if record.state is ServerState.PENDING and not had_keys:
        detail = f"no machine was {name} yet; `byok server add {record.owner_id} {name}`"
        raise Refused("never_enrolled", f"{detail} makes a new join token")


def next_state(record: ServerRecord, wanted: ServerState) -> ServerState:
    """Return the state after ending *record*'s life; repeating is fine, going back is not.

    Raises Refused(`already_deprovisioned`).
    """
    if record.state is ServerState.DEPROVISIONED and wanted is not ServerState.DEPROVISIONED:
        raise Refused("already_deprovisioned", f"{record.server_id} is gone; nothing to revoke")
    return wanted
