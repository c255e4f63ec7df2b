"""NATS JWTs, taken apart again by an independent decoder."""

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bus_schemas.flows import Account, Role, flows
from bus_schemas.nkeys import KeyType, public_nkey
from platform_handlers.authority.claims import (
    AccountPlan,
    Scope,
    UserPlan,
    issued_at,
    mint_account,
    mint_operator,
    mint_system_user,
    mint_user,
)
from platform_handlers.authority.permissions import Permissions, crossings, permissions

Json = dict[str, Any]
NOW = 1_795_428_000


def key(number: int) -> Ed25519PrivateKey:
    """Return a test key."""
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


OPERATOR, CORE, FLEET, SIGNING, USER = (key(n) for n in range(1, 6))
CORE_ID = public_nkey(CORE, KeyType.ACCOUNT)
FLEET_ID = public_nkey(FLEET, KeyType.ACCOUNT)
USER_ID = public_nkey(USER, KeyType.USER)


def unpacked(part: str) -> bytes:
    """Return a JWT part's bytes, by the standard library alone."""
    return base64.urlsafe_b64decode(part + "==")


def verified(jwt: str) -> Json:
    """Return the claims of *jwt* after checking it the way nats-server does."""
    head, body, signature = jwt.split(".")
    claims: Json = json.loads(unpacked(body))
    assert json.loads(unpacked(head)) == {"typ": "JWT", "alg": "ed25519-nkey"}
    # An nkey: prefix byte, 32 bytes of key, two of checksum.
    issuer = base64.b32decode(claims["iss"])[1:33]
    Ed25519PublicKey.from_public_bytes(issuer).verify(
        unpacked(signature), f"{head}.{body}".encode()
    )
    without_id = {name: value for name, value in claims.items() if name != "jti"}
    canonical = json.dumps(without_id, separators=(",", ":"), sort_keys=True).encode()
    digest = hashlib.sha256(canonical).digest()
    assert claims["jti"] == base64.b32encode(digest).decode().rstrip("=")
    assert "=" not in jwt
    return claims


def account(plan: AccountPlan, subject: str = CORE_ID) -> Json:
    """Return the `nats` part of an account's claims."""
    claims = verified(mint_account(OPERATOR, subject, plan, issued_at=NOW))
    assert claims["iss"] == public_nkey(OPERATOR, KeyType.OPERATOR)
    assert (claims["sub"], claims["name"], claims["iat"]) == (subject, plan.name, NOW)
    nats: Json = claims["nats"]
    assert (nats["type"], nats["version"]) == ("account", 2)
    return nats


def scope(role: Role) -> Json:
    """Return the claim of a signing key that is scoped to *role*."""
    signing = public_nkey(SIGNING, KeyType.ACCOUNT)
    plan = AccountPlan(role.account.value, [Scope(role, signing, permissions(role, flows()))])
    [claim] = account(plan)["signing_keys"]
    assert (claim["kind"], claim["key"], claim["role"]) == ("user_scope", signing, role.value)
    template: Json = claim["template"]
    return template


def test_the_operator_signs_itself() -> None:
    """The root of trust that nats-server is configured with."""
    claims = verified(mint_operator(OPERATOR, system_account=CORE_ID, issued_at=NOW))
    assert claims["sub"] == claims["iss"] == public_nkey(OPERATOR, KeyType.OPERATOR)
    assert claims["nats"] == {"type": "operator", "version": 2, "system_account": CORE_ID}
    assert "exp" not in claims


def test_a_forged_signature_does_not_verify() -> None:
    """The check above is able to fail."""
    jwt = mint_operator(OPERATOR, system_account=CORE_ID, issued_at=NOW)
    head, body, _ = jwt.split(".")
    other = mint_operator(key(9), system_account=CORE_ID, issued_at=NOW).split(".")[2]
    with pytest.raises(InvalidSignature):
        verified(f"{head}.{body}.{other}")


def test_only_the_core_has_jetstream() -> None:
    """In the fleet's account every stream would be within every server's reach."""
    core = account(AccountPlan("CORE", jetstream=True))["limits"]
    fleet = account(AccountPlan("FLEET"), FLEET_ID)["limits"]
    assert core["streams"] == core["disk_storage"] == -1
    assert not {"streams", "consumer", "disk_storage", "mem_storage"} & set(fleet)
    assert core["disallow_bearer"] is fleet["disallow_bearer"] is True


def test_revocations_and_no_default_permissions() -> None:
    """A token issued at or before the moment is refused; nothing is allowed by default."""
    nats = account(AccountPlan("FLEET", revocations={USER_ID: NOW}), FLEET_ID)
    assert nats["revocations"] == {USER_ID: NOW}
    assert nats["default_permissions"] == {"pub": {}, "sub": {}}


@pytest.mark.parametrize("role", [Role.SERVER, Role.DOOR, Role.ENROLLING])
def test_a_fleet_template_is_narrow(role: Role) -> None:
    """Few subscriptions, small messages, no websocket or leaf node, no replies."""
    template = scope(role)
    wanted = permissions(role, flows())
    assert template["pub"] == {"allow": list(wanted.publish)}
    assert template["sub"] == {"allow": list(wanted.subscribe)}
    assert template["subs"] == 20
    assert template["payload"] == 68 * 1024
    assert template["allowed_connection_types"] == ["STANDARD"]
    assert "resp" not in template


def test_a_handler_may_answer_each_request_once() -> None:
    """A reply subject is the asker's choice; one answer within seconds bounds its use."""
    template = scope(Role.EVALUATOR)
    assert template["resp"] == {"max": 1, "ttl": 10_000_000_000}
    assert template["subs"] == template["payload"] == -1
    assert "resp" not in scope(Role.FINGERPRINT)


def test_a_role_that_publishes_nothing_is_denied_everything() -> None:
    """NATS reads an empty allow list as no restriction at all."""
    silent = Scope(Role.OPS, "A", Permissions((), ("_INBOX.x.>",), may_answer=False))
    [claim] = account(AccountPlan("READERS", [silent]))["signing_keys"]
    assert claim["template"]["pub"] == {"deny": [">"]}


@pytest.mark.parametrize("border", [Account.FLEET, Account.READERS])
def test_imports_and_exports_are_two_ends_of_one_thing(border: Account) -> None:
    """What the core exports is what the account imports, under the name its clients use."""
    crossing = crossings(border, flows())
    exported = account(AccountPlan("CORE", exports=crossing))["exports"]
    imported = account(AccountPlan(border.value, imports=crossing, imports_from=CORE_ID))["imports"]
    assert [(e["subject"], e["type"]) for e in exported] == [
        (i["subject"], i["type"]) for i in imported
    ]
    assert {i["account"] for i in imported} == {CORE_ID}
    for end in imported:
        prefix = "$JS.CORE.API." if border is Account.READERS else "$JS.API."
        assert end["local_subject"] == end["subject"].replace("$JS.API.", prefix)
    for end in exported:
        assert ("response_type" in end) == (end["type"] == "service")


def test_a_batched_read_may_have_many_replies() -> None:
    """And a single request only one."""
    exported = account(AccountPlan("CORE", exports=crossings(Account.READERS, flows())))["exports"]
    kinds = {e["subject"]: e.get("response_type") for e in exported}
    assert kinds["$JS.API.DIRECT.GET.BYOK_BANNERS"] == "Stream"
    assert kinds["$JS.API.STREAM.INFO.BYOK_BANNERS"] == "Singleton"


def test_only_the_enrolment_shares_where_a_request_came_from() -> None:
    """A join token's last use is shown with its address; other handlers need none."""
    imported = account(
        AccountPlan("FLEET", imports=crossings(Account.FLEET, flows()), imports_from=CORE_ID)
    )["imports"]
    assert {i["subject"] for i in imported if i.get("share")} == {"byok.v1.enrol.*"}


def test_a_user_has_its_scopes_permissions_and_none_of_its_own() -> None:
    """A scoped user that carries permissions is refused by nats-server."""
    user = UserPlan("acme-1", USER_ID, FLEET_ID, NOW, expires_at=NOW + 3600, tags=("owner:acme",))
    claims = verified(mint_user(SIGNING, user))
    assert claims["iss"] == public_nkey(SIGNING, KeyType.ACCOUNT)
    assert (claims["sub"], claims["name"]) == (USER_ID, "acme-1")
    assert (claims["iat"], claims["exp"]) == (NOW, NOW + 3600)
    assert claims["nats"] == {
        "type": "user",
        "version": 2,
        "issuer_account": FLEET_ID,
        "tags": ["owner:acme"],
    }


def test_a_user_without_an_end_has_none() -> None:
    """Platform roles live until they are revoked."""
    jwt = mint_user(SIGNING, UserPlan("config", USER_ID, CORE_ID, NOW))
    assert "exp" not in verified(jwt)
    assert issued_at(jwt) == NOW


def test_the_system_user_is_signed_by_its_account() -> None:
    """It pushes account claims and kicks connections, and is nobody's scoped user."""
    claims = verified(mint_system_user(CORE, UserPlan("system", USER_ID, CORE_ID, NOW)))
    assert claims["iss"] == CORE_ID
    assert claims["nats"]["type"] == "user"
    assert "issuer_account" not in claims["nats"]
    assert claims["nats"]["allowed_connection_types"] == ["STANDARD"]
