"""Servers come and go: `byok.v1.provisioning.{server_id}`, written by the issuer."""

from datetime import date
from typing import ClassVar

from bus_schemas.event import Event, Writer
from bus_schemas.fields import Key32, Nkey, OwnerId, Reason, ServerId
from bus_schemas.subjects import SubjectTemplate

PROVISIONING = SubjectTemplate("byok.v1.provisioning.{server_id}")


class ServerProvisioned(Event):
    """A server enrolled with keys it made itself. Server ids are never issued twice."""

    type: ClassVar[str] = "byok.server.provisioned.v1"
    template: ClassVar[SubjectTemplate] = PROVISIONING
    writer: ClassVar[Writer] = Writer.ISSUER
    since: ClassVar[date] = date(2026, 11, 23)

    server_id: ServerId
    owner_id: OwnerId
    nkey: Nkey
    """Public half of the key the server signs in to NATS with."""
    identity_key: Key32
    """Ed25519 public key that signs the server's sealing key and its evaluator requests."""


class ServerDeprovisioned(Event):
    """The server is gone for good; its fingerprints and banners go with it."""

    type: ClassVar[str] = "byok.server.deprovisioned.v1"
    template: ClassVar[SubjectTemplate] = PROVISIONING
    writer: ClassVar[Writer] = Writer.ISSUER
    since: ClassVar[date] = date(2026, 11, 23)

    server_id: ServerId
    owner_id: OwnerId
    reason: Reason


class ServerRevoked(Event):
    """The server may no longer connect or unlock. Its holdings stay known: the thief has them."""

    type: ClassVar[str] = "byok.server.revoked.v1"
    template: ClassVar[SubjectTemplate] = PROVISIONING
    writer: ClassVar[Writer] = Writer.ISSUER
    since: ClassVar[date] = date(2026, 11, 23)

    server_id: ServerId
    owner_id: OwnerId
    reason: Reason


class ServerReenrolled(Event):
    """Another machine, with keys of its own, took the place of the one that was this server.

    Written when the new machine enrols; the old one's tokens are void since the command that
    asked for it. Also a revoked server is back with it. What was sealed for the old machine
    opens nowhere any more: the slots wait for their keys.
    """

    type: ClassVar[str] = "byok.server.reenrolled.v1"
    template: ClassVar[SubjectTemplate] = PROVISIONING
    writer: ClassVar[Writer] = Writer.ISSUER
    since: ClassVar[date] = date(2026, 11, 23)

    server_id: ServerId
    owner_id: OwnerId
    nkey: Nkey
    """Public half of the key the new machine signs in to NATS with."""
    identity_key: Key32
    """Ed25519 public key of the new machine; whatever the old one signed counts no longer."""
