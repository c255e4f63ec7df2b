"""From a credential to a sealed envelope that only the right server can open. Pure.

Left to others: asking for the credential and for the server's keys, keeping the pin.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr, ValidationError

from bus_schemas.api import SealedSubmission, ServerView, SlotView
from bus_schemas.credential import CredentialPayload, OAuthSet
from bus_schemas.errors import ContractError, Refused
from bus_schemas.fields import CredentialKind
from bus_schemas.keys import SignedSealingKey, server_fingerprint, verify_sealing_key
from bus_schemas.providers import Provider, load_providers
from bus_schemas.sealed import SealContext, seal

LAST_REVISION: Final = 2**53 - 1
"""The highest that JSON carries exactly (RFC 8259 section 6)."""

LIFE: Final = timedelta(hours=24)
"""How long a sealed credential waits for its server; the platform keeps it no longer."""


@dataclass(frozen=True)
class TrustedServer:
    """A server whose identity key has the fingerprint that its console showed."""

    server_id: str
    sealing_key: SignedSealingKey


def trusted(server: ServerView, pinned: str, *, at: datetime) -> TrustedServer:
    """Return *server*'s sealing key once everything about it is checked against the pin.

    Raises Refused: `not_joined`, `fingerprint_differs`, `no_sealing_key`, and those of
    `keys.verify_sealing_key`.
    """
    name = server.server_id
    if server.identity_key is None:
        raise Refused("not_joined", f"{name} has not joined yet; run `byok-vps join` there")
    # Computed here: the one in the answer is the platform's word
    # (docs/protocol.md, "Signatures and keys").
    if server_fingerprint(name, server.identity_key) != pinned:
        detail = (
            f"the platform offers a key for {name} that is not the one you pinned. Nothing was "
            f"sent. If {name} was set up anew, run `byok-vps fingerprint` on its console and "
            f"`byok owner forget {name}` here; if not, somebody wants your key"
        )
        raise Refused("fingerprint_differs", detail)
    if server.sealing_key is None:
        detail = f"{name} has announced no sealing key yet; start `byok-vps run` there"
        raise Refused("no_sealing_key", detail)
    verify_sealing_key(
        server.sealing_key, server_id=name, identity_public_key=server.identity_key, at=at
    )
    return TrustedServer(name, server.sealing_key)


def provider_of(asked: str | None, slot: SlotView | None) -> Provider:
    """Return the provider that was asked for, or the one the slot has. Raises ContractError."""
    catalogue = load_providers()
    provider_id = asked or (slot.provider if slot else None)
    if provider_id is None:
        raise ContractError("no_provider", "a new slot needs --provider")
    if provider_id not in catalogue:
        detail = f"{provider_id} is not known; one of {', '.join(catalogue)}"
        raise ContractError("unknown_provider", detail)
    return catalogue[provider_id]


def api_key(secret: str, provider: Provider, base_url: str | None) -> CredentialPayload:
    """Return *secret* as a payload. Raises ContractError, which shows nothing of it."""
    return _payload(secret=SecretStr(secret), provider=provider, base_url=base_url)


def oauth_set(document: str, provider: Provider, base_url: str | None) -> CredentialPayload:
    """Return the sign-in in the JSON *document*. Raises ContractError, which names fields only."""
    try:
        oauth = OAuthSet.model_validate_json(document)
    except ValidationError as error:
        known = [str(e["loc"][0]) for e in error.errors(include_input=False) if e["loc"]]
        wrong = sorted(set(known) & set(OAuthSet.model_fields)) or ["the document"]
    else:
        return _payload(oauth=oauth, provider=provider, base_url=base_url)
    # Raised here and not above: a chained ValidationError would carry the input along.
    raise ContractError("bad_sign_in", f"the JSON is not a sign-in; look at {', '.join(wrong)}")


def _payload(
    *,
    provider: Provider,
    base_url: str | None,
    secret: SecretStr | None = None,
    oauth: OAuthSet | None = None,
) -> CredentialPayload:
    try:
        return CredentialPayload(
            secret=secret,
            oauth=oauth,
            base_url=base_url or provider.base_url,
            header_style=provider.header_style,
        )
    except ValidationError as error:
        wrong = {str(e["loc"][0]) for e in error.errors(include_input=False) if e["loc"]}
    what = "--base-url must be https://, or http:// on this machine"
    if "base_url" not in wrong:
        what = "the key holds characters that cannot be sent in a header"
    raise ContractError("bad_credential", what)


@dataclass(frozen=True)
class Sealing:
    """What one sealing is about."""

    owner_id: str
    slot_id: str
    provider: Provider
    base_revision: int
    """The newest revision known; the sealed one is the next."""
    envelope_id: str
    """A new UUID."""
    at: datetime


def submission(
    payload: CredentialPayload,
    server: TrustedServer,
    about: Sealing,
    owner_key: Ed25519PrivateKey,
) -> SealedSubmission:
    """Return *payload* sealed to *server* and signed. Raises Refused like `sealed.seal`."""
    context = SealContext(
        owner_id=about.owner_id,
        server_id=server.server_id,
        key_id=server.sealing_key.key_id,
        slot_id=about.slot_id,
        provider=about.provider.id,
        kind=payload.kind,
        revision=about.base_revision + 1,
        not_after=int((about.at + LIFE).timestamp()),
        envelope_id=about.envelope_id,
    )
    envelope = seal(
        payload,
        context,
        sealing_public_key=server.sealing_key.public_key,
        owner_private_key=owner_key,
    )
    return SealedSubmission(envelope=envelope, base_revision=about.base_revision)


def check_revision(slot: SlotView | None) -> None:
    """Raise Refused(`no_revision_left`) when none can follow, if the platform is to be believed."""
    if slot is not None and slot.revision >= LAST_REVISION:
        detail = f"the platform says that {slot.slot_id} has had the last revision there can be"
        raise Refused("no_revision_left", f"{detail}, which is wrong; use another slot")


def check_kind(provider: Provider, kind: CredentialKind) -> None:
    """Raise ContractError when *provider* takes no credential of this kind."""
    if kind not in provider.auth:
        kinds = " or ".join(provider.auth)
        raise ContractError("kind_not_offered", f"{provider.name} takes {kinds}, not {kind}")
