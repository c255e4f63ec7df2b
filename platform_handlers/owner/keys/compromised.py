"""`byok key compromised`: out of use at once, then what to do, in order, with the provider's links.

The order to the server and the revocation at the provider are two things. The first keeps this
server from using the key; only the second keeps a thief from it.
"""

from collections.abc import Collection
from typing import Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bus_schemas.api import SlotView
from bus_schemas.errors import ByokError
from bus_schemas.exit_codes import ExitCode
from bus_schemas.fields import CredentialKind
from bus_schemas.orders import OrderKind
from bus_schemas.providers import Links, Provider
from platform_handlers.owner.console import plain, told
from platform_handlers.owner.keys.orders import Desk
from platform_handlers.owner.keys.rules import SlotCourse
from platform_handlers.owner.platform_api import PlatformUnreachable

_ANSWERS: Final = {
    ExitCode.OK: "{server} uses it no more, and it leaves its vault.",
    ExitCode.NEGATIVE: "{server} has REFUSED the order: it goes on using the key until step 1 is "
    "done. `byok server lock {server}` stops all its keys.",
    ExitCode.TRY_AGAIN: "{server} has NOT answered: it may be off, or still be using the key. The "
    "order waits for it for 30 days. Do not wait for it: step 1 works without it.",
}


def look(desk: Desk) -> tuple[SlotView, SlotCourse]:
    """Return how the slot stands. Raises PlatformUnreachable with what to do all the same."""
    try:
        return desk.look()
    except PlatformUnreachable as error:
        detail = (
            f"{error}. Nothing is stopped yet: revoke the key at its provider now, `byok "
            "providers` has the pages"
        )
    raise PlatformUnreachable(detail)


def stop_use(desk: Desk, revision: int) -> ExitCode:
    """Give the order that retires *revision* and say what is true now, and what is not yet.

    An order that cannot be given ends nothing: what has to be done at the provider is still to do.
    """
    server = desk.slot.server_id
    try:
        code = desk.order(OrderKind.RETIRE, revision)
        answer = _ANSWERS[code].format(server=server)
    except ByokError as error:
        failure = told(error)
        code = ExitCode(failure.exit_code)
        answer = f"{failure.message}. NOTHING is stopped: {server} goes on using the key."
    desk.console.print(Text(plain(answer)))
    desk.console.print(
        Text("A call that was on its way may still be answered. Whoever has the key can still use "
             "it, an agent that was given it by exec, too, until you revoke it at the provider:\n")
    )  # fmt: skip
    return code


def steps(
    provider: Provider | None, kind: CredentialKind, at: str, others: Collection[str]
) -> RenderableType:
    """Return what to do, in order; *others* are own servers that have the same credential. Pure."""
    name = provider.name if provider else "the provider"
    what = "sign-in" if kind is CredentialKind.OAUTH else "key"
    anew = "Sign in anew" if kind is CredentialKind.OAUTH else "Make a new key"
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    rows = [
        (f"Revoke the {what} at {name}.", "revoke"),
        (f"{anew} there.", "console"),
        (f"Send it: byok key set {at}", None),
        ("Look at the usage log for calls that were not yours.", "usage"),
        ("Look at the spending limits, and lower them if you can.", "limits"),
    ]
    if others:
        where = ", ".join(sorted(others))
        rows.append((f"The same {what} is on {where}: do the same there.", None))
    for n, (sentence, link) in enumerate(rows, 1):
        table.add_row(f"{n}.", Text(sentence + _link(provider, link)))
    return table


def _link(provider: Provider | None, link: str | None) -> str:
    """Return the page on a line of its own: our catalogue's, never one that the platform names."""
    if provider is None or link is None:
        return ""
    links: Links = provider.links
    return f"\n{getattr(links, link)}"
