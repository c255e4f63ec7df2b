"""The CA is changed under a running bus: who gets in at each step, and how servers follow."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bus_schemas.authorities import (
    authority_id,
    read_authorities,
    sign_authorities,
    write_authorities,
)
from bus_schemas.errors import Refused
from bus_schemas.fields import at_utc
from bus_schemas.flows import Role
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import parse_credentials
from bus_schemas.transport.target import BusDenied, BusTarget
from platform_handlers.authority import rotation
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.tls import make_ca
from platform_handlers.ca.shown import show_new_certificates
from platform_handlers.provisioning.authorities import trusted_by_servers
from tests.conftest import Platform
from tests.integration.vps.conftest import Fleet
from vps_runtime.connection.link import Link, by_the_door
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.state import StateFolder

SERVER = "acme-1"


def now() -> float:
    """Return the time of day, in Unix seconds."""
    return time.time()


async def lets_in(platform: Platform, ca_file: Path) -> bool:
    """Say whether a client that trusts *ca_file* gets in. Raises anything but a bad certificate."""
    credentials = parse_credentials(platform.installation.credentials(Role.OPS).read_text())
    target = BusTarget(platform.server.target.url, ca_file)
    try:
        await (await Bus(target, Role.OPS.value, lambda: credentials).open()).close()
    except BusDenied as denied:
        if not isinstance(denied.__cause__, ssl.SSLCertVerificationError):
            raise
        return False
    return True


async def test_who_trusts_both_cas_gets_in_at_every_step(
    platform: Platform, tmp_path: Path
) -> None:
    """Old only: until the new one is used. New only: from then on. Both: always, and unbroken."""
    installation = platform.installation
    files = {name: tmp_path / f"{name}.pem" for name in ("old", "both", "new")}
    files["old"].write_bytes(installation.ca.read_bytes())
    lasting = await platform.bus(Role.OPS)
    broken: list[None] = []
    lasting.on_ready(lambda: broken.append(None))

    async def all_in() -> dict[str, bool]:
        return {name: await lets_in(platform, path) for name, path in files.items()}

    added = rotation.add(installation, now=at_utc(now()))
    files["both"].write_bytes(installation.ca.read_bytes())
    files["new"].write_bytes(write_authorities([added.newest]))
    assert await all_in() == {"old": True, "both": True, "new": False}

    used = rotation.use(installation, now=at_utc(now()))
    assert used.in_use == used.newest == added.newest
    [shown] = await show_new_certificates(installation, platform.server.target)
    assert (shown.name, shown.current) == ("nats-server", True)
    assert await all_in() == {"old": False, "both": True, "new": True}
    assert lasting.connected
    assert broken == []

    retired = rotation.retire(installation)
    assert retired.certificates == (added.newest,)
    assert installation.ca.read_bytes() == files["new"].read_bytes()
    assert await all_in() == {"old": False, "both": True, "new": True}


async def test_a_connection_made_before_the_change_outlives_a_restart_after_it(
    platform: Platform,
) -> None:
    """A handler that runs for months must not hold on to the CAs of its start."""
    installation = platform.installation
    lasting = await platform.bus(Role.OPS)
    again = asyncio.Event()
    rotation.add(installation, now=at_utc(now()))
    rotation.use(installation, now=at_utc(now()))
    await show_new_certificates(installation, platform.server.target)
    lasting.on_ready(again.set)
    await lasting.renew()  # signs in anew, as after every token
    await asyncio.wait_for(again.wait(), 20)


@contextlib.asynccontextmanager
async def linked(state: StateFolder) -> AsyncIterator[Link]:
    """Yield an open link of *state*."""
    link = Link(state.target(), SERVER, TokenStore(state))
    await link.open()
    try:
        await link.bus.client()
        yield link
    finally:
        await link.close()


async def test_a_server_follows_by_itself(fleet: Fleet) -> None:
    """With its renewals, over one link: no person, and the platform knows when it is ready."""
    installation = fleet.platform.installation
    state = await fleet.enrol(SERVER)
    old = authority_id(rotation.read(installation).newest)
    async with linked(state) as link:
        newest = authority_id(rotation.add(installation, now=at_utc(now())).newest)
        assert await renewed(link, state, installation) == ({old, newest}, {old})
        assert await renewed(link, state, installation) == ({old, newest}, {old, newest})
        rotation.use(installation, now=at_utc(now()))
        await show_new_certificates(installation, fleet.platform.server.target)
        assert await renewed(link, state, installation) == ({old, newest}, {old, newest})
        rotation.retire(installation)
        assert await renewed(link, state, installation) == ({newest}, {old, newest})
        assert await renewed(link, state, installation) == ({newest}, {newest})


async def renewed(
    link: Link, state: StateFolder, installation: Installation
) -> tuple[set[str], set[str]]:
    """Renew once; return what the server trusts then, and what the platform knows of it."""
    again = asyncio.Event()
    link.bus.on_ready(again.set)
    await link._renew()  # noqa: SLF001 (what `keep` does when it is time)
    await asyncio.wait_for(again.wait(), 20)
    trusted = {authority_id(ca) for ca in read_authorities(state.ca.read_bytes())}
    return trusted, set(trusted_by_servers(installation)[SERVER] or ())


async def test_a_strangers_list_is_refused_and_the_tokens_are_taken(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody on the platform's bus hands out a CA of his own: no server ever trusts it."""
    installation = fleet.platform.installation
    state = await fleet.enrol(SERVER)
    before, written = state.ca.read_bytes(), state.tokens.stat().st_mtime_ns
    own = read_authorities(before)
    made = make_ca("byok CA", now=at_utc(now()) + timedelta(seconds=9))
    key = serialization.load_pem_private_key(made.key, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    stranger = x509.load_pem_x509_certificate(made.certificate)
    alone = sign_authorities([stranger], key)
    borrowed = alone.model_copy(update={"signer": authority_id(own[0])})
    mixed = sign_authorities([*own, stranger], key)
    async with linked(state) as link:
        for offered in (alone, borrowed, mixed):
            installation.signed_authorities.write_text(offered.model_dump_json())
            await renewed(link, state, installation)
            assert state.ca.read_bytes() == before
    assert state.tokens.stat().st_mtime_ns > written
    assert capsys.readouterr().out.count("authorities_refused") == 3


async def test_a_damaged_list_keeps_nobody_from_his_tokens(fleet: Fleet) -> None:
    """The list is missing then, on both ends; `doctor` says so on the platform."""
    installation = fleet.platform.installation
    state = await fleet.enrol(SERVER)
    installation.signed_authorities.write_text("{")
    renewal = await by_the_door(state.target(), SERVER, TokenStore(state))
    assert renewal.authorities is None


async def test_each_step_wants_the_one_before(platform: Platform) -> None:
    """Repeated, skipped or broken off, no step leaves the installation without a CA's key."""
    installation, at = platform.installation, at_utc(now())
    with pytest.raises(Refused, match="nothing_to_retire"):
        rotation.retire(installation)
    first = rotation.renew(installation, now=at)
    assert first.in_use == first.newest
    added = rotation.add(installation, now=at)
    with pytest.raises(Refused, match="rotation_under_way"):
        rotation.add(installation, now=at)
    with pytest.raises(Refused, match="still_in_use"):
        rotation.retire(installation)
    assert rotation.renew(installation, now=at).in_use == first.newest
    with pytest.raises(Refused, match="ca_expired"):
        rotation.use(installation, now=added.newest.not_valid_after_utc)
    rotation.use(installation, now=at)
    # A power cut in the middle of `retire`: the list is out, the key not yet in its place.
    keys = (installation.authority / "ca.key", installation.authority / "ca-next.key")
    old, new = (path.read_bytes() for path in keys)
    rotation.retire(installation)
    assert (keys[0].read_bytes(), keys[1].exists()) == (new, False)
    keys[0].write_bytes(old)
    keys[1].write_bytes(new)
    with pytest.raises(Refused, match="nothing_to_retire"):
        rotation.retire(installation)
    assert (keys[0].read_bytes(), keys[1].exists()) == (new, False)
    rotation.add(installation, now=at)
    keys[0].unlink()
    keys[1].unlink()
    with pytest.raises(Refused, match="ca_key_lost"):
        rotation.use(installation, now=at)
    installation.ca.write_text("x")
    with pytest.raises(Refused, match="ca_damaged"):
        rotation.read(installation)
