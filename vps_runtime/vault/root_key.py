"""The root key in memory: on pages of its own, which no other process and no disk gets to see.

Best first: `memfd_secret`(2), pages that the kernel itself does not map; else pages that are
locked, so that they are never swapped, and left out of core files; else plain pages. Which it
became stands in `protection`, for the log and `byok-vps doctor`.

Nobody gets the key as `bytes`, which Python could not wipe: users take `view()` and hand it to
HKDF and AES as it is. ADR-21 says what else of a key stays behind in a process.
"""

import ctypes
import errno
import mmap
import os
import weakref
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from typing import Final, Self

from bus_schemas.errors import Refused

ROOT_KEY_LENGTH: Final = 32

_SYS_MEMFD_SECRET = 447  # the same number on every architecture: it came after they were united
_MADV_DONTFORK = 10
_MADV_DONTDUMP = 16
_PROT = mmap.PROT_READ | mmap.PROT_WRITE


class Protection(StrEnum):
    """How the pages are kept; the value is the plain word for people."""

    HIDDEN = "memory hidden from the kernel itself (memfd_secret)"
    LOCKED = "locked memory (never swapped, in no core file)"
    PLAIN = "plain memory (it may be swapped to disk)"


class SecretKey:
    """A 32-byte key on its own pages. `close`, or leaving a `with`, overwrites it with zeros."""

    def __init__(self, kinds: Sequence[Protection] = tuple(Protection)) -> None:
        """Hold 32 zeros, as the first of *kinds* that this machine grants."""
        self._pages, self.protection = _allocate(kinds)
        self._open = True

    @classmethod
    def of(cls, key: bytes | bytearray | memoryview) -> Self:
        """Hold a copy of *key*. Raises ValueError if it is not 32 bytes."""
        if len(key) != ROOT_KEY_LENGTH:
            raise ValueError(f"a key has {ROOT_KEY_LENGTH} bytes, got {len(key)}")
        secret = cls()
        secret.view()[:] = key
        return secret

    @classmethod
    def random(cls) -> Self:
        """Hold a fresh key, which the kernel writes straight to where it stays."""
        secret = cls()
        with open("/dev/urandom", "rb", buffering=0) as source:  # noqa: PTH123 (no buffer)
            if source.readinto(secret.view()) != ROOT_KEY_LENGTH:
                raise OSError(errno.EIO, "/dev/urandom gave too little")
        return secret

    def view(self) -> memoryview:
        """Return the key where it lies; do not copy it. Raises Refused(`vault_locked`)."""
        if not self._open:
            detail = "the root key was wiped from memory; the runtime has to unlock anew"
            raise Refused("vault_locked", detail)
        return memoryview(self._pages).cast("B")[:ROOT_KEY_LENGTH]

    @property
    def closed(self) -> bool:
        """Whether the key is gone."""
        return not self._open

    def close(self) -> None:
        """Overwrite the key. Views that are still held show zeros from now on."""
        self._open = False
        ctypes.memset(self._pages, 0, ctypes.sizeof(self._pages))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _allocate(kinds: Sequence[Protection]) -> "tuple[ctypes.Array[ctypes.c_ubyte], Protection]":
    for kind in kinds:
        try:
            address = _MAPPED[kind]()
        except OSError:
            continue
        libc = _libc()
        # A forked child has no use for the key, and its copy of locked pages would not be locked.
        libc.madvise(address, mmap.PAGESIZE, _MADV_DONTFORK)
        pages = (ctypes.c_ubyte * mmap.PAGESIZE).from_address(address)
        # Unmapped only when the last view is gone: until then there are zeros, not a crash.
        weakref.finalize(pages, _free, address).atexit = False
        return pages, kind
    raise OSError(errno.ENOMEM, "there is no memory for the root key")


def _hidden() -> int:
    libc = _libc()
    file = _checked(libc.syscall(_SYS_MEMFD_SECRET, os.O_CLOEXEC))
    try:
        os.ftruncate(file, mmap.PAGESIZE)
        return _map(mmap.MAP_SHARED, file)  # counts as locked memory: EAGAIN above the limit
    finally:
        os.close(file)  # with it gone, there is nothing to take over from outside


def _locked() -> int:
    libc, address = _libc(), _plain()
    try:
        _checked(libc.mlock(address, mmap.PAGESIZE))
    except OSError:
        libc.munmap(address, mmap.PAGESIZE)
        raise
    return address


def _plain() -> int:
    address = _map(mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
    _libc().madvise(address, mmap.PAGESIZE, _MADV_DONTDUMP)
    return address


_MAPPED = {
    Protection.HIDDEN: _hidden,
    Protection.LOCKED: _locked,
    Protection.PLAIN: _plain,
}


def _map(flags: int, file: int) -> int:
    address = _libc().mmap(None, mmap.PAGESIZE, _PROT, flags, file, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(address)


def _free(address: int) -> None:
    libc = _libc()
    ctypes.memset(address, 0, mmap.PAGESIZE)
    libc.munmap(address, mmap.PAGESIZE)


def _checked(result: int) -> int:
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int),
        *(ctypes.c_int, ctypes.c_int, ctypes.c_long),
    )
    libc.syscall.restype = ctypes.c_long
    for name in ("munmap", "mlock"):
        getattr(libc, name).argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc
