"""Who gets onto the bus: a token is worth nothing without its key, its account and its time."""

import base64
import json
import time
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.encoding import to_base64url
from bus_schemas.flows import Account, Role
from bus_schemas.nkeys import KeyType, key_from_seed, public_nkey, seed_nkey
from bus_schemas.transport.credentials import Credentials, parse_credentials
from platform_handlers.authority import claims
from platform_handlers.authority.accounts import account_plans, user_credentials
from platform_handlers.authority.installation import Installation
from tests.integration.permissions.conftest import InUse
from tests.integration.permissions.wire import Sent, SignInRefusedError, Wire

REFUSED = "Authorization Violation"


def now() -> int:
    """Return Unix seconds."""
    return int(time.time())


def new_key() -> Ed25519PrivateKey:
    """Return somebody's own key."""
    return Ed25519PrivateKey.generate()


def seed(key: Ed25519PrivateKey) -> str:
    """Return a user's seed."""
    return seed_nkey(key, KeyType.USER)


@pytest.fixture
def stolen(in_use: InUse) -> Credentials:
    """What a server has on its disk: its working token and its key."""
    return user_credentials(in_use.installation, Role.SERVER, "acme-1", now=now())


def turned_away(in_use: InUse, credentials: Credentials, **connect: object) -> str:
    """Try to sign in and return what nats-server says to it."""
    with pytest.raises(SignInRefusedError) as refusal:
        Wire.open(in_use.server.target, credentials, "thief", **connect)
    return str(refusal.value)


def user(in_use: InUse, name: str) -> tuple[Ed25519PrivateKey, claims.UserPlan]:
    """Return a server's key, and the plan of its token: a minute from now."""
    key = new_key()
    account = in_use.installation.account_id(Account.FLEET)
    nkey = public_nkey(key, KeyType.USER)
    return key, claims.UserPlan(name, nkey, account, now(), expires_at=now() + 60)


def minted(in_use: InUse, role: Role, key: Ed25519PrivateKey, plan: claims.UserPlan) -> Credentials:
    """Return credentials that the platform itself made."""
    return Credentials(claims.mint_user(in_use.installation.signing_key(role), plan), seed(key))


def test_with_its_key_a_token_opens(in_use: InUse, stolen: Credentials) -> None:
    """The tests below are able to fail."""
    in_use.sign_in(stolen, "acme-1").barrier()


def test_a_token_without_its_key_opens_nothing(in_use: InUse, stolen: Credentials) -> None:
    """Signed by another key, by none, or presented as if it were a bearer token."""
    other = replace(stolen, seed=seed(new_key()))
    assert REFUSED in turned_away(in_use, other)
    assert REFUSED in turned_away(in_use, other, nkey=public_nkey(new_key(), KeyType.USER))
    for signature in ("", "AAAA", to_base64url(bytes(64))):
        assert REFUSED in turned_away(in_use, stolen, sig=signature)


def test_a_signature_is_good_for_one_connection(in_use: InUse, stolen: Credentials) -> None:
    """Who overheard a sign-in cannot repeat it: the next nonce is another one."""
    nonce = b"a nonce of an earlier connection"
    overheard = base64.urlsafe_b64encode(stolen.sign(nonce)).decode().rstrip("=")
    assert REFUSED in turned_away(in_use, stolen, sig=overheard)


def test_without_a_token_nobody_comes_in(in_use: InUse, stolen: Credentials) -> None:
    """Neither with a bare nkey, nor with a name and password, nor with nothing."""
    key = public_nkey(key_from_seed(stolen.seed), KeyType.USER)
    for words in ({"nkey": key}, {"user": "acme-1", "pass": "x"}, {"auth_token": "x"}, {}):
        assert REFUSED in turned_away(in_use, stolen, **({"jwt": ""} | words))


def test_a_token_of_another_installation_opens_nothing(
    in_use: InUse, installation: Installation
) -> None:
    """The same name and role, but another operator's account."""
    foreign = user_credentials(installation, Role.SERVER, "acme-1", now=now())
    assert REFUSED in turned_away(in_use, foreign)


def test_nobody_signs_a_token_for_himself(in_use: InUse) -> None:
    """A key that is no signing key of the account, or one of another account, signs nothing."""
    key, plan = user(in_use, "acme-1")
    core = replace(plan, account=in_use.installation.account_id(Account.CORE))
    readers = in_use.installation.signing_key(Role.OPS)
    attempts = {
        "his own key": claims.mint_user(key, plan),
        "a key that opens another account": claims.mint_user(readers, plan),
        "a server's, said to be of the core": claims.mint_user(
            in_use.installation.signing_key(Role.SERVER), core
        ),
    }
    for who, jwt in attempts.items():
        assert REFUSED in turned_away(in_use, Credentials(jwt, seed(key))), who


@pytest.mark.parametrize("role", [Role.SERVER, Role.DOOR, Role.ENROLLING])
def test_a_changed_token_opens_nothing(in_use: InUse, role: Role) -> None:
    """Another name, no end, or permissions of its own: the signature is over each of them."""
    key, plan = user(in_use, "acme-1")
    head, body, signature = minted(in_use, role, key, plan).jwt.split(".")
    told = json.loads(base64.urlsafe_b64decode(body + "=="))
    wide = {"pub": {"allow": [">"]}, "sub": {"allow": [">"]}}
    changes = ({"name": "globex-1"}, {"exp": now() + 9**9}, {"nats": told["nats"] | wide})
    for change in changes:
        forged = to_base64url(json.dumps(told | change).encode())
        jwt = f"{head}.{forged}.{signature}"
        assert REFUSED in turned_away(in_use, Credentials(jwt, seed(key)))
    unsigned = to_base64url(json.dumps({"typ": "JWT", "alg": "none"}).encode())
    assert REFUSED in turned_away(in_use, Credentials(f"{unsigned}.{body}.", seed(key)))


def test_a_scoped_key_gives_its_scope_whatever_the_token_says(in_use: InUse) -> None:
    """Even who has the key that signs door tokens cannot make one that does more."""
    key, plan = user(in_use, "acme-1")
    signing = in_use.installation.signing_key(Role.DOOR)
    body = json.loads(
        base64.urlsafe_b64decode(claims.mint_user(signing, plan).split(".")[1] + "==")
    )
    body["nats"] |= {"pub": {"allow": [">"]}, "sub": {"allow": [">"]}, "bearer_token": True}
    head = to_base64url(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    signed = f"{head}.{to_base64url(json.dumps(body).encode())}"
    jwt = f"{signed}.{to_base64url(signing.sign(signed.encode()))}"
    assert REFUSED in turned_away(in_use, Credentials(jwt, seed(key)))


@pytest.mark.parametrize("role", [Role.SERVER, Role.DOOR, Role.ENROLLING])
def test_a_token_opens_within_its_time_only(in_use: InUse, role: Role) -> None:
    """An hour, or 90 days, and not a second more."""
    key, plan = user(in_use, "acme-1")
    in_use.sign_in(minted(in_use, role, key, plan), "acme-1").barrier()
    over = replace(plan, issued_at=now() - 3600, expires_at=now() - 1)
    assert REFUSED in turned_away(in_use, minted(in_use, role, key, over))


def revoke(in_use: InUse, nkeys: dict[str, int], issued_at: int) -> None:
    """Push the fleet's claims, as the system account's user."""
    plans = account_plans(in_use.installation, nkeys)
    plan = next(plan for plan in plans if plan.name == Account.FLEET.value)
    fleet = in_use.installation.account_id(Account.FLEET)
    operator = in_use.installation.operator_key()
    jwt = claims.mint_account(operator, fleet, plan, issued_at=issued_at)
    system = parse_credentials(in_use.installation.system_credentials.read_text())
    [answer] = in_use.sign_in(system, "system").answers(
        Sent("$SYS.REQ.CLAIMS.UPDATE", jwt.encode())
    )
    assert answer.answer["data"]["code"] == 200


def test_a_revoked_key_is_thrown_out_and_stays_out(in_use: InUse) -> None:
    """Its connection ends, both its tokens are void, its neighbour does not notice."""
    key, plan = user(in_use, "acme-7")
    plan = replace(plan, issued_at=now() - 10)
    neighbour_key, neighbour = user(in_use, "globex-7")
    tokens = {role: minted(in_use, role, key, plan) for role in (Role.SERVER, Role.DOOR)}
    wire = in_use.sign_in(tokens[Role.SERVER], "acme-7")
    beside = in_use.sign_in(minted(in_use, Role.SERVER, neighbour_key, neighbour), "globex-7")
    revoke(in_use, {plan.nkey: now() - 5}, issued_at=now() + 10)
    wire.until_ended()
    for token in tokens.values():
        assert REFUSED in turned_away(in_use, token)
    beside.barrier()
    later = replace(plan, issued_at=now())
    in_use.sign_in(minted(in_use, Role.SERVER, key, later), "acme-7").barrier()


def test_a_reader_cannot_push_claims_or_throw_anybody_out(in_use: InUse) -> None:
    """What revokes is a subject of the system account, and means nothing in any other."""
    for account in Account:
        wire = in_use.unbound(account, "unbound")
        for subject in ("$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.SERVER.PING", "$SYS.REQ.CLAIMS.LIST"):
            [answer] = wire.answers(Sent(subject, b"{}"))
            assert answer.status == "503", (account, subject)  # nobody listens there
