"""A renewal that breaks off between a key and its certificate, and who owns what it leaves."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.applications import Starlette

from bus_schemas.errors import Refused
from bus_schemas.finding import Grade
from bus_schemas.transport.private_files import write_private
from platform_handlers.authority import rotation
from platform_handlers.authority.installation import Installation, PairFiles
from platform_handlers.authority.nats_process import start_nats_server
from platform_handlers.dashboard.app import serve
from platform_handlers.doctor.files import authority

NOBODY = 65534


def now() -> datetime:
    """Return the time of day."""
    return datetime.now(UTC)


def break_off(installation: Installation, pair: PairFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew, and die between the key and the certificate of *pair*."""

    def die(path: Path, content: bytes, mode: int = 0o600) -> None:
        if path == pair.certificate:
            raise KeyboardInterrupt
        write_private(path, content, mode)

    with monkeypatch.context() as patched:
        patched.setattr(rotation, "write_private", die)
        with pytest.raises(KeyboardInterrupt):
            rotation.renew(installation, now=now())


async def test_a_renewal_that_broke_off_says_how_to_mend_it(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starting and the doctor name the command; nobody has to read nats-server's log for it."""
    break_off(installation, installation.bus_pair, monkeypatch)
    with pytest.raises(Refused, match=r"pair_broken: .*server\.key.*run `byok ca renew`"):
        await start_nats_server(installation, log=tmp_path / "nats.log")
    [found] = [f for f in authority(installation, now()) if f.grade is Grade.BAD]
    assert "server.key" in found.detail
    assert "run `byok ca renew`" in found.detail
    rotation.renew(installation, now=now())
    (await start_nats_server(installation, log=tmp_path / "nats.log")).stop()
    assert all(finding.grade is Grade.OK for finding in authority(installation, now()))


async def test_the_api_says_the_same_of_its_own_pair(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TLS error without a file's name helps nobody."""
    break_off(installation, installation.api_pair, monkeypatch)
    with pytest.raises(Refused, match=r"pair_broken: .*api\.key.*run `byok ca renew`"):
        async with serve(Starlette(), installation):
            pass


def test_the_lock_belongs_to_whom_the_folder_does(installation: Installation) -> None:
    """Root may begin what the platform's own user goes on with."""
    if os.getuid() == 0:
        for path in (installation.root, *installation.root.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    rotation.add(installation, now=now())
    owner = installation.authority.stat().st_uid
    assert (installation.authority / "ca.lock").stat().st_uid == owner


def test_an_installation_from_before_orders_is_told_what_it_lacks(
    installation: Installation,
) -> None:
    """Without the platform's order key a revocation locks nobody, and init is long ago."""
    assert not [f for f in authority(installation, now()) if f.check == "orders"]
    installation.order_seed.unlink()
    [found] = [f for f in authority(installation, now()) if f.check == "orders"]
    assert (found.grade, "order.seed" in found.detail) == (Grade.WARN, True)
    installation.order_seed.write_bytes(os.urandom(32))  # as the finding says
    assert installation.orders_public_key() is not None
