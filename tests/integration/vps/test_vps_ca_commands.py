"""`byok ca` and `byok doctor` as operators run them, with everybody at work meanwhile."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bus_schemas.authorities import read_authorities
from bus_schemas.errors import Refused
from bus_schemas.transport.presented import presented_certificate
from platform_handlers.authority.installation import Installation, write_bus_url
from platform_handlers.authority.rotation import read_certificate
from platform_handlers.cli import main
from platform_handlers.owner.home import Address, Home
from platform_handlers.owner.platform_api import PlatformApi
from platform_handlers.process.app import Listen, run_platform
from tests.integration.vps.conftest import Fleet
from vps_runtime.connection.authorities import take_authorities
from vps_runtime.connection.link import by_the_door
from vps_runtime.connection.tokens import TokenStore
from vps_runtime.state import StateFolder

SERVER = "acme-1"


@dataclass
class Desk:
    """An operator's and an owner's machine, and a server of that owner."""

    installation: Installation
    owner: Address
    state: StateFolder

    async def byok(self, *words: str) -> tuple[int, str]:
        """Run `byok *words*`; return its exit code and all that it said."""
        said = io.StringIO()
        state = ("--state", str(self.installation.root))
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            pytest.raises(SystemExit) as ended,
        ):
            await asyncio.to_thread(main, [*state, *words])
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.getvalue()

    async def owners_cas(self, address: Address | None = None) -> int:
        """Have the owner ask the platform; return how many CAs are trusted afterwards."""
        address = address or self.owner
        with PlatformApi(address) as api:
            await asyncio.to_thread(api.servers)
        return len(read_authorities(address.ca_file.read_bytes()))

    async def renew(self) -> None:
        """Have the server renew its tokens and take the CAs that come along."""
        settings = self.state.read_settings()
        renewal = await by_the_door(self.state.target(), settings.server_id, TokenStore(self.state))
        take_authorities(self.state.ca, renewal.authorities)


@pytest.fixture
async def desk(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    """The platform with its API, an owner who is connected, and a server."""
    monkeypatch.setattr("bus_schemas.transport.logs.log_to_stderr", lambda: None)
    installation, target = fleet.platform.installation, fleet.platform.server.target
    write_bus_url(installation, target.url)
    token = await fleet.registry.add_owner("globex")
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(
        run_platform(installation, target, Listen(port=0), url.set_result)
    )
    try:
        api = await asyncio.wait_for(url, 20)
        installation.api_url.write_text(api)
        owner = Home(tmp_path / "owner").connect(api, installation.ca.read_bytes(), token)
        yield Desk(installation, owner, await fleet.enrol(SERVER))
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_the_ca_is_changed_in_three_steps(desk: Desk) -> None:
    """Each step says what it verified; an owner's and a server's file follow by themselves."""
    strict = desk.owner.ca_file.with_name("strict.pem")
    strict.write_bytes(desk.owner.ca_file.read_bytes())
    code, said = await desk.byok("ca", "show")
    assert (code, said.count("in use"), "next" in said) == (0, 1, False)
    assert await desk.owners_cas() == 1

    assert (await desk.byok("ca", "add"))[0] == 0
    assert (await desk.byok("ca", "add"))[0] == 77
    assert await desk.owners_cas() == 2
    code, said = await desk.byok("ca", "use")
    assert (code, "acme-1 would be cut off" in said) == (77, True)
    await desk.renew()
    await desk.renew()  # with the second one it tells that it has the new CA
    code, said = await desk.byok("ca", "show")
    assert said.endswith("none\nnext: byok ca use\n")

    code, said = await desk.byok("ca", "use")
    assert (code, said.count("shows it.")) == (0, 2), said
    await desk.renew()
    assert await desk.owners_cas() == 2
    stale = Address(desk.owner.url, strict, desk.owner.token_file)
    with pytest.raises(Refused, match="run `byok owner connect` with its new"):
        await desk.owners_cas(stale)
    code, said = await desk.byok("ca", "show")
    assert said.endswith("next: byok ca retire\n")
    code, said = await desk.byok("doctor")
    assert "the CA is being changed; the old one is still trusted until `byok ca retire`" in said

    code, said = await desk.byok("ca", "retire")
    assert (code, "is the only CA" in said) == (0, True)
    assert await desk.owners_cas() == 1
    await desk.renew()
    assert desk.state.ca.read_bytes() == desk.installation.ca.read_bytes()
    code, said = await desk.byok("doctor", "--json")
    [line] = [line for line in said.splitlines() if line.startswith("{")]
    report = json.loads(line)
    assert (code, report["well"]) == (0, True), said
    assert {f["check"] for f in report["findings"]} >= {"ca", "certificate", "streams", "pins"}


async def test_certificates_are_renewed_and_a_ca_is_not_retired_too_early(desk: Desk) -> None:
    """The bus and the API show the new pair without a restart; who does not, is named."""
    before = await presented_certificate(desk.owner.url)
    code, said = await desk.byok("ca", "renew")
    assert (code, said.count("shows it.")) == (0, 2), said
    assert await presented_certificate(desk.owner.url) != before
    code, said = await desk.byok("ca", "use")
    assert (code, said.startswith("There is no new CA beside "), "Next" in said) == (0, True, False)

    assert (await desk.byok("ca", "add"))[0] == 0
    pair = desk.installation.api_pair
    old = pair.key.read_bytes(), pair.certificate.read_bytes()
    assert (await desk.byok("ca", "use", "--cut-off"))[0] == 0
    pair.key.write_bytes(old[0])
    pair.certificate.write_bytes(old[1])
    async with asyncio.timeout(20):
        while True:
            if await presented_certificate(desk.owner.url) == read_certificate(pair):
                break
            await asyncio.sleep(0.1)
    code, said = await desk.byok("ca", "retire")
    assert (code, "the API" in said, "old_certificate_shown" in said) == (77, True, True)
