"""Make a subscriber: its durable on the banner stream, and its credentials."""

import time
from dataclasses import dataclass

from bus_schemas.errors import Refused
from bus_schemas.flows import Role
from bus_schemas.streams import BANNERS
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import Credentials
from bus_schemas.transport.jetstream import StreamError, api
from platform_handlers.authority.accounts import user_credentials
from platform_handlers.authority.installation import Installation
from platform_handlers.provisioning.records import check_id

_ACK_WAIT_NANOSECONDS = 30 * 1_000_000_000
_MAX_ACK_PENDING = 1000
_CONSUMER_EXISTS = 10148
"""JetStream error code of a durable that is there with another configuration."""


@dataclass(frozen=True)
class Subscriber:
    """Who will listen, and to whose banners."""

    name: str
    owner_id: str | None
    """None: to all owners' banners."""


def durable_configuration(subscriber: Subscriber) -> dict[str, object]:
    """Return the consumer's configuration: only this owner's subjects, acknowledged one by one."""
    return {
        "durable_name": subscriber.name,
        "filter_subject": f"byok.v1.banner.{subscriber.owner_id or '*'}.*",
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": _ACK_WAIT_NANOSECONDS,
        "max_ack_pending": _MAX_ACK_PENDING,
    }


async def add_subscriber(
    setup: Bus, installation: Installation, subscriber: Subscriber
) -> Credentials:
    """Make the durable (role SETUP) and return fresh credentials for it.

    The NATS user is named like the durable: its permissions are a template on that name, so a
    subscriber can pull, see and acknowledge its own durable and no other. Asked again for the
    same, it gives further credentials. Raises Refused (`bad_id`, `name_taken`), StreamError.
    """
    check_id("subscriber", subscriber.name)
    if subscriber.owner_id is not None:
        check_id("owner", subscriber.owner_id)
    if subscriber.name in set(Role):
        # Inboxes hang off the name: it would hear every answer to that role.
        raise Refused("name_taken", f"{subscriber.name} is a role of the platform; choose another")
    await _make_durable(setup, subscriber)
    role = Role.SUBSCRIBER if subscriber.owner_id else Role.WATCHER
    tags = (f"owner:{subscriber.owner_id}",) if subscriber.owner_id else ()
    return user_credentials(installation, role, subscriber.name, now=int(time.time()), tags=tags)


async def _make_durable(setup: Bus, subscriber: Subscriber) -> None:
    """Create, never update: else the first owner's credentials would pull a second owner's banners.

    Raises Refused(`name_taken`), StreamError.
    """
    config = durable_configuration(subscriber)
    body = {"stream_name": BANNERS.name, "config": config, "action": "create"}
    try:
        await api(setup, f"CONSUMER.CREATE.{BANNERS.name}.{subscriber.name}", body)
    except StreamError as error:
        if error.code != _CONSUMER_EXISTS:
            raise
        detail = f"{subscriber.name} listens to something else already; choose another name"
        raise Refused("name_taken", detail) from None
