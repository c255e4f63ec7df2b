"""The folder of one platform installation: what lies where, and reading it back.

DIR/nats/        nats-server.conf, its TLS pair, account JWTs, JetStream key, the store
DIR/authority/   operator and signing seeds, the CA's key (the issuer's eyes only)
DIR/roles/       one credentials file per platform role
DIR/evaluator/   the evaluator's keys and state: a process and uid of its own
DIR/platform/    the handlers' databases, the API's TLS pair
DIR/public/      ca.pem, authorities.json, evaluator.json and bus.url, which anybody may have
"""

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.authorities import SignedAuthorities
from bus_schemas.errors import Refused
from bus_schemas.flows import Role
from bus_schemas.nkeys import KeyType, key_from_seed, public_nkey
from bus_schemas.requests import EvaluatorKeys
from bus_schemas.transport.private_files import PUBLIC, write_private


@dataclass(frozen=True)
class PairFiles:
    """Where a certificate and its private key lie, both PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Installation:
    """The folder of one platform installation; all paths hang off it."""

    root: Path

    @property
    def nats(self) -> Path:
        """nats-server's configuration, accounts and store."""
        return self.root / "nats"

    @property
    def nats_refusal(self) -> Path:
        """What `byok nats run` was last refused with; missing after a good start."""
        return self.nats / "refused"

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
        """The CA certificates that servers, owners and readers trust: one, two while it changes."""
        return self.root / "public" / "ca.pem"

    @property
    def signed_authorities(self) -> Path:
        """The same CAs as a signed list, which servers and owners learn of a new one from."""
        return self.root / "public" / "authorities.json"

    @property
    def bus_pair(self) -> "PairFiles":
        """The certificate that nats-server shows."""
        return PairFiles(self.nats / "tls" / "server.pem", self.nats / "tls" / "server.key")

    @property
    def api_pair(self) -> "PairFiles":
        """The certificate that the API shows."""
        return PairFiles(self.platform / "api.pem", self.platform / "api.key")

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
        return self._role_file("system.creds")

    def credentials(self, role: Role) -> Path:
        """Return the credentials file of a platform role."""
        return self._role_file(f"{role.value}.creds")

    def _role_file(self, name: str) -> Path:
        """Return systemd's own copy if this unit was given one (LoadCredential=), else ours."""
        handed_over = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / name
        return handed_over if handed_over.is_file() else self.root / "roles" / name

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

    @property
    def order_seed(self) -> Path:
        """The platform's order key (Ed25519, 32 raw bytes): it may stop and lock servers."""
        return self.authority / "order.seed"

    def order_key(self) -> Ed25519PrivateKey:
        """Return the platform's order key. Raises Refused(`no_order_key`)."""
        try:
            return Ed25519PrivateKey.from_private_bytes(self.order_seed.read_bytes())
        except FileNotFoundError:
            detail = f"{self.order_seed} is not there: this installation is older than orders"
            raise Refused("no_order_key", detail) from None

    def orders_public_key(self) -> bytes | None:
        """Return its public half, which servers pin at enrolment; None if there is no key."""
        if not self.order_seed.exists():
            return None
        return self.order_key().public_key().public_bytes_raw()

    def require(self) -> "Installation":
        """Return self. Raises Refused(`not_initialised`) when `byok init` has not been run."""
        try:
            initialised = (self.nats / "nats-server.conf").exists()
        except PermissionError:  # it is there, and of another uid than ours
            initialised = True
        if not initialised:
            detail = f"{self.root} holds no installation; run `byok init {self.root}` first"
            raise Refused("not_initialised", detail)
        return self


def write_bus_url(installation: Installation, url: str) -> None:
    """Remember where the bus listens; `byok nats run` says it anew when the kernel chose."""
    write_private(installation.bus_url, f"{url}\n".encode(), PUBLIC)


def read_signed_authorities(installation: Installation) -> SignedAuthorities:
    """Return the published list of CAs. Raises OSError or ValueError on a damaged file."""
    return SignedAuthorities.model_validate_json(installation.signed_authorities.read_text())


def read_evaluator_keys(installation: Installation) -> EvaluatorKeys:
    """Return the evaluator's public keys. Raises OSError or ValueError on a damaged file."""
    return EvaluatorKeys.model_validate_json(installation.evaluator_keys.read_text())
