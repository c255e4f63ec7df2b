"""The demo's made-up provider answers as any of the 23 would, and has no use for a real key."""

import httpx
import pytest

from bus_schemas.events.health import Validity
from bus_schemas.providers import Provider, load_providers
from platform_handlers.demo.provider import made_up_provider
from vps_runtime.verification.rules import validity

HERE = "http://127.0.0.1:9"


def client() -> httpx.AsyncClient:
    """Return a client of the provider, without a socket."""
    transport = httpx.ASGITransport(app=made_up_provider())
    return httpx.AsyncClient(transport=transport, base_url=HERE)


@pytest.mark.parametrize("provider", load_providers().values(), ids=list(load_providers()))
async def test_it_passes_each_providers_own_test_at_its_own_address(provider: Provider) -> None:
    """Whatever key is brought to the demo is tested here or, where that cannot be, nowhere."""
    url = provider.verify_url(HERE)
    if url is None:
        return  # the demo orders such a key into use, untested
    assert url.startswith(f"{HERE}/")
    async with client() as here:
        answer = await here.request(
            provider.verify.method, url, headers={"authorization": "Bearer made-up"}
        )
    found = validity(provider.verify, answer.status_code, answer.content)
    assert found is Validity.VALID


async def test_without_a_key_it_refuses() -> None:
    """Else a call of the demo's would prove nothing of the key."""
    async with client() as here:
        assert (await here.get("/v1/models")).status_code == 401
        assert (await here.post("/v1/messages", json={})).status_code == 401
        keyed = await here.post("/v1/messages", json={}, headers={"x-api-key": "made-up"})
    assert (keyed.status_code, keyed.json()["type"]) == (200, "message")
