"""The platform's process: builds every handler but the evaluator, and runs them together.

The evaluator is left out on purpose: it holds the keys that open servers and fingerprints, and
runs as a process (and a uid) of its own.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import structlog
from starlette.applications import Starlette

from bus_schemas.errors import ReaderMustStop
from bus_schemas.flows import Role
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.pulse import watched
from bus_schemas.transport.target import BusTarget
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.banner.feed import Feed
from platform_handlers.config.service import ConfigHandler
from platform_handlers.dashboard.app import build_api, serve
from platform_handlers.dashboard.approvals import EvaluatorApprovals
from platform_handlers.dashboard.facts import LedgerFacts
from platform_handlers.dashboard.fleet import RegisteredFleet
from platform_handlers.dashboard.ports import Neighbours
from platform_handlers.fingerprint.handler import FingerprintHandler
from platform_handlers.health.handler import HealthHandler
from platform_handlers.intake.handler import Intake
from platform_handlers.intake.starts import RatchetStarts
from platform_handlers.process.clock import run_clock
from platform_handlers.provisioning.authorities import AuthorityBook
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.service import run_provisioning
from platform_handlers.provisioning.sign_ins import SignIns

_log = structlog.get_logger(__name__)

_STUCK_SECONDS = 200.0
"""A task that took no step for so long is stuck (`pulse`); the clock takes one a minute."""


@dataclass(frozen=True)
class Listen:
    """Where the API and the page are served."""

    host: str = "127.0.0.1"
    port: int = 8443
    """0 lets the system choose."""


async def run_platform(
    installation: Installation,
    target: BusTarget,
    listen: Listen,
    ready: Callable[[str], None] = lambda _url: None,
) -> None:
    """Run until cancelled; *ready* is told the API's address once it answers.

    Each role has its own connection and may do only its own work. A bus that is away is waited
    for, and a handler that must stop does not take the others with it. Raises OSError (address
    taken) and StorageFull at the start.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def bus(role: Role) -> Bus:
            opened = role_bus(installation, target, role).open_in_background()
            stack.push_async_callback(opened.close)
            return opened

        registry = await stack.enter_async_context(
            await Registry.open(installation.platform / FILE_NAME)
        )
        config = await ConfigHandler.open(installation, target, registry)
        stack.push_async_callback(config.close)
        fingerprint_bus, health_bus = await bus(Role.FINGERPRINT), await bus(Role.HEALTH)
        fingerprint = await FingerprintHandler.open(installation.platform, fingerprint_bus)
        health = await HealthHandler.open(installation.platform, health_bus)
        intake_bus = await bus(Role.INTAKE)
        await Intake(intake_bus, RatchetStarts(intake_bus)).listen()
        feed, api_bus = Feed(), await bus(Role.API)
        neighbours = Neighbours(
            tokens=registry,
            sessions=SignIns(registry),
            fleet=RegisteredFleet(registry),
            inbox=config.writer,
            shelf=config.view,
            orders=config.orders,
            approvals=EvaluatorApprovals(api_bus),
            facts=LedgerFacts(api_bus),
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run_provisioning(installation, target, registry))
            tasks.create_task(_standing_alone(config.run()))
            tasks.create_task(_standing_alone(fingerprint.run()))
            tasks.create_task(_standing_alone(health.run()))
            clock = run_clock(fingerprint_bus)
            tasks.create_task(watched("clock", clock, within=_STUCK_SECONDS, needs=fingerprint_bus))
            dashboard_bus = await bus(Role.DASHBOARD)
            following = feed.run(dashboard_bus)
            feeding = watched("feed", following, within=_STUCK_SECONDS, needs=dashboard_bus)
            tasks.create_task(_standing_alone(feeding))
            book = AuthorityBook(registry, installation)
            app = build_api(neighbours, feed, authorities=book.published)
            tasks.create_task(_serve(app, installation, listen, ready))


async def _standing_alone(handler: Coroutine[Any, Any, None]) -> None:
    """Run *handler*; one that must stop has said so itself, and owners still reach the others."""
    try:
        await handler
    except* ReaderMustStop as stopped:
        _log.critical("handler_stands_still", reasons=[str(stop) for stop in _leaves(stopped)])


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _serve(
    app: Starlette, installation: Installation, listen: Listen, ready: Callable[[str], None]
) -> None:
    async with serve(app, installation, host=listen.host, port=listen.port) as url:
        ready(url)
        await asyncio.Event().wait()  # until cancelled
