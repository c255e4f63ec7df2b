"""Who the bus knows: the accounts as the flow table wants them, and users of their roles."""

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.flows import Account, Role, flows
from bus_schemas.nkeys import KeyType, public_nkey, seed_nkey
from bus_schemas.transport.credentials import Credentials
from platform_handlers.authority import claims
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.permissions import crossings, permissions


def account_plans(
    installation: Installation, revocations: Mapping[str, int] | None = None
) -> tuple[claims.AccountPlan, ...]:
    """Return the three accounts as the flow table wants them; *revocations* apply to FLEET."""
    table = flows()
    exports = {
        (need.direction, need.subject.wildcard): need
        for account in (Account.FLEET, Account.READERS)
        for need in crossings(account, table)
    }
    plans = []
    for account in Account:
        scopes = [
            claims.Scope(
                role,
                public_nkey(installation.signing_key(role), KeyType.ACCOUNT),
                permissions(role, table),
            )
            for role in Role
            if role.account is account
        ]
        core = account is Account.CORE
        plans.append(
            claims.AccountPlan(
                account.value,
                scopes,
                exports=tuple(exports.values()) if core else (),
                imports=crossings(account, table),
                imports_from="" if core else installation.account_id(Account.CORE.value),
                jetstream=core,
                revocations=(revocations or {}) if account is Account.FLEET else {},
            )
        )
    return tuple(plans)


def user_credentials(
    installation: Installation, role: Role, name: str, *, now: int, tags: tuple[str, ...] = ()
) -> Credentials:
    """Return fresh credentials for a user of *role*, valid until revoked."""
    key = Ed25519PrivateKey.generate()
    user = claims.UserPlan(
        name,
        public_nkey(key, KeyType.USER),
        installation.account_id(role.account.value),
        now,
        tags=tags,
    )
    jwt = claims.mint_user(installation.signing_key(role), user)
    return Credentials(jwt, seed_nkey(key, KeyType.USER))
