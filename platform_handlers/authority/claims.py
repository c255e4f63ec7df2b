"""NATS JWTs (version 2), minted with Ed25519. Pure: time and keys come in as arguments.

Source: the NATS documentation "JWTs" and the claim types of nats-io/jwt v2. `nats-jwt` on PyPI
calls itself not well tested, so the four claim kinds we need are written out here.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.encoding import from_base64url, to_base64url
from bus_schemas.errors import Refused
from bus_schemas.fields import ID_PATTERN
from bus_schemas.flows import Account, Role
from bus_schemas.nkeys import KeyType, public_nkey
from bus_schemas.requests import ENROL
from platform_handlers.authority.permissions import Direction, Need, Permissions

_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_NO_LIMIT = -1
_FLEET_PAYLOAD = 68 * 1024
"""64 KiB of envelope and room for headers, which NATS counts as payload."""

_RESPONSE_NANOSECONDS = 10 * 1_000_000_000


@dataclass(frozen=True)
class Scope:
    """A scoped signing key: users it signs get exactly this role's template."""

    role: Role
    signing_key: str
    permissions: Permissions


@dataclass(frozen=True)
class AccountPlan:
    """Everything that goes into one account's JWT."""

    name: str
    scopes: Sequence[Scope] = ()
    exports: Sequence[Need] = ()
    imports: Sequence[Need] = ()
    imports_from: str = ""
    jetstream: bool = False
    revocations: Mapping[str, int] = field(default_factory=dict)
    """Public nkey to Unix seconds: tokens issued at or before that moment are refused."""


def mint_operator(key: Ed25519PrivateKey, *, system_account: str, issued_at: int) -> str:
    """Return the operator's self-signed JWT."""
    subject = public_nkey(key, KeyType.OPERATOR)
    nats = {"type": "operator", "version": 2, "system_account": system_account}
    return _mint(key, KeyType.OPERATOR, subject, "byok", issued_at, nats)


def mint_account(
    operator: Ed25519PrivateKey, subject: str, plan: AccountPlan, *, issued_at: int
) -> str:
    """Return an account JWT signed by the operator.

    *issued_at* must grow with every version of an account: of two equal ones a node may roll the
    older back over the newer on the whole cluster.
    """
    nats = {
        "type": "account",
        "version": 2,
        "limits": _account_limits(plan),
        "default_permissions": {"pub": {}, "sub": {}},
        "signing_keys": [_scope_claim(scope) for scope in plan.scopes],
        "exports": [_export(need) for need in plan.exports],
        "imports": [_import(need, plan) for need in plan.imports],
        "revocations": dict(plan.revocations),
    }
    return _mint(operator, KeyType.OPERATOR, subject, plan.name, issued_at, nats)


@dataclass(frozen=True)
class UserPlan:
    """One user of a scoped signing key. Raises Refused(`bad_user_name`)."""

    name: str
    nkey: str
    account: str
    issued_at: int
    expires_at: int | None = None
    tags: tuple[str, ...] = ()
    """`key:value`; a template may put the value into its subjects, like the name."""

    def __post_init__(self) -> None:
        tokens = (self.name, *(tag.partition(":")[2] for tag in self.tags))
        if not all(re.fullmatch(ID_PATTERN, token) for token in tokens):
            # `*`, `>` or a dot would widen what the scope's template allows.
            raise Refused("bad_user_name", "names and tags are 1 to 63 of a-z, 0-9 and -")


def mint_user(signing_key: Ed25519PrivateKey, user: UserPlan) -> str:
    """Return a user JWT; its permissions are those of the signing key's scope, nothing own."""
    nats = {"type": "user", "version": 2, "issuer_account": user.account, "tags": list(user.tags)}
    return _mint(
        signing_key,
        KeyType.ACCOUNT,
        user.nkey,
        user.name,
        user.issued_at,
        nats,
        expires_at=user.expires_at,
    )


def mint_system_user(account_key: Ed25519PrivateKey, user: UserPlan) -> str:
    """Return a user JWT of the system account, signed by the account itself, unscoped."""
    nats = {
        "type": "user",
        "version": 2,
        "pub": {},
        "sub": {},
        "subs": _NO_LIMIT,
        "data": _NO_LIMIT,
        "payload": _NO_LIMIT,
        "allowed_connection_types": ["STANDARD"],
    }
    return _mint(account_key, KeyType.ACCOUNT, user.nkey, user.name, user.issued_at, nats)


def _mint(  # noqa: PLR0913 (the claims of RFC 7519 one by one)
    key: Ed25519PrivateKey,
    issuer: KeyType,
    subject: str,
    name: str,
    issued_at: int,
    nats: Mapping[str, Any],
    *,
    expires_at: int | None = None,
) -> str:
    claims: dict[str, Any] = {
        "iat": issued_at,
        "iss": public_nkey(key, issuer),
        "name": name,
        "sub": subject,
        "nats": nats,
    }
    if expires_at is not None:
        claims["exp"] = expires_at
    digest = hashlib.sha256(_json(claims)).digest()
    claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
    signed = f"{to_base64url(_json(_HEADER))}.{to_base64url(_json(claims))}"
    return f"{signed}.{to_base64url(key.sign(signed.encode()))}"


def issued_at(jwt: str) -> int:
    """Return the `iat` of a JWT of our own making, in Unix seconds."""
    claims = json.loads(from_base64url(jwt.split(".")[1]))
    return int(claims["iat"])


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _account_limits(plan: AccountPlan) -> dict[str, Any]:
    limits: dict[str, Any] = dict.fromkeys(
        ("subs", "data", "payload", "imports", "exports", "conn", "leaf"), _NO_LIMIT
    )
    limits |= {"wildcards": True, "disallow_bearer": True}
    if plan.jetstream:
        limits |= dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), _NO_LIMIT)
    return limits


def _scope_claim(scope: Scope) -> dict[str, Any]:
    fleet = scope.role.account is Account.FLEET
    template: dict[str, Any] = {
        "pub": {"allow": list(scope.permissions.publish)},
        "sub": {"allow": list(scope.permissions.subscribe)},
        "subs": 20 if fleet else _NO_LIMIT,
        "data": _NO_LIMIT,
        "payload": _FLEET_PAYLOAD if fleet else _NO_LIMIT,
        "allowed_connection_types": ["STANDARD"],
    }
    if not scope.permissions.publish:
        template["pub"] = {"deny": [">"]}  # an empty allow list would mean "everything"
    if scope.permissions.may_answer:
        template["resp"] = {"max": 1, "ttl": _RESPONSE_NANOSECONDS}
    return {
        "kind": "user_scope",
        "key": scope.signing_key,
        "role": scope.role.value,
        "template": template,
    }


def _export(need: Need) -> dict[str, Any]:
    service = need.direction is Direction.PUB
    export = {
        "name": need.subject.wildcard,
        "subject": need.subject.wildcard,
        "type": "service" if service else "stream",
    }
    if service:
        export["response_type"] = "Stream" if need.many_replies else "Singleton"
    return export


def _import(need: Need, plan: AccountPlan) -> dict[str, Any]:
    imported: dict[str, Any] = {
        "name": need.subject.wildcard,
        "subject": need.subject.wildcard,
        "local_subject": need.local(Account(plan.name)).wildcard,
        "account": plan.imports_from,
        "type": "service" if need.direction is Direction.PUB else "stream",
    }
    if need.subject == ENROL:
        # nats-server then names the caller's address in `Nats-Request-Info`: a join token must
        # tell from where it was used.
        imported["share"] = True
    return imported
