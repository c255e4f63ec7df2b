"""`byok init DIR`: makes every key, account, certificate and file of one installation.

DIR/nats/        nats-server.conf, its TLS pair, account JWTs, JetStream key, the store
DIR/authority/   operator and signing seeds, the CA's key (the issuer's eyes only)
DIR/roles/       one credentials file per platform role
DIR/evaluator/   the evaluator's keys and state: a process and uid of its own
DIR/platform/    the handlers' databases, the API's TLS pair
DIR/public/      ca.pem, evaluator.json and bus.url, which anybody may have
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bus_schemas.errors import Refused
from bus_schemas.fields import at_utc
from bus_schemas.flows import Account, Role, flows
from bus_schemas.nkeys import KeyType, key_from_seed, public_nkey, seed_nkey
from bus_schemas.requests import EvaluatorKeys
from bus_schemas.transport.credentials import Credentials
from bus_schemas.transport.private_files import make_private_folder, write_private
from platform_handlers.authority import claims, tls
from platform_handlers.authority.permissions import crossings, permissions
from platform_handlers.authority.server_conf import (
    BusAddress,
    jetstream_key_configuration,
    server_configuration,
)

_CORE_ROLES = (
    Role.SETUP,
    Role.ISSUER,
    Role.CONFIG,
    Role.EVALUATOR,
    Role.FINGERPRINT,
    Role.HEALTH,
    Role.API,
    Role.DASHBOARD,
    Role.OPS,
)
"""Roles that get their credentials at `init`; servers and subscribers get theirs one by one."""

_SYSTEM = "SYS"


@dataclass(frozen=True)
class Installation:
    """The folder of one platform installation; all paths hang off it."""

    root: Path

    @property
    def nats(self) -> Path:
        """nats-server's configuration, accounts and store."""
        return self.root / "nats"

    @property
    def authority(self) -> Path:
        """Seeds that sign tokens and certificates."""
        return self.root / "authority"

    @property
    def evaluator(self) -> Path:
        """The blind evaluator's own state."""
        return self.root / "evaluator"

    @property
    def platform(self) -> Path:
        """The handlers' databases."""
        return self.root / "platform"

    @property
    def ca(self) -> Path:
        """The CA certificate that servers, owners and readers trust."""
        return self.root / "public" / "ca.pem"

    @property
    def evaluator_keys(self) -> Path:
        """The evaluator's public keys, which every server pins at enrolment."""
        return self.root / "public" / "evaluator.json"

    @property
    def bus_url(self) -> Path:
        """Where the bus listens, as one line `tls://host:port`."""
        return self.root / "public" / "bus.url"

    @property
    def api_url(self) -> Path:
        """Where the API and the page are, as one line `https://host:port`."""
        return self.root / "public" / "api.url"

    @property
    def system_credentials(self) -> Path:
        """The system account's user: pushes account claims, looks at connections."""
        return self.root / "roles" / "system.creds"

    def credentials(self, role: Role) -> Path:
        """Return the credentials file of a platform role."""
        return self.root / "roles" / f"{role.value}.creds"

    def signing_key(self, role: Role) -> Ed25519PrivateKey:
        """Return the scoped signing key that users of *role* are signed with."""
        return key_from_seed((self.authority / f"{role.value}.seed").read_text().strip())

    def account_id(self, account: str) -> str:
        """Return the public nkey of *account* (`CORE`, `FLEET`, `READERS` or `SYS`)."""
        return public_nkey(self.account_key(account), KeyType.ACCOUNT)

    def account_key(self, account: str) -> Ed25519PrivateKey:
        """Return an account's own key; it signs nothing but the system user."""
        return key_from_seed((self.authority / f"account-{account}.seed").read_text().strip())

    def operator_key(self) -> Ed25519PrivateKey:
        """Return the operator's key, which signs account JWTs."""
        return key_from_seed((self.authority / "operator.seed").read_text().strip())

    def require(self) -> "Installation":
        """Return self. Raises Refused(`not_initialised`) when `byok init` has not been run."""
        if not (self.nats / "nats-server.conf").exists():
            detail = f"{self.root} holds no installation; run `byok init {self.root}` first"
            raise Refused("not_initialised", detail)
        return self


@dataclass(frozen=True)
class InitPlan:
    """What `byok init` needs to know."""

    bus: BusAddress
    hosts: Sequence[str] = ("localhost", "127.0.0.1")
    """Names and addresses that the TLS certificates are good for; clients are told the first."""


def initialise(root: Path, plan: InitPlan, *, now: int) -> Installation:
    """Make a new installation in *root*; *now* is in Unix seconds.

    Raises Refused(`already_initialised`): keys are never overwritten.
    """
    installation = Installation(root.resolve())
    if (installation.nats / "nats-server.conf").exists():
        raise Refused("already_initialised", f"{root} holds an installation; choose another folder")
    for folder in ("nats/tls", "nats/accounts", "nats/store", "authority", "roles", "evaluator"):
        make_private_folder(installation.root / folder)
    for folder in ("platform", "public"):
        make_private_folder(installation.root / folder)
    _make_seeds(installation)
    _make_certificates(installation, plan, now)
    _make_evaluator_keys(installation)
    _make_accounts(installation, now)
    _make_role_credentials(installation, now)
    write_private(
        installation.nats / "jetstream-key.conf",
        jetstream_key_configuration(secrets.token_urlsafe(32)).encode(),
    )
    if plan.bus.port > 0:
        write_bus_url(installation, f"tls://{plan.hosts[0]}:{plan.bus.port}")
    configuration = server_configuration(
        str(installation.nats), plan.bus, system_account=installation.account_id(_SYSTEM)
    )
    write_private(installation.nats / "nats-server.conf", configuration.encode())  # last: "done"
    return installation


def write_bus_url(installation: Installation, url: str) -> None:
    """Remember where the bus listens; `byok nats run` says it anew when the kernel chose."""
    write_private(installation.bus_url, f"{url}\n".encode())


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


def _make_seeds(installation: Installation) -> None:
    names = {"operator": KeyType.OPERATOR}
    names |= {f"account-{name}": KeyType.ACCOUNT for name in (*Account, _SYSTEM)}
    names |= {role.value: KeyType.ACCOUNT for role in Role}
    for name, kind in names.items():
        seed = seed_nkey(Ed25519PrivateKey.generate(), kind)
        write_private(installation.authority / f"{name}.seed", seed.encode())


def _make_certificates(installation: Installation, plan: InitPlan, now: int) -> None:
    ca = tls.make_ca("byok CA", now=at_utc(now))
    write_private(installation.ca, ca.certificate)
    write_private(installation.authority / "ca.key", ca.key)
    for name, folder in (("server", installation.nats / "tls"), ("api", installation.platform)):
        pair = tls.make_server_certificate(ca, f"byok {name}", plan.hosts, now=at_utc(now))
        write_private(folder / f"{name}.pem", pair.certificate)
        write_private(folder / f"{name}.key", pair.key)


def _make_evaluator_keys(installation: Installation) -> None:
    sealing, signing = X25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    write_private(installation.evaluator / "sealing.key", sealing.private_bytes_raw())
    write_private(installation.evaluator / "signing.key", signing.private_bytes_raw())
    public = EvaluatorKeys(
        sealing_key=sealing.public_key().public_bytes_raw(),
        signing_key=signing.public_key().public_bytes_raw(),
    )
    write_private(installation.evaluator_keys, public.model_dump_json(indent=2).encode())


def _make_accounts(installation: Installation, now: int) -> None:
    operator = installation.operator_key()
    system = claims.AccountPlan(_SYSTEM)
    for plan in (*account_plans(installation), system):
        subject = installation.account_id(plan.name)
        jwt = claims.mint_account(operator, subject, plan, issued_at=now)
        write_private(installation.nats / "accounts" / f"{subject}.jwt", jwt.encode())
    jwt = claims.mint_operator(
        operator, system_account=installation.account_id(_SYSTEM), issued_at=now
    )
    write_private(installation.nats / "operator.jwt", jwt.encode())


def _make_role_credentials(installation: Installation, now: int) -> None:
    for role in _CORE_ROLES:
        credentials = user_credentials(installation, role, role.value, now=now)
        write_private(installation.credentials(role), credentials.to_text().encode())
    key = Ed25519PrivateKey.generate()
    user = claims.UserPlan(
        "system", public_nkey(key, KeyType.USER), installation.account_id(_SYSTEM), now
    )
    jwt = claims.mint_system_user(installation.account_key(_SYSTEM), user)
    text = Credentials(jwt, seed_nkey(key, KeyType.USER)).to_text()
    write_private(installation.system_credentials, text.encode())


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


def read_evaluator_keys(installation: Installation) -> EvaluatorKeys:
    """Return the evaluator's public keys. Raises OSError or ValueError on a damaged file."""
    return EvaluatorKeys.model_validate_json(installation.evaluator_keys.read_text())
