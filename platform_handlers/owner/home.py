"""The owner's folder: the key that signs, the platform's address and token, the pinned servers.

owner.key     Ed25519, PKCS 8 PEM, 0600 and without a passphrase: guard the account it is in
owner.toml    the API's address and the owner's name there
ca.pem        the only CA trusted for that address
token         the API token, 0600
servers.toml  fingerprint of each server's identity key, as its console showed it
orders.toml   the highest number signed in an order, by such a fingerprint: no platform counts back
"""

import fcntl
import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.errors import Refused
from bus_schemas.orders import MAX_GAP
from bus_schemas.transport.private_files import PRIVATE, make_private_folder, write_private


@dataclass(frozen=True)
class Address:
    """Where the platform is, whom to trust there, and where the token lies."""

    url: str
    ca_file: Path
    token_file: Path
    keeps_ca: bool = False
    """Whether `ca_file` is the owner's own copy, which follows the platform's changes."""

    def token(self) -> str:
        """Return the token. Raises Refused(`no_token`)."""
        try:
            return self.token_file.read_text("ascii").strip()
        except (OSError, ValueError):
            detail = f"{self.token_file} cannot be read; run `byok owner connect` again"
            raise Refused("no_token", detail) from None


@dataclass(frozen=True)
class Home:
    """One owner's folder."""

    folder: Path

    @classmethod
    def default(cls) -> "Home":
        """Return the usual place (XDG Base Directory Specification)."""
        configuration = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
        return cls(Path(configuration).expanduser() / "byok")

    @property
    def key_file(self) -> Path:
        """The owner key."""
        return self.folder / "owner.key"

    def make_owner_key(self) -> Ed25519PrivateKey:
        """Make and keep a new owner key. Raises Refused(`owner_key_exists`): none is replaced."""
        if self.key_file.exists():
            detail = f"{self.key_file} is there already; move it away yourself if you mean it"
            raise Refused("owner_key_exists", detail)
        make_private_folder(self.folder)
        key = Ed25519PrivateKey.generate()
        write_private(
            self.key_file,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
        return key

    def owner_key(self) -> Ed25519PrivateKey:
        """Return the owner key.

        Raises Refused: `no_owner_key`, `owner_key_open` (others may read it), `owner_key_damaged`.
        """
        try:
            mode = self.key_file.stat().st_mode
            pem = self.key_file.read_bytes()
        except FileNotFoundError:
            detail = f"{self.key_file} is not there; run `byok owner keygen` first"
            raise Refused("no_owner_key", detail) from None
        if stat.S_IMODE(mode) & 0o077:
            detail = f"others may read {self.key_file}; run `chmod 600 {self.key_file}`"
            raise Refused("owner_key_open", detail)
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise Refused("owner_key_damaged", f"{self.key_file} holds no Ed25519 key")
        return key

    def connect(self, url: str, ca: bytes, token: str) -> Address:
        """Keep where the platform is, and the token."""
        make_private_folder(self.folder)
        write_private(self.folder / "ca.pem", ca)
        write_private(self.folder / "token", token.encode())
        write_private(self.folder / "owner.toml", _toml({"api": url}))
        return Address(url, self.folder / "ca.pem", self.folder / "token", keeps_ca=True)

    def address(self) -> Address:
        """Return what `connect` kept. Raises Refused(`not_connected`)."""
        url = _read_toml(self.folder / "owner.toml").get("api")
        if url is None:
            detail = f"{self.folder} knows no platform; run `byok owner connect` or give --api"
            raise Refused("not_connected", detail)
        return Address(url, self.folder / "ca.pem", self.folder / "token", keeps_ca=True)

    def pinned(self, server_id: str) -> str | None:
        """Return the fingerprint that *server_id* had when its owner last compared it."""
        return _read_toml(self.folder / "servers.toml").get(server_id)

    def pin(self, server_id: str, fingerprint: str | None) -> None:
        """Remember what the server's console showed; None forgets it."""
        make_private_folder(self.folder)
        pins = _read_toml(self.folder / "servers.toml")
        pins.pop(server_id, None)
        if fingerprint is not None:
            pins[server_id] = fingerprint
        write_private(self.folder / "servers.toml", _toml(pins))

    def number_order(self, fingerprint: str, told: int) -> int:
        """Return the number of the next order to the server with *fingerprint*; it is used up.

        Above *told*, the last one in the platform's words, and above all that were signed here: an
        order of today must not come before one that the platform kept back. Raises Refused
        (`number_too_high`: so far ahead that the server would take no order any more).
        """
        path = self.folder / "orders.toml"
        with self._alone():
            numbers = _read_toml(path)
            own = _number(numbers.get(fingerprint, "0"), path)
            if told > own + MAX_GAP:
                detail = (
                    f"the platform says that the server {fingerprint} is at order {told}, and this "
                    f"device knows of {own}; nothing was signed. If it has really had so many, "
                    f'write {fingerprint} = "{told}" into {path}'
                )
                raise Refused("number_too_high", detail)
            numbers[fingerprint] = str(max(own, told) + 1)
            write_private(path, _toml(numbers))
        return int(numbers[fingerprint])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one command at a time count: two must not sign the same number."""
        make_private_folder(self.folder)
        handle = os.open(
            self.folder / "orders.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, PRIVATE
        )
        with os.fdopen(handle) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield  # the kernel lets go when the file is closed, however that happens


def _number(text: str, path: Path) -> int:
    """Return a counted number. Raises Refused(`bad_settings`): never taken for 0."""
    if not (text.isascii() and text.isdigit()):
        raise Refused("bad_settings", f"{path} is damaged: {text!r} is no number; repair it")
    return int(text)


def _read_toml(path: Path) -> dict[str, str]:
    """Return a flat table of texts; empty if there is no file. Raises Refused(`bad_settings`)."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise Refused("bad_settings", f"{path} is damaged; repair or remove it") from None
    return {name: value for name, value in table.items() if isinstance(value, str)}


def _toml(table: dict[str, str]) -> bytes:
    """Write ids, fingerprints, numbers, https addresses: none holds a quote or a backslash."""
    return "".join(f'{name} = "{value}"\n' for name, value in sorted(table.items())).encode()
