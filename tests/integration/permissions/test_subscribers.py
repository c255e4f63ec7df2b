"""A subscriber's name is its durable, its inbox and its permission, so it is given to one only."""

import pytest

from bus_schemas.errors import Refused
from bus_schemas.flows import Account, Role
from platform_handlers.subscriber.durable import Subscriber, add_subscriber
from tests.conftest import Platform
from tests.integration.permissions.conftest import InUse
from tests.integration.permissions.oracle import Person
from tests.integration.permissions.wire import Sent

READERS = [role for role in Role if role.account is Account.READERS]


async def test_a_name_that_is_taken_stays_with_its_owner(platform: Platform) -> None:
    """Else the credentials given out before would pull what belongs to somebody else."""
    setup = await platform.bus(Role.SETUP)
    await add_subscriber(setup, platform.installation, Subscriber("pager", "acme"))
    for other in (Subscriber("pager", "globex"), Subscriber("pager", None)):
        with pytest.raises(Refused, match="name_taken"):
            await add_subscriber(setup, platform.installation, other)
    again = await add_subscriber(setup, platform.installation, Subscriber("pager", "acme"))
    assert again.jwt


@pytest.mark.parametrize("role", READERS)
async def test_nobody_is_called_like_a_role(platform: Platform, role: Role) -> None:
    """It would hear what that role is answered, and the dashboard is told all owners' banners."""
    setup = await platform.bus(Role.SETUP)
    with pytest.raises(Refused, match="name_taken"):
        await add_subscriber(setup, platform.installation, Subscriber(role.value, "acme"))


def test_without_an_owner_in_its_token_a_subscriber_reads_nobodys_banners(in_use: InUse) -> None:
    """A tag that is missing leaves the permission out; it does not become a wildcard."""
    wire = in_use.wire(Person(Role.SUBSCRIBER, "lost-sub"))
    reads = [
        f"$JS.CORE.API.DIRECT.GET.BYOK_BANNERS.byok.v1.banner.{owner}.one"
        for owner in ("acme", "globex", "*", "", "{{tag(owner)}}")
    ]
    assert wire.refused([Sent(subject) for subject in reads]) == set(reads)
