"""What `byok key compromised` and `byok key retire` say: what goes, and what to do, in order."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from bus_schemas.api import SlotStep, SlotView, StepView
from bus_schemas.errors import ContractError
from bus_schemas.fields import CredentialKind
from bus_schemas.providers import Provider, load_providers
from platform_handlers.owner.keys.compromised import steps
from platform_handlers.owner.keys.orders import to_retire, what_goes
from platform_handlers.owner.keys.rules import Course, Phase, SlotCourse, slot_course

AT = datetime(2026, 11, 23, 9, tzinfo=UTC)
API_KEY, OAUTH = CredentialKind.API_KEY, CredentialKind.OAUTH


def said(provider: Provider | None, kind: CredentialKind, *others: str) -> str:
    """Return the steps as a terminal of 80 columns shows them."""
    console = Console(file=io.StringIO(), width=80, highlight=False)
    console.print(steps(provider, kind, "acme-1 chat", others))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("provider", load_providers().values(), ids=list(load_providers()))
def test_each_providers_own_pages_are_named_in_order(provider: Provider) -> None:
    """Revoke, new key, usage, limits: whole addresses, each on a line of its own, to be clicked."""
    lines = [line.strip() for line in said(provider, provider.auth[0]).splitlines()]
    links = provider.links
    pages = [line for line in lines if line.startswith("https://")]
    assert pages == [links.revoke, links.console, links.usage, links.limits]


def test_a_sign_in_is_signed_in_anew_and_a_stranger_has_no_pages() -> None:
    """Links are the catalogue's; a provider that this build does not know has none."""
    words = said(None, OAUTH, "acme-3", "acme-2")
    assert "Sign in anew" in words
    assert "https://" not in words
    assert "The same sign-in is on acme-2, acme-3" in words


def test_the_newest_one_goes_unless_another_is_named() -> None:
    """Also one that is only sent: else it would come into use after the order."""
    sent = StepView(step=SlotStep.SENT, revision=4, at=AT)
    slot = SlotView(slot_id="chat", provider="openai", kind=API_KEY, revision=4, steps=(sent,))
    course = slot_course(slot)
    assert (to_retire(course, None), to_retire(course, 3)) == (4, 3)
    with pytest.raises(ContractError, match="there is no revision 5"):
        to_retire(course, 5)


def test_what_goes_is_said_before_it_goes() -> None:
    """That the agent is left without a key, and how a good new one that waits is kept."""
    both = SlotCourse(4, {3: Course(Phase.CURRENT), 4: Course(Phase.PENDING)})
    assert "the agent has no key here" in what_goes(both, 4)
    assert "--revision 3 keeps it" in what_goes(both, 4)
    assert "--revision" not in what_goes(both, 3)
    older = SlotCourse(4, {3: Course(Phase.RETIRED), 4: Course(Phase.CURRENT)})
    assert "revision 4 stays in use" in what_goes(older, 3)
    assert what_goes(SlotCourse(1, {1: Course()}), 1).count(";") == 0
