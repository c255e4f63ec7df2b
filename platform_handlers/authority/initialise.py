"""`byok init DIR`: makes every key, account, certificate and file of one installation."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bus_schemas.errors import Refused
from bus_schemas.fields import at_utc
from bus_schemas.flows import Account, Role
from bus_schemas.nkeys import KeyType, public_nkey, seed_nkey
from bus_schemas.requests import EvaluatorKeys
from bus_schemas.transport.credentials import Credentials
from bus_schemas.transport.private_files import PUBLIC, make_private_folder, write_private
from platform_handlers.authority import claims, rotation, tls
from platform_handlers.authority.accounts import account_plans, user_credentials
from platform_handlers.authority.installation import Installation, write_bus_url
from platform_handlers.authority.server_conf import (
    BusAddress,
    jetstream_key_configuration,
    server_configuration,
)

CORE_ROLES = (
    Role.SETUP,
    Role.ISSUER,
    Role.INTAKE,
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


def _make_seeds(installation: Installation) -> None:
    names = {"operator": KeyType.OPERATOR}
    names |= {f"account-{name}": KeyType.ACCOUNT for name in (*Account, _SYSTEM)}
    names |= {role.value: KeyType.ACCOUNT for role in Role}
    for name, kind in names.items():
        seed = seed_nkey(Ed25519PrivateKey.generate(), kind)
        write_private(installation.authority / f"{name}.seed", seed.encode())
    write_private(installation.order_seed, secrets.token_bytes(32))


def _make_certificates(installation: Installation, plan: InitPlan, now: int) -> None:
    ca = tls.make_ca("byok CA", now=at_utc(now))
    write_private(installation.ca, ca.certificate, PUBLIC)
    write_private(installation.authority / "ca.key", ca.key)
    for name, folder in (("server", installation.nats / "tls"), ("api", installation.platform)):
        pair = tls.make_server_certificate(ca, f"byok {name}", plan.hosts, now=at_utc(now))
        write_private(folder / f"{name}.pem", pair.certificate)
        write_private(folder / f"{name}.key", pair.key)
    rotation.publish(installation)


def _make_evaluator_keys(installation: Installation) -> None:
    sealing, signing = X25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    write_private(installation.evaluator / "sealing.key", sealing.private_bytes_raw())
    write_private(installation.evaluator / "signing.key", signing.private_bytes_raw())
    public = EvaluatorKeys(
        sealing_key=sealing.public_key().public_bytes_raw(),
        signing_key=signing.public_key().public_bytes_raw(),
    )
    text = public.model_dump_json(indent=2)
    write_private(installation.evaluator_keys, text.encode(), PUBLIC)


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
    for role in CORE_ROLES:
        credentials = user_credentials(installation, role, role.value, now=now)
        write_private(installation.credentials(role), credentials.to_text().encode())
    key = Ed25519PrivateKey.generate()
    user = claims.UserPlan(
        "system", public_nkey(key, KeyType.USER), installation.account_id(_SYSTEM), now
    )
    jwt = claims.mint_system_user(installation.account_key(_SYSTEM), user)
    text = Credentials(jwt, seed_nkey(key, KeyType.USER)).to_text()
    write_private(installation.system_credentials, text.encode())
