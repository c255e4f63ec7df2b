"""The newest health report of a server, as its owner is shown it."""

from dataclasses import dataclass
from datetime import datetime

import structlog

from bus_schemas.codec import decode
from bus_schemas.errors import ContractError
from bus_schemas.events import HealthReported
from bus_schemas.streams import HEALTH
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.jetstream import read_last

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LastReport:
    """What a server said of itself last, and when the stream took it."""

    report: HealthReported
    at: datetime


class LastReports:
    """Reads reports where they lie: the stream keeps each server's last one, for a day."""

    def __init__(self, bus: Bus) -> None:
        """*bus* has role CONFIG."""
        self._bus = bus

    async def of(self, server_id: str) -> LastReport | None:
        """Return the last report; None for none that is readable. Raises BusUnavailable."""
        subject = HealthReported.template.fill({"server_id": server_id})
        message = await read_last(self._bus, HEALTH.name, subject)
        if message is None:
            return None
        try:
            envelope = decode(message.data, message.subject)
        except ContractError as error:  # of a newer build, or the server's own nonsense
            _log.warning("report_unusable", subject=message.subject, reason=error.reason)
            return None
        report = envelope.data
        if not isinstance(report, HealthReported):
            return None
        return LastReport(report, datetime.fromisoformat(message.stored_at))
