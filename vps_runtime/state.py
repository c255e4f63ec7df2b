"""The server's state folder: what lies where, and reading it back.

In the clear here, and nowhere else: the nkey seed, the identity seed, the tokens, the share with
the wrapped root key, the pins, the public keys of evaluator and platform, the settings. The rest
is in the vault.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from bus_schemas.errors import ByokError
from bus_schemas.event import Contract
from bus_schemas.fields import OwnerId, ServerId
from bus_schemas.keys import server_fingerprint
from bus_schemas.requests import EvaluatorKeys
from bus_schemas.transport.private_files import give_to_folders_owner
from bus_schemas.transport.target import BusTarget

DEFAULT_FOLDER = Path("/var/lib/byok-vps")

_ORDERS_KEY_LENGTH = 32

_C = TypeVar("_C", bound=Contract)


class NotEnrolled(ByokError):
    """The state folder is missing, incomplete or damaged (exit code 78)."""


class AlreadyRunning(ByokError):
    """Another runtime holds the state folder (exit code 75)."""


class Settings(Contract, extra="forbid"):
    """What enrolment fixed for good; written last, so that its presence means "enrolled"."""

    v: Literal[1] = 1
    server_id: ServerId
    owner_id: OwnerId
    url: Annotated[str, Field(pattern=r"^tls://[!-~]{1,300}$")]
    """The bus: `tls://host:port`."""


@dataclass(frozen=True)
class Identity:
    """Who this server is: its id and the key that signs for it."""

    server_id: str
    key: Ed25519PrivateKey = field(repr=False)

    @property
    def public_key(self) -> bytes:
        """The 32-byte Ed25519 public key."""
        return self.key.public_key().public_bytes_raw()

    @property
    def fingerprint(self) -> str:
        """The 20 characters that the owner compares before sealing."""
        return server_fingerprint(self.server_id, self.public_key)


@dataclass(frozen=True)
class StateFolder:
    """The folder of one server (0700, files 0600); all paths hang off it."""

    root: Path

    @property
    def settings(self) -> Path:
        """Ids and the bus's address."""
        return self.root / "settings.json"

    @property
    def ca(self) -> Path:
        """The only CA this server trusts."""
        return self.root / "ca.pem"

    @property
    def evaluator(self) -> Path:
        """The evaluator's public keys, pinned at enrolment."""
        return self.root / "evaluator.json"

    @property
    def orders_key(self) -> Path:
        """The platform's order key (public, 32 raw bytes), pinned at enrolment."""
        return self.root / "orders.pub"

    @property
    def nkey_seed(self) -> Path:
        """The key the server signs in to the bus with."""
        return self.root / "nkey.seed"

    @property
    def identity_seed(self) -> Path:
        """The key that signs sealing keys and evaluator requests, 32 raw bytes."""
        return self.root / "identity.seed"

    @property
    def tokens(self) -> Path:
        """The working and the door token."""
        return self.root / "tokens.json"

    @property
    def pins(self) -> Path:
        """Fingerprints of the owner keys this server obeys."""
        return self.root / "pins.json"

    @property
    def root_file(self) -> Path:
        """The share and the wrapped root key."""
        return self.root / "root.json"

    @property
    def refusal(self) -> Path:
        """Why the evaluator refused the last start, and what lets this disk in."""
        return self.root / "refusal.json"

    @property
    def turned_away(self) -> Path:
        """That the platform lets this server in no more, and since when."""
        return self.root / "turned-away.json"

    @property
    def recovery(self) -> Path:
        """The root key wrapped for a recovery code, if its owner wanted one."""
        return self.root / "recovery.json"

    @property
    def vault(self) -> Path:
        """The encrypted records."""
        return self.root / "vault"

    @property
    def outbox(self) -> Path:
        """Facts on their way out, and which were told."""
        return self.root / "outbox.db"

    @property
    def agent_token(self) -> Path:
        """What the server's agent shows the gateway as its API key."""
        return self.root / "agent.token"

    @property
    def gateway_url(self) -> Path:
        """Where the gateway listens: `http://127.0.0.1:port`."""
        return self.root / "gateway.url"

    @property
    def gateway_socket(self) -> Path:
        """The gateway's Unix socket, unless it is told to be elsewhere."""
        return self.root / "gateway.sock"

    @property
    def resolver_socket(self) -> Path:
        """Where an agent that holds its keys itself asks for them, unless told elsewhere."""
        return self.root / "resolver.sock"

    @property
    def lock_note(self) -> Path:
        """There while an order locks this server and the disk is too full for the outbox."""
        return self.root / "locked"

    @property
    def lock_file(self) -> Path:
        """Held by the runtime that runs on this folder; its process id."""
        return self.root / "lock"

    @property
    def enrolled(self) -> bool:
        """Whether `join` has finished here."""
        return self.settings.exists()

    def read_settings(self) -> Settings:
        """Return the settings. Raises NotEnrolled."""
        return self._model(self.settings, Settings)

    def read_evaluator(self) -> EvaluatorKeys:
        """Return the pinned evaluator keys. Raises NotEnrolled."""
        return self._model(self.evaluator, EvaluatorKeys)

    def read_orders_key(self) -> bytes | None:
        """Return the platform's order key; None on a server that joined before there was one.

        Raises NotEnrolled: a damaged key is not quietly nobody's.
        """
        if not self.orders_key.exists():
            return None
        key = self._bytes(self.orders_key)
        if len(key) != _ORDERS_KEY_LENGTH:
            raise self._damaged(self.orders_key)
        return key

    def read_identity(self) -> Identity:
        """Return id and identity key. Raises NotEnrolled."""
        seed = self._bytes(self.identity_seed)
        try:
            return Identity(
                self.read_settings().server_id, Ed25519PrivateKey.from_private_bytes(seed)
            )
        except ValueError:
            raise self._damaged(self.identity_seed) from None

    def read_nkey_seed(self) -> str:
        """Return the nkey's seed. Raises NotEnrolled."""
        return self._bytes(self.nkey_seed).decode("ascii", "replace").strip()

    def target(self) -> BusTarget:
        """Return where the bus is and whom to trust there. Raises NotEnrolled."""
        return BusTarget(self.read_settings().url, self.ca)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder alone: two runtimes on it would unlock it away from each other.

        Raises AlreadyRunning. The kernel lets go when the process ends, however it ends.
        """
        handle = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle) as file:
            give_to_folders_owner(handle, self.root)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                message = f"another byok-vps runs on {self.root}; stop it first"
                raise AlreadyRunning(message) from None
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())  # for `byok-vps doctor`
            for half_written in self.root.glob(".*.tmp"):  # what a crash left behind
                half_written.unlink(missing_ok=True)
            yield

    def _model(self, path: Path, model: type[_C]) -> _C:
        raw = self._bytes(path)
        try:
            return model.model_validate_json(raw)
        except ValidationError:
            raise self._damaged(path) from None

    def _bytes(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            if self.enrolled:
                raise self._damaged(path) from None
            message = f"{self.root} holds no enrolled server; run `byok-vps join` first"
            raise NotEnrolled(message) from None
        except OSError as error:
            raise NotEnrolled(f"{path} cannot be read: {error.strerror}") from None

    def _damaged(self, path: Path) -> NotEnrolled:
        return NotEnrolled(f"{path} is missing or damaged; restore it or enrol the server anew")
