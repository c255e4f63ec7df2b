"""Pinned owner keys: whose sealings and orders this server obeys.

A fingerprint gets here only from this machine's console, or by the order of a key that is pinned
already. A key that the platform offers, however well it signs, is refused until then; else the
platform could pin a key of its own.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from bus_schemas.errors import Refused
from bus_schemas.event import Contract
from bus_schemas.fields import KeyFingerprint
from bus_schemas.transport.private_files import give_to_folders_owner, write_private

MAX_PINS = 64


class Pins(Contract, extra="forbid"):
    """The pinned fingerprints, sorted, each once."""

    v: Literal[1] = 1
    pinned: Annotated[tuple[KeyFingerprint, ...], Field(max_length=MAX_PINS)] = ()

    def with_key(self, fingerprint: str) -> "Pins":
        """Return these pins and *fingerprint*. Raises Refused(`too_many_pins`)."""
        pinned = tuple(sorted({*self.pinned, fingerprint}))
        if len(pinned) > MAX_PINS:
            raise Refused("too_many_pins", f"a server obeys at most {MAX_PINS} keys; remove one")
        return Pins(pinned=pinned)

    def without_key(self, fingerprint: str) -> "Pins":
        """Return these pins without *fingerprint*. Raises Refused(`not_pinned`)."""
        if fingerprint not in self.pinned:
            raise Refused("not_pinned", f"{fingerprint} is not pinned here; see `trust list`")
        return Pins(pinned=tuple(pin for pin in self.pinned if pin != fingerprint))


def read_pins(path: Path) -> Pins:
    """Return the pins in *path*. Raises Refused(`pins_damaged`): then no owner is obeyed."""
    try:
        return Pins.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Pins()
    except OSError as error:  # root's since a restore, a failing disk
        detail = f"{path} cannot be read ({error.strerror}); give it back to byok-vps's own user"
        raise Refused("pins_damaged", detail) from None
    except ValidationError:
        detail = f"{path} is damaged; remove it and run `byok-vps trust FINGERPRINT` again"
        raise Refused("pins_damaged", detail) from None


def write_pins(path: Path, pins: Pins) -> None:
    """Replace the pins, whole or not at all. Raises OSError."""
    write_private(path, pins.model_dump_json().encode())


def change_pins(path: Path, change: Callable[[Pins], Pins]) -> Pins:
    """Replace the pins by what *change* makes of them, and return them.

    Console and runtime are two processes: one at a time reads, decides and writes. Raises Refused
    (`pins_damaged`, and what *change* raises), OSError.
    """
    with _alone(path):
        before = read_pins(path)
        after = change(before)
        if after != before:
            write_pins(path, after)
        return after


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle) as file:
        give_to_folders_owner(handle, path.parent)
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # the kernel lets go when the file is closed, however that happens
