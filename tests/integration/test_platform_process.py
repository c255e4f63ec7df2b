"""The platform's handlers as one process: they live and fail apart."""

import asyncio
import ssl
from contextlib import suppress

import httpx
from structlog.testing import capture_logs
from structlog.typing import EventDict

from bus_schemas.events import RulesChanged
from bus_schemas.flows import Role
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import store
from platform_handlers.process.app import Listen, run_platform
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from tests.conftest import Platform


async def test_a_handler_that_must_stop_leaves_the_api_up(platform: Platform) -> None:
    """Unknown rules stop the folding with a clear alert; owners still reach their servers."""
    installation = platform.installation
    async with await Registry.open(installation.platform / FILE_NAME) as registry:
        token = await registry.add_owner("acme")
    answers: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    with capture_logs() as logs:
        running = asyncio.create_task(
            run_platform(installation, platform.server.target, Listen(port=0), answers.set_result)
        )
        try:
            url = await asyncio.wait_for(answers, 10)
            await store(await platform.bus(Role.ISSUER), fresh(RulesChanged(version=99)))
            await until_stopped(logs, {"fingerprint", "config", "health"})
            trust = ssl.create_default_context(cafile=str(installation.ca))
            async with httpx.AsyncClient(base_url=url, verify=trust) as api:
                answer = await api.get("/api/servers", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 200
            assert not running.done()
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


async def until_stopped(logs: list[EventDict], names: set[str]) -> None:
    """Wait, ten seconds at most, until each reader in *names* has said that it stopped."""
    for _ in range(500):
        if names <= {log.get("reader") for log in logs if log["event"] == "reader_stopped"}:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(logs)
