"""`byok key set` from the pin to the server's answer, and `byok key status`."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bus_schemas.api import SealedSubmission, ServerView, SlotStep, SlotView
from bus_schemas.credential import CredentialPayload
from bus_schemas.errors import Refused
from bus_schemas.exit_codes import ExitCode
from bus_schemas.fields import CredentialKind, at_utc
from bus_schemas.keys import fingerprint_typed, in_fours, server_fingerprint
from bus_schemas.providers import Provider
from bus_schemas.transport.fresh import new_id
from platform_handlers.owner import asking, sealing
from platform_handlers.owner.halted import Halted
from platform_handlers.owner.home import Home
from platform_handlers.owner.pasted import other_provider
from platform_handlers.owner.platform_api import PlatformApi, PlatformUnreachable
from platform_handlers.owner.words import STEP_IN_WORDS, reason_in_words

_LOOK_EVERY_SECONDS = 0.25
_SEND_ATTEMPTS = 3
_BAD: Final = {SlotStep.REJECTED, SlotStep.ABORTED, SlotStep.NEEDS_KEY}


@dataclass(frozen=True)
class KeySet:
    """What was asked for on the command line."""

    server_id: str
    slot_id: str
    kind: CredentialKind
    provider: str | None
    base_url: str | None
    server_fingerprint: str | None
    wait: float
    """Seconds to wait for the server's word."""


def set_key(platform: PlatformApi, home: Home, wish: KeySet, console: Console) -> ExitCode:
    """Seal, send, and show what becomes of it; return the exit code.

    The server is checked before the credential is asked for: what cannot be sealed for the right
    server is better never typed.
    """
    owner_key = home.owner_key()
    owner_id = platform.servers().owner_id
    view = platform.server(wish.server_id)
    slot = next((slot for slot in view.slots if slot.slot_id == wish.slot_id), None)
    provider = sealing.provider_of(wish.provider, slot)
    sealing.check_kind(provider, wish.kind)
    pinned = _pinned(home, wish)
    server = sealing.trusted(view, pinned, at=_now())
    home.pin(wish.server_id, pinned)
    payload = _asked(wish, provider, console)
    about = sealing.Sealing(
        owner_id, wish.slot_id, provider, slot.revision if slot else 0, new_id(), _now()
    )
    submission = sealing.submission(payload, server, about, owner_key)
    _send(platform, submission)
    console.print(f"[bold]sent[/bold]    to {wish.server_id}/{wish.slot_id}, sealed to its own key")
    return _watch(platform, submission, wish.wait, console)


def _pinned(home: Home, wish: KeySet) -> str:
    """Return the fingerprint to hold the server to; the platform's own word is never enough."""
    known = home.pinned(wish.server_id)
    given = wish.server_fingerprint and fingerprint_typed(wish.server_fingerprint)
    if known is None:
        return given or asking.read_fingerprint(wish.server_id)
    if given and given != known:
        detail = (
            f"{wish.server_id} is pinned as {in_fours(known)}; if it was set up anew, run "
            f"`byok owner forget {wish.server_id}` first"
        )
        raise Refused("fingerprint_differs", detail)
    return known


def _asked(wish: KeySet, provider: Provider, console: Console) -> CredentialPayload:
    if wish.kind is CredentialKind.OAUTH:
        document = asking.read_sign_in(provider.name)
        return sealing.oauth_set(document, provider, wish.base_url)
    secret = asking.read_api_key(provider.name)
    warning = other_provider(secret, provider.id)
    if warning and wish.provider is None:
        # Only the platform says whose key the slot takes, and with it where the key will go.
        detail = f"{warning} If you mean it, say so with --provider {provider.id}"
        raise Refused("provider_differs", detail)
    if warning:
        console.print(f"[yellow]Warning:[/yellow] {warning} Sending it anyway.")
    return sealing.api_key(secret, provider, wish.base_url)


def _send(platform: PlatformApi, submission: SealedSubmission) -> None:
    """Send; if the answer gets lost send the very same envelope again, which is harmless."""
    for attempt in range(1, _SEND_ATTEMPTS + 1):
        try:
            platform.send(submission)
        except PlatformUnreachable:
            if attempt == _SEND_ATTEMPTS:
                raise
            time.sleep(attempt)
        else:
            return


def _watch(
    platform: PlatformApi, submission: SealedSubmission, wait: float, console: Console
) -> ExitCode:
    envelope = submission.envelope
    deadline = time.monotonic() + wait
    with console.status(f"waiting for {envelope.server_id} to take it"):
        while True:
            verdict = _look(platform, submission, console)
            if verdict is not None:
                return verdict
            if time.monotonic() >= deadline:
                break
            time.sleep(_LOOK_EVERY_SECONDS)
    console.print(
        f"Not taken yet: {envelope.server_id} may be off. The sealed credential waits for a day; "
        f"`byok key status {envelope.server_id}` tells."
    )
    return ExitCode.TRY_AGAIN


def _look(platform: PlatformApi, submission: SealedSubmission, console: Console) -> ExitCode | None:
    envelope = submission.envelope
    try:
        slot = platform.slot(envelope.server_id, envelope.slot_id)
    except PlatformUnreachable:
        return None  # it is on its way; only our view of it is gone for a moment
    if slot.revision > envelope.revision:
        console.print("A newer credential was sent for this slot in the meantime.")
        return ExitCode.TRY_AGAIN
    return _verdict(slot, console)


def _verdict(slot: SlotView, console: Console) -> ExitCode | None:
    """Say what the server answered about the newest revision; None as long as it has not."""
    for step in slot.steps:
        if step.step is SlotStep.REJECTED:
            console.print("[bold red]refused[/bold red] by the server; nothing else has changed")
            console.print(reason_in_words(step.reason or "unknown"), markup=False)
            return ExitCode.NEGATIVE
        if step.step is not SlotStep.SENT and step.step is not SlotStep.NEEDS_KEY:
            console.print("[bold green]stored[/bold green]  on the server, encrypted")
            return ExitCode.OK
    return None


def show_status(server: ServerView, pinned: str | None, halts: Halted, console: Console) -> None:
    """Print a table of *server*'s slots."""
    console.print(Text(f"{server.server_id}: {_trust(server, pinned)}"))
    if halts.locked:
        lift = f"byok server unlock {server.server_id}"
        console.print(f"locked: it opens and uses nothing, until `{lift}`", style="red")
    if not server.slots:
        console.print(f"No credentials yet; `byok key set {server.server_id} SLOT` sends one.")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("Slot", "Provider", "Revision", "State", "Since"):
        table.add_column(title)
    for slot in server.slots:
        last = slot.latest
        words = STEP_IN_WORDS[last.step]
        if last.reason and last.step in _BAD:
            words = f"{words}. {reason_in_words(last.reason)}"
        stopped = slot.slot_id in halts.stopped
        if stopped:
            lift = f"byok key resume {server.server_id} {slot.slot_id}"
            words = f"stopped, until `{lift}`; {words}"
        style = "red" if stopped or last.step in _BAD else ""
        at = f"{last.at:%Y-%m-%d %H:%M} UTC"
        table.add_row(slot.slot_id, slot.provider, str(slot.revision), Text(words, style), at)
    console.print(table)


def _trust(server: ServerView, pinned: str | None) -> str:
    if server.identity_key is None:
        return "has not joined yet"
    offered = server_fingerprint(server.server_id, server.identity_key)
    if pinned is None:
        return f"the platform says {in_fours(offered)}; not compared with its console yet"
    if pinned == offered:
        return f"{in_fours(offered)}, as you pinned it"
    return f"NOT the server you pinned ({in_fours(pinned)}); send it nothing"


def _now() -> datetime:
    return at_utc(time.time())
